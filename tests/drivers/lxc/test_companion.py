"""What the companion looks at before it trusts it, and what it says to whom."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from execdrv.errors import IsolationError
from execdrv_lxc import companion


def open_path(path: Path) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY)


def test_a_procfs_is_known_by_the_pid_namespace_of_its_pid_1(tmp_path: Path) -> None:
    (tmp_path / "1/ns").mkdir(parents=True)
    (tmp_path / "1/ns/pid").symlink_to("pid:[4026531836]")
    companion._check_proc(open_path(tmp_path), "pid:[4026531836]")
    with pytest.raises(IsolationError, match="has not mounted its /proc"):
        companion._check_proc(open_path(tmp_path), "pid:[4026531837]")


def test_files_of_the_rootfs_are_not_taken_for_a_procfs(tmp_path: Path) -> None:
    (tmp_path / "1/ns").mkdir(parents=True)
    (tmp_path / "1/ns/pid").write_text("pid:[4026531836]")
    with pytest.raises(IsolationError, match="has not mounted its /proc"):
        companion._check_proc(open_path(tmp_path), "pid:[4026531836]")


def test_a_failure_is_said_with_its_reason_and_one_line() -> None:
    read_end, write_end = os.pipe()
    error = IsolationError("cannot do it: " + "x" * 9000, hint="try again\nlater")
    os.write(write_end, b"")
    companion._report(write_end, companion._describe(error))
    with pytest.raises(IsolationError, match="cannot do it") as caught:
        companion._read_report(read_end)
    assert caught.value.hint == "try again\nlater" and len(caught.value.message) == 1000


def test_a_companion_that_was_killed_is_not_waited_for() -> None:
    read_end, _write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os._exit(0)
    with pytest.raises(IsolationError, match="has ended"):
        companion._read_report(read_end, pid=child, timeout_s=10)
    os.waitpid(child, 0)


def test_a_companion_that_nobody_waits_for_has_said_what_it_said() -> None:
    """Where the caller ignores its children, its number may be gone before we look."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    read_end, write_end = os.pipe()
    with pytest.raises(IsolationError, match="has ended"):
        companion._read_report(read_end, pid=child, timeout_s=10)
    os.write(write_end, b'{"pid": 7}')
    assert companion._read_report(read_end, pid=child, timeout_s=10) == {"pid": 7}
    os.close(read_end)
    os.close(write_end)


def test_silence_ends_after_its_time() -> None:
    read_end, _write_end = os.pipe()
    with pytest.raises(IsolationError, match=r"said nothing for 0\.01 s"):
        companion._read_report(read_end, timeout_s=0.01)


def test_closing_a_link_without_a_companion_closes_all_pipes() -> None:
    before = len(os.listdir("/proc/self/fd"))
    link = companion.CompanionLink()
    link.close()
    assert len(os.listdir("/proc/self/fd")) == before
