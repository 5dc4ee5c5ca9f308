"""B82 to B99: signals, clean-up, concurrency.

Left for later, with terminals: Ctrl-C of a job that has one (B82 here: the command has it).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from casekit import (
    Command,
    command_line,
    error_line,
    processes_with,
    repeats,
    wait_until,
)

from execdrv import Host
from execdrv.errors import ExecdrvError
from execdrv.spec import Bind

TRAPS = """
for name in HUP INT USR1; do trap "echo $name" $name; done
trap "echo TERM; exit 9" TERM
echo ready
while :; do sleep 0.05; done
"""


def execdrv(*words: Any) -> subprocess.CompletedProcess[bytes]:
    """Another command than `run`."""
    argv = [sys.executable, "-m", "execdrv", *words]
    return subprocess.run(argv, capture_output=True, timeout=20, check=False)


def read_line(stream: Any) -> bytes:
    line: bytes = stream.readline()
    return line.strip()


def test_b82_signals_reach_the_job_once(driver: str, R: Path, state: Path) -> None:
    argv = command_line(driver, R, "--", "sh", "-c", TRAPS)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as command:
        assert read_line(command.stdout) == b"ready"
        for name in ("INT", "HUP", "USR1", "TERM"):
            command.send_signal(getattr(signal, f"SIG{name}"))
            assert read_line(command.stdout) == name.encode()
        assert command.stdout is not None and command.stdout.read() == b""
        assert command.wait(timeout=10) == 9


def test_b82_ctrl_c_reaches_the_job_once(driver: str, R: Path, state: Path) -> None:
    ours, theirs = os.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    argv = command_line(driver, R, "--", "sh", "-c", TRAPS)
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stdin=theirs, preexec_fn=take_terminal
    ) as command:
        os.close(theirs)
        assert read_line(command.stdout) == b"ready"
        os.write(ours, b"\x03")
        assert read_line(command.stdout) == b"INT"
        time.sleep(0.3)
        command.send_signal(signal.SIGTERM)
        assert command.stdout is not None and command.stdout.read() == b"TERM\n"
        assert command.wait(timeout=10) == 9
    os.close(ours)


def test_b83_a_job_that_does_nothing_about_sigterm_ends_at_once(
    driver: str, R: Path, state: Path
) -> None:
    took_s = []
    for _ in range(3):
        argv = command_line(driver, R, "--", "sh", "-c", "echo ready; exec sleep 100")
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as command:
            assert read_line(command.stdout) == b"ready"
            started = time.monotonic()
            command.terminate()
            assert command.wait(timeout=10) == 143
            took_s.append(time.monotonic() - started)
    # The best: others use the machine too.
    assert min(took_s) < 1


def test_b85_a_daemon_does_not_outlive_its_container(
    X: Command, host: Host, R: Path, driver: str
) -> None:
    token = f"8{os.getpid()}85"
    argv = ["sh", "-c", f"(setsid sleep {token} >/dev/null 2>&1 &); exit 0"]
    result = X("--", *argv)
    assert processes_with(token) == []
    assert result.returncode == 0, result
    exit_ = host.run(driver, argv, rootfs=R)
    assert processes_with(token) == []
    assert exit_.code == 0


def test_b89_one_name_at_a_time(driver: str, R: Path, state: Path, X: Command) -> None:
    gate, opener = os.pipe()
    argv = command_line(driver, R, "--name", "a", "--", "cat")
    commands = [
        subprocess.Popen(argv, stdin=gate, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(20)
    ]
    os.close(gate)
    waiting = list(commands)
    complaints: list[bytes] = []

    def losers_ended() -> bool:
        for command in [c for c in waiting if c.poll() is not None]:
            waiting.remove(command)
            assert command.stderr is not None
            complaints.append(command.stderr.read())
            command.stderr.close()
        return len(waiting) == 1

    try:
        wait_until(losers_ended, timeout_s=40)
        winner = waiting[0]
    finally:
        os.close(opener)
        for command in waiting:
            command.communicate(timeout=10)
    assert winner.returncode == 0
    assert sorted(command.returncode for command in commands) == [0] + [125] * 19
    for complaint in complaints:
        assert b"'a'" in complaint and b"in use" in complaint, complaint
        assert complaint.count(b"\n") == 1, complaint
    assert X("--name", "a", "--", "true").returncode == 0


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run `work(number)` in that many threads; raises what one of them raised."""
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_b89_different_names_at_the_same_time(host: Host, R: Path, driver: str) -> None:
    codes = []

    def work(number: int) -> None:
        codes.append(host.run(driver, ["true"], rootfs=R, name=f"n{number}").code)

    in_threads(50, work)
    assert codes == [0] * 50


