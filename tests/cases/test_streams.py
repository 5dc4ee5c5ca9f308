"""B17 to B32: standard streams."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from casekit import Command, command_line, processes_with, repeats, volume

from execdrv import Host

pytestmark = pytest.mark.alone


def closed_stdin() -> None:
    os.close(0)


def test_b17_a_closed_stdin_reads_as_empty(driver: str, R: Path, state: Path) -> None:
    for command, output in (("true", b""), ("cat", b"")):
        result = subprocess.run(
            command_line(driver, R, "--", command),
            capture_output=True,
            preexec_fn=closed_stdin,
            timeout=20,
            check=False,
        )
        assert (result.returncode, result.stdout) == (0, output), result


def test_b17_all_streams_closed(driver: str, R: Path, state: Path) -> None:
    def close_all() -> None:
        os.closerange(0, 3)

    argv = command_line(driver, R, "--", "sh", "-c", "cat; echo x; echo y >&2; exit 3")
    assert subprocess.run(argv, preexec_fn=close_all, timeout=20, check=False).returncode == 3


def test_b20_no_signal_is_inherited_as_ignored_or_blocked(
    driver: str, R: Path, state: Path
) -> None:
    def ignore() -> None:
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGHUP])

    program = 'trap "echo P" PIPE; kill -PIPE $$; '
    if driver != "chroot":  # no /proc there
        program += 'grep -E "Sig(Ign|Blk)" /proc/self/status'
    result = subprocess.run(
        command_line(driver, R, "--", "sh", "-c", program),
        capture_output=True,
        preexec_fn=ignore,
        timeout=20,
        check=False,
    )
    lines = result.stdout.split(b"\n")
    assert lines[0] == b"P", result
    if driver != "chroot":
        assert [line.split()[1].strip(b"0") for line in lines[1:3]] == [b"", b""]


@pytest.mark.parametrize("how", ["ignored", "blocked"])
def test_b21_the_callers_sigchld_setting_does_not_matter(
    host: Host, driver: str, R: Path, how: str
) -> None:
    if how == "ignored":
        previous = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    else:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        for _ in range(2):
            assert host.run(driver, ["sh", "-c", "exit 3"], rootfs=R).code == 3
        assert signal.getsignal(signal.SIGCHLD) == handler
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask
    finally:
        if how == "ignored":
            signal.signal(signal.SIGCHLD, previous)
        else:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def test_b22_a_background_child_does_not_hold_the_result(
    X: Command, host: Host, driver: str, R: Path
) -> None:
    command = ["sh", "-c", "sleep 30022 & echo ok"]
    started = time.monotonic()
    result = X("--", *command)
    assert (result.returncode, result.stdout) == (0, b"ok\n")
    exit_ = host.run(driver, command, rootfs=R, capture=1000)
    assert (exit_.code, exit_.stdout, exit_.truncated) == (0, b"ok\n", False)
    assert time.monotonic() - started < 4
    assert processes_with("30022") == []


def test_b23_a_gigabyte_passes_through(driver: str, R: Path, state: Path) -> None:
    size = volume(1 << 30)
    argv = command_line(driver, R, "--", "head", "-c", str(size), "/dev/zero")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as command:
        assert command.stdout is not None
        total = 0
        while chunk := os.read(command.stdout.fileno(), 1 << 20):
            total += len(chunk)
        assert command.wait(timeout=30) == 0
    assert total == size


def test_b23_a_capture_is_bounded_and_never_blocks_the_job(
    host: Host, driver: str, R: Path
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = volume(1 << 30)
    exit_ = host.run(driver, ["head", "-c", str(size), "/dev/zero"], rootfs=R, capture=1 << 20)
    assert (exit_.code, len(exit_.stdout), exit_.truncated) == (0, 1 << 20, True)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_b24_a_reader_that_stops_costs_no_cpu_time(driver: str, R: Path, state: Path) -> None:
    read_end, write_end = os.pipe()
    argv = command_line(driver, R, "--", "yes")
    with subprocess.Popen(argv, stdout=write_end, stdin=subprocess.DEVNULL) as command:
        os.close(write_end)
        time.sleep(2.0)
        # What the command itself used by now, start-up included.
        fields = Path(f"/proc/{command.pid}/stat").read_text().rsplit(")", 1)[1].split()
        started_up = int(fields[11]) + int(fields[12])
        time.sleep(2.0)
        fields = Path(f"/proc/{command.pid}/stat").read_text().rsplit(")", 1)[1].split()
        idle_ticks = int(fields[11]) + int(fields[12]) - started_up
        os.close(read_end)
        closed = time.monotonic()
        assert command.wait(timeout=5) == 128 + signal.SIGPIPE
        assert time.monotonic() - closed < 1
    assert idle_ticks / os.sysconf("SC_CLK_TCK") < 0.25


def test_b25_no_byte_is_lost_at_the_end(host: Host, driver: str, R: Path) -> None:
    command = ["sh", "-c", "head -c 300000 /dev/zero; exit 3"]
    for _ in range(repeats(200)):
        exit_ = host.run(driver, command, rootfs=R, capture=1 << 20)
        assert (len(exit_.stdout), exit_.code, exit_.truncated) == (300000, 3, False)


def test_b25_a_slow_reader_gets_every_byte(driver: str, R: Path, state: Path) -> None:
    argv = command_line(driver, R, "--", "sh", "-c", "head -c 300000 /dev/zero; exit 3")
    for _ in range(repeats(200) // 5):
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as command:
            assert command.stdout is not None
            time.sleep(0.1)
            total = 0
            while chunk := os.read(command.stdout.fileno(), 10_000):
                total += len(chunk)
            assert (total, command.wait(timeout=10)) == (300000, 3)


def test_b32_the_hosts_null_device_keeps_its_owner(X: Command) -> None:
    """CLEAN compares the device's owner and mode."""
    with open("/dev/null", "r+b") as null:
        result = X("--user", "1000", "--", "true", stdin=null, stdout=null, stderr=null)
    assert result.returncode == 0


def test_streams_stay_apart_and_binary(host: Host, driver: str, R: Path) -> None:
    program = r"printf 'a\000\377'; printf 'b\376' >&2"
    exit_ = host.run(driver, ["sh", "-c", program], rootfs=R, capture=100)
    assert (exit_.stdout, exit_.stderr) == (b"a\x00\xff", b"b\xfe")


def test_stdin_arrives_and_ends(host: Host, driver: str, R: Path) -> None:
    read_end, write_end = os.pipe()
    writer = threading.Thread(
        target=lambda: (os.write(write_end, b"x" * 1000), os.close(write_end))
    )
    writer.start()
    exit_ = host.run(driver, ["cat"], rootfs=R, stdin=read_end, capture=2000)
    writer.join()
    os.close(read_end)
    assert exit_.stdout == b"x" * 1000
