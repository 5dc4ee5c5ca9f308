"""B01 to B15: exit status, and finding the command."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from casekit import Command, command_line, error_line, processes_with, repeats, wait_until

from execdrv import Host
from execdrv.errors import SpecError


def script(root: Path, name: str, text: str, mode: int = 0o755) -> str:
    path = root / name
    path.write_text(text)
    path.chmod(mode)
    return f"/{name}"


@pytest.mark.parametrize(
    ("command", "status"), [("nosuchcmd", 127), ("/nosuch/x", 127), ("/etc", 126)]
)
def test_b01_missing_and_unrunnable_commands_differ(X: Command, command: str, status: int) -> None:
    result = X("--", command)
    assert result.returncode == status, result
    assert command in error_line(result)


@pytest.mark.parametrize("before", ["", "\n", "# a comment\n"])
def test_b02_script_without_a_first_line_is_not_executable(
    X: Command, R: Path, before: str
) -> None:
    name = script(R, "s.sh", before + ("exit 7" if not before else "#!/bin/sh\nexit 7\n"))
    result = X("--", name)
    assert result.returncode == 126, result
    line = error_line(result)
    assert name in line and "format" in line


@pytest.mark.parametrize(
    ("first_line", "shown"), [("#!/no/such/interp\n", "/no/such/interp"), ("#!/bin/sh\r\n", "\\r")]
)
def test_b03_missing_interpreter_is_named(X: Command, R: Path, first_line: str, shown: str) -> None:
    result = X("--", script(R, "s.sh", first_line))
    assert result.returncode == 127, result
    line = error_line(result)
    assert shown in line and "interpreter" in line


@pytest.mark.parametrize("user", ["0", "1000"])
def test_b04_file_without_the_execute_bit(X: Command, R: Path, user: str) -> None:
    name = script(R, "d.txt", "#!/bin/sh\n", 0o644)
    result = X("--user", user, "--", name)
    assert result.returncode == 126, result
    assert name in error_line(result)


def test_b04_the_kernel_decides_who_may_execute(X: Command, R: Path, driver: str) -> None:
    shutil.copy(R / "bin/alloc", R / "o")
    (R / "o").chmod(0o100)
    os.chown(R / "o", 1000, 1000)
    direct = ("--root-mode", "direct") if driver == "chroot" else ()
    with_it = X(*direct, "--user", "0", "--cap-drop", "ALL", "--cap-add", "DAC_OVERRIDE",
                "--", "/o", "1")  # fmt: skip
    assert with_it.returncode == 0, with_it
    without = X(*direct, "--user", "0", "--cap-drop", "ALL", "--", "/o", "1")
    assert without.returncode == 126, without
    assert "/o" in error_line(without)


def test_b06_empty_words_are_kept_and_an_empty_command_is_refused(X: Command) -> None:
    empty = X("--", "")
    assert empty.returncode == 127 and "empty" in error_line(empty)
    assert X("--", "printf", "[%s]", "a", "", "b").stdout == b"[a][][b]"
    nothing = X("--")
    assert nothing.returncode == 125 and "command" in error_line(nothing)


def test_b06_an_empty_argv_is_a_spec_error(host: Host, driver: str) -> None:
    with pytest.raises(SpecError, match="argv"):
        host.run(driver, [])


def test_b08_the_command_is_looked_up_in_the_root(X: Command, R: Path) -> None:
    assert shutil.which("python3")
    assert X("--", "python3", "-V").returncode == 127
    script(R, "usr/local/bin/onlyin", "#!/bin/sh\nexit 0\n")
    assert X("--", "onlyin").returncode == 0


def test_b10_the_exit_status_is_that_of_the_command(X: Command) -> None:
    assert X("--", "false").returncode == 1
    assert X("--", "sh", "-c", "exit 3").returncode == 3


@pytest.mark.parametrize("name", ["KILL", "SEGV", "TERM", "ABRT", "XCPU"])
def test_b11_death_by_signal_is_no_success(
    X: Command, host: Host, R: Path, driver: str, name: str
) -> None:
    number = getattr(signal, f"SIG{name}")
    command = ["sh", "-c", f"kill -{name} $$"]
    assert X("--", *command).returncode == 128 + number
    exit_ = host.run(driver, command, rootfs=R)
    assert (exit_.code, exit_.signal, exit_.reason) == (None, number, "signaled")


def test_b12_a_job_can_raise_its_own_signals(X: Command) -> None:
    result = X("--", "sh", "-c", "kill -ABRT $$; echo alive")
    assert (result.returncode, result.stdout) == (134, b"")


def test_b13_death_of_the_supervisor_is_told_and_cleaned_up(
    driver: str, R: Path, state: Path
) -> None:
    argv = command_line(driver, R, "--name", "b13", "--", "sleep", "61013")
    with subprocess.Popen(argv, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as command:
        with Host(root=str(state)) as host:
            wait_until(lambda: [c.id for c in host.containers() if c.state == "running"] == ["b13"])
            supervisor = host.get("b13").inspect()["supervisor"]["pid"]
        os.kill(supervisor, signal.SIGKILL)
        killed = time.monotonic()
        _, stderr = command.communicate(timeout=10)
        took_s = time.monotonic() - killed
    assert command.returncode == 125
    assert b"supervisor" in stderr and b"Traceback" not in stderr
    assert took_s < 2
    assert processes_with("61013") == []


def test_b15_a_childs_death_for_memory_is_data(host: Host, R: Path, driver: str) -> None:
    if driver == "chroot":
        pytest.skip("driver chroot offers no memory limit (refused: see the limits' cases)")
    child = ["sh", "-c", "alloc 200; echo c=$?; exit 0"]
    exit_ = host.run(driver, child, rootfs=R, memory="64M", capture=1000)
    assert (exit_.code, exit_.reason, exit_.stdout) == (0, "exited", b"c=137\n")
    assert exit_.oom_kills >= 1
    alone = host.run(driver, ["alloc", "200"], rootfs=R, memory="64M")
    assert (alone.status, alone.reason) == (137, "oom")
    assert alone.oom_kills >= 1


def test_every_exit_code_is_exact(host: Host, R: Path, driver: str) -> None:
    """All of them in the long run; in CI the edges, and others by chance."""
    count = repeats(256)
    codes = range(256) if count == 256 else {0, 1, 125, 126, 127, 128, 137, 255}
    codes = sorted({*codes, *random.sample(range(256), count - len(codes))})
    found = [host.run(driver, ["sh", "-c", f"exit {n}"], rootfs=R).code for n in codes]
    assert found == codes