def test_b91_many_threads_in_one_process(host: Host, R: Path, driver: str) -> None:
    count = repeats(100)
    done = threading.Event()
    codes = []

    def disturb(number: int) -> None:
        import importlib
        import logging

        logger = logging.getLogger(f"b91.{number}")
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        module = importlib.import_module("colorsys")
        while not done.is_set():
            blocks = [bytearray(50_000) for _ in range(20)]
            logger.warning("%s blocks", len(blocks))
            importlib.reload(module)
            time.sleep(0.001)

    def work(number: int) -> None:
        if number >= 8:
            disturb(number)
            return
        try:
            for _ in range(count):
                codes.append(host.run(driver, ["true"], rootfs=R).code)
        except BaseException:
            done.set()
            raise
        if len(codes) == 8 * count:
            done.set()

    started = time.monotonic()
    watchdog = threading.Timer(120, done.set)
    watchdog.start()
    in_threads(10, work)
    watchdog.cancel()
    assert codes == [0] * (8 * count)
    assert time.monotonic() - started < 120


def state_and_children(pid: int) -> tuple[str, list[int]]:
    """One letter, and the children, of a process; "" and none where it is gone (proc(5))."""
    try:
        letter = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "", []
    return letter, [int(word) for word in found.split()]


def zombies_below(pid: int) -> list[int]:
    found = []
    pending = [pid]
    while pending:
        children = state_and_children(pending.pop())[1]
        pending += children
        found += [child for child in children if state_and_children(child)[0] == "Z"]
    return found


def test_b93_orphans_inside_are_reaped(host: Host, R: Path, driver: str) -> None:
    program = "for i in $(seq 200); do (sleep 0.01 &) ; done; echo done; exec sleep 60"
    read_end, write_end = os.pipe()
    with (
        open(read_end, "rb") as output,
        host.start(driver, ["sh", "-c", program], rootfs=R, stdout=write_end) as container,
    ):
        os.close(write_end)
        assert output.readline() == b"done\n"
        time.sleep(0.5)
        record = container.inspect()
        for part in ("init", "supervisor"):
            assert len(zombies_below(record[part]["pid"])) <= 1
        container.signal(signal.SIGKILL)
        assert container.wait(5).signal == signal.SIGKILL


def test_b93_runs_leave_no_children(host: Host, R: Path, driver: str) -> None:
    for _ in range(repeats(100)):
        assert host.run(driver, ["true"], rootfs=R).code == 0
    assert state_and_children(os.getpid())[1] == []


