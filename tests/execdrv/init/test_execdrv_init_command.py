"""The command of the job: how it is found, and what is said of one that does not run."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from errno import E2BIG, EACCES, ELOOP, ENOENT, ENOEXEC, ENOTDIR
from typing import Any

import pytest

PATH_ENV = b"PATH=/usr/local/bin:/bin"


@pytest.fixture
def script(root: str) -> Any:
    """Writes an executable; returns its path inside."""
    made = set()

    def write(name: str, text: bytes, mode: int = 0o755, uid: int = 0) -> bytes:
        path = f"{root}/{name}"
        with open(path, "wb") as file:
            file.write(text)
        os.chown(path, uid, uid)
        os.chmod(path, mode)
        made.add(path)
        return b"/" + name.encode()

    yield write
    for path in made:
        os.unlink(path)


def exec_failure(launch: Any, *argv: Any, **fields: Any) -> tuple[int, bytes, bytes]:
    failed = launch.ready().failed(*argv, **{"env": (PATH_ENV,), **fields})
    assert failed.stage == "exec"
    return failed.errno, failed.path, failed.detail


def test_missing_command(launch: Any) -> None:
    assert exec_failure(launch, "nosuch") == (ENOENT, b"nosuch", b"path")
    assert exec_failure(launch, "/nosuch/x") == (ENOENT, b"/nosuch/x", b"")
    assert exec_failure(launch, "./nosuch") == (ENOENT, b"./nosuch", b"")
    assert exec_failure(launch, "/bin/sh/x") == (ENOTDIR, b"/bin/sh/x", b"")
    assert exec_failure(launch, "x" * 5000) == (ENOENT, b"x" * 4095, b"path")


def test_empty_command(launch: Any) -> None:
    assert exec_failure(launch, "") == (ENOENT, b"", b"empty")
    assert exec_failure(launch, "", "a") == (ENOENT, b"", b"empty")


def test_directory_as_command(launch: Any) -> None:
    assert exec_failure(launch, "/etc") == (EACCES, b"/etc", b"directory")
    assert exec_failure(launch, "/dev/null") == (EACCES, b"/dev/null", b"not-regular")


def test_file_of_no_executable_format_is_never_given_to_a_shell(launch: Any, script: Any) -> None:
    for text in (b"exit 7\n", b"\n#!/bin/sh\nexit 7\n", b"# c\n#!/bin/sh\n", b"", b"#!\n"):
        path = script("usr/local/bin/s.sh", text)
        assert exec_failure(launch, path) == (ENOEXEC, path, b"")
        assert exec_failure(launch, "s.sh") == (ENOEXEC, path, b"")


@pytest.mark.parametrize(
    ("line", "interpreter"),
    [
        (b"#!/no/such/interp\n", b"/no/such/interp"),
        (b"#!/bin/sh\r\n", b"/bin/sh\r"),
        (b"#! \t/no/such  -x y\n", b"/no/such"),
        (b"#!/no/end", b"/no/end"),
    ],
)
def test_missing_interpreter_is_named(
    launch: Any, script: Any, line: bytes, interpreter: bytes
) -> None:
    path = script("s.sh", line)
    assert exec_failure(launch, path) == (ENOENT, path, b"interpreter:" + interpreter)


def test_missing_interpreter_is_named_for_a_command_found_in_path(launch: Any, script: Any) -> None:
    path = script("bin/found.sh", b"#!/no/such\n")
    assert exec_failure(launch, "found.sh") == (ENOENT, path, b"interpreter:/no/such")


def test_later_path_entry_wins_over_a_missing_interpreter(launch: Any, script: Any) -> None:
    script("usr/local/bin/two", b"#!/no/such\n")
    script("bin/two", b"#!/bin/sh\nexit 4\n")
    run = launch.ready()
    run.order("two", env=(PATH_ENV,))
    assert os.waitstatus_to_exitcode(run.exited().status) == 4


def test_missing_loader_is_named(launch: Any, script: Any) -> None:
    with open(os.path.realpath("/bin/ls"), "rb") as file:
        dynamic = file.read()
    path = script("dynamic", dynamic)
    number, shown, detail = exec_failure(launch, path)
    assert (number, shown) == (ENOENT, path)
    assert detail.startswith(b"loader:/lib") and b"ld-linux" in detail
    user = script("user.sh", b"#!/dynamic\n")
    assert exec_failure(launch, user) == (ENOENT, user, detail)
    hidden = script("hidden", dynamic, mode=0o111)
    assert exec_failure(launch, hidden, uid=1000) == (ENOENT, hidden, b"interpreter:")


def test_missing_loader_of_a_32_bit_program_is_named(launch: Any, script: Any) -> None:
    name = b"/lib/ld-linux.so.2\0"
    head = b"\x7fELF\1\1\1" + bytes(9)
    head += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, 0x8048000, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    part = struct.pack("<8I", 3, 84, 0, 0, len(name), len(name), 4, 1)
    path = script("old", head + part + name)
    number, shown, detail = exec_failure(launch, path)
    if number == ENOEXEC:
        pytest.skip("this kernel executes no 32-bit programs")
    assert (number, shown, detail) == (ENOENT, path, b"loader:/lib/ld-linux.so.2")


def test_dangling_link_as_command(launch: Any, root: str) -> None:
    os.symlink("/no/target", f"{root}/bin/dangling")
    os.symlink("loop", f"{root}/bin/loop")
    try:
        assert exec_failure(launch, "/bin/dangling") == (ENOENT, b"/bin/dangling", b"")
        assert exec_failure(launch, "dangling") == (ENOENT, b"/bin/dangling", b"")
        assert exec_failure(launch, "/bin/loop") == (ELOOP, b"/bin/loop", b"")
    finally:
        os.unlink(f"{root}/bin/dangling")
        os.unlink(f"{root}/bin/loop")


def test_file_without_execute_bit(launch: Any, script: Any) -> None:
    path = script("d.txt", b"#!/bin/sh\nexit 3\n", mode=0o644)
    for uid in (0, 1000):
        assert exec_failure(launch, path, uid=uid) == (EACCES, path, b"mode")


def test_execute_bit_follows_the_capabilities_of_the_job(
    launch: Any, script: Any, root: str
) -> None:
    with open(f"{root}/bin/busybox", "rb") as file:
        path = script("tmp/busybox", file.read(), mode=0o100, uid=1000)
    assert exec_failure(launch, path, "true") == (EACCES, path, b"mode")
    run = launch.ready()
    run.order(path, "true", bounding=2, permitted=2, effective=2)  # DAC_OVERRIDE
    assert run.exited().status == 0


def test_interpreter_without_execute_bit_is_named(launch: Any, script: Any) -> None:
    script("closed", b"", mode=0o644)
    path = script("s.sh", b"#!/closed -x\n")
    assert exec_failure(launch, path) == (EACCES, path, b"interpreter:/closed")


def test_unrunnable_file_in_path_is_remembered_while_searching(launch: Any, script: Any) -> None:
    first = script("usr/local/bin/both", b"", mode=0o644)
    assert exec_failure(launch, "both") == (EACCES, first, b"mode")
    last = script("bin/both", b"#!/no/such\n")
    assert exec_failure(launch, "both") == (EACCES, first, b"mode")
    script("bin/both", b"", mode=0o600)
    assert exec_failure(launch, "both") == (EACCES, first, b"mode")
    script("usr/local/bin/both", b"#!/no/such\n")
    assert exec_failure(launch, "both") == (EACCES, last, b"mode")
    script("usr/local/bin/both", b"", mode=0o644)
    script("bin/both", b"#!/bin/sh\nexit 5\n")
    run = launch.ready()
    run.order("both", env=(PATH_ENV,))
    assert os.waitstatus_to_exitcode(run.exited().status) == 5


def test_noexec_file_system_is_said(launch_pidns: Any, root: str, mount_at: Any) -> None:
    def before() -> None:  # in the init's own mount namespace
        mount_at("tmpfs", "/tmp", 8)  # MS_NOEXEC
        with open("/tmp/x", "wb") as file:
            file.write(b"#!/bin/sh\n")
            os.fchmod(file.fileno(), 0o755)

    failed = launch_pidns.ready(before=before).failed("/tmp/x")
    assert (failed.errno, failed.path, failed.detail) == (EACCES, b"/tmp/x", b"noexec")


def test_path_is_the_jobs_and_has_a_default(launch: Any, script: Any) -> None:
    script("usr/local/bin/mine", b"#!/bin/sh\nexit 6\n")
    for env, word, code in (
        ((), "mine", 6),
        ((b"PATH=/nope::/usr/local/bin",), "mine", 6),
        ((b"X=1", b"PATH=/bin:/usr/local/bin/", b"PATH=/nope"), "mine", 6),
    ):
        run = launch.ready()
        run.order(word, env=env)
        assert os.waitstatus_to_exitcode(run.exited().status) == code
    assert exec_failure(launch, "mine", env=(b"PATH=/bin",)) == (ENOENT, b"mine", b"path")


def test_empty_path_entry_is_the_working_directory(launch: Any, script: Any) -> None:
    script("tmp/here", b"#!/bin/sh\nexit 8\n")
    run = launch.ready()
    run.order("here", env=(b"PATH=",), cwd=b"/tmp")
    assert os.waitstatus_to_exitcode(run.exited().status) == 8


def test_two_mebibytes_of_arguments_and_environment_arrive(launch: Any) -> None:
    words = [bytes([65 + i]) * 120_000 for i in range(8)]
    env = [b"E%d=" % i + bytes([97 + i]) * 120_000 for i in range(8)]
    total = 0
    for byte in b"".join(words + env):
        total = (total * 31 + byte) % 2**64
    run = launch.ready()
    run.order("/bin/probe", "stack-bytes", *words, env=tuple(env))
    assert run.exited().status == 0
    assert run.output().split() == [b"%d" % len(b"".join(words + env)), b"%d" % total]


def test_too_long_a_command_is_an_exec_error(launch: Any) -> None:
    assert exec_failure(launch, "/bin/true", b"x" * 140_000)[0] == E2BIG
    assert exec_failure(launch, "/bin/true", *(b"x" * 100_000,) * 70)[0] == E2BIG


# ---- seccomp -----------------------------------------------------------------------------------


def test_filter_of_the_order_holds(launch: Any, filter_bytes: Callable[..., bytes]) -> None:
    run = launch.ready()
    run.order("sh", "-c", "kill -9 $$; exit 4", seccomp_filter=filter_bytes("kill"))
    assert os.waitstatus_to_exitcode(run.exited().status) == 4


def test_exec_error_is_told_even_when_the_filter_forbids_to_tell(
    launch: Any, filter_bytes: Callable[..., bytes]
) -> None:
    silent = filter_bytes("sendmsg", "sendto", "write", "stat", "open", "exit_group", kill=True)
    failed = launch.ready().failed("/nosuch", seccomp_filter=silent)
    assert (failed.stage, failed.errno, failed.path) == ("exec", ENOENT, b"/nosuch")


def test_broken_filter_is_an_error(launch: Any) -> None:
    failed = launch.ready().failed("/bin/true", seccomp_filter=b"\xff" * 8)
    assert failed.stage == "seccomp"