def replace_processes(value: Any, pid: int) -> Any:
    """A record's data with another pid wherever it names a process; start times stay."""
    if isinstance(value, dict):
        return {
            key: pid if key == "pid" else replace_processes(item, pid)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [replace_processes(item, pid) for item in value]
    return value


@contextlib.contextmanager
def lost_container(driver: str, R: Path, state: Path, name: str) -> Iterator[Path]:
    """The directory of a container whose command and supervisor were killed."""
    argv = command_line(driver, R, "--name", name, "--", "sleep", f"9{os.getpid()}")
    with (
        subprocess.Popen(argv, stdin=subprocess.DEVNULL) as command,
        Host(root=str(state)) as host,
    ):
        wait_until(
            lambda: name in [c.id for c in host.containers()] and host.get(name).state == "running",
            timeout_s=20,
        )
        supervisor = host.get(name).inspect()["supervisor"]["pid"]
        command.kill()
        os.kill(supervisor, signal.SIGKILL)
        wait_until(lambda: host.get(name).state == "lost")
        yield state / "containers" / name


def test_b94_a_recycled_process_number_is_nobody(driver: str, R: Path, state: Path) -> None:
    with (
        lost_container(driver, R, state, "b94") as directory,
        subprocess.Popen(["sleep", "60"], start_new_session=True) as sleeper,
    ):
        try:
            record = json.loads((directory / "record").read_text())
            assert record["supervisor"]["pid"] and record["job"]["pid"]
            changed = replace_processes(record, sleeper.pid)
            assert changed["job"]["pid"] == changed["init"]["pid"] == sleeper.pid
            (directory / "record").write_text(json.dumps(changed))
            destroyed = execdrv("destroy", "b94")
            assert destroyed.returncode == 0, destroyed
            assert sleeper.poll() is None
            assert not directory.exists()
        finally:
            sleeper.kill()


#: A way to fail: the command, the fields, and what is said of it.
FAULTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no such command": ("nosuchcmd", {}, "'nosuchcmd'"),
    "bad working directory": ("true", {"workdir": "/nope"}, "'/nope'"),
    "bad bind": ("true", {"binds": [Bind(source="/etc", target="/etc/passwd")]}, "/etc/passwd"),
    "bad limit": ("true", {"memory": "64M", "cgroup_parent": "execdrv/none"}, "'execdrv/none'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_b95_nothing_leaks_where_a_start_fails(
    host: Host, R: Path, driver: str, fault: str
) -> None:
    command, fields, said = FAULTS[fault]
    if driver == "chroot" and fault in ("bad bind", "bad limit"):
        said = "'chroot' does not offer"

    def fail() -> None:
        with pytest.raises(ExecdrvError, match=said):
            host.run(driver, [command], rootfs=R, **fields)

    fail()
    descriptors = len(os.listdir("/proc/self/fd"))
    threads = len(os.listdir("/proc/self/task"))
    for _ in range(repeats(300)):
        fail()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert len(os.listdir("/proc/self/task")) == threads
    assert state_and_children(os.getpid())[1] == []


@pytest.fixture
def full_state(tmp_path: Path) -> Iterator[Path]:
    """A state directory on a file system of 64 KiB without a free byte."""
    place = tmp_path / "full"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "b98", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def fill(place: Path) -> None:
    with open(place / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def test_b98_a_full_disk(X: Command, full_state: Path, driver: str) -> None:
    fill(full_state)
    options = ("--root", str(full_state), "--name", "b98")
    result = X(*options, "--", "true")
    assert result.returncode == 125, result
    assert os.strerror(errno.ENOSPC).lower() in error_line(result).lower()
    assert list(full_state.glob("containers/*")) == []
    assert list(full_state.glob("leases/*")) == []
    (full_state / "filler").unlink()
    assert X(*options, "--", "true").returncode == 0


def test_b98_broken_records_beside_good_ones(host: Host, R: Path, state: Path, driver: str) -> None:
    contents = {"empty": b"", "garbage": b"\xff\x00{]", "other": b"[1, 2]", "none": None}
    with host.start(driver, ["sleep", "60"], rootfs=R, name="good") as good:
        for name, content in contents.items():
            directory = state / "containers" / name
            directory.mkdir(mode=0o700)
            if content is not None:
                (directory / "record").write_bytes(content)
        listed = execdrv("ps", "--json")
        assert listed.returncode == 0, listed
        states = {entry["id"]: entry["state"] for entry in json.loads(listed.stdout)}
        assert states == {"good": "running", **dict.fromkeys(contents, "broken")}
        assert execdrv("ps").returncode == 0
        destroyed = execdrv("destroy", *contents)
        assert destroyed.returncode == 0, destroyed
        assert [container.id for container in host.containers()] == ["good"]
        assert good.state == "running"


@pytest.mark.parametrize("limited", [False, True])
def test_b99_very_short_jobs(host: Host, R: Path, driver: str, limited: bool) -> None:
    fields = {"memory": "64M", "cpus": 1, "pids": 16} if limited else {}
    if limited and driver == "chroot":
        with pytest.raises(ExecdrvError, match="'chroot'"):
            host.run(driver, ["true"], rootfs=R, **fields)
        return
    took_s = []
    for _ in range(repeats(2000)):
        started = time.monotonic()
        assert host.run(driver, ["true"], rootfs=R, **fields).code == 0
        took_s.append(time.monotonic() - started)
    assert max(took_s) < 2
