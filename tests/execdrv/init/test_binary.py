"""The memfd of the init: what the package brings, sealed."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path

import pytest

from execdrv.errors import ExecdrvError
from execdrv.init import binary, open_init
from execdrv.init.binary import seal_program


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package directory that holds the program."""
    monkeypatch.setattr(binary, "__file__", str(tmp_path / "binary.py"))
    return tmp_path / "execdrv-init"


def test_program_of_the_package_is_copied_whole(installed: Path) -> None:
    installed.write_bytes(b"a program" * 100_000)
    fd = open_init()
    try:
        assert os.pread(fd, 2_000_000, 0) == installed.read_bytes()
        assert not os.get_inheritable(fd)
        assert os.fstat(fd).st_mode & 0o777 == 0o511
    finally:
        os.close(fd)


def test_missing_program_is_an_error_that_says_what_to_do(installed: Path) -> None:
    with pytest.raises(ExecdrvError) as caught:
        open_init()
    assert (
        str(caught.value) == f"cannot open the init {str(installed)!r}: no such file or directory"
    )
    assert "pip install ." in caught.value.hint


def test_nobody_changes_the_program() -> None:
    fd = seal_program(b"12345")
    try:
        for change in (
            lambda: os.pwrite(fd, b"x", 0),
            lambda: os.ftruncate(fd, 1),
            lambda: os.ftruncate(fd, 10),
            lambda: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0),
            lambda: os.pwrite(os.open(f"/proc/self/fd/{fd}", os.O_RDWR), b"x", 0),
        ):
            with pytest.raises(PermissionError):
                change()
        assert os.pread(fd, 100, 0) == b"12345"
    finally:
        os.close(fd)


@pytest.mark.parametrize("by_path", [False, True])
def test_program_is_executed_by_descriptor_or_through_proc(by_path: bool) -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("no static busybox")
    fd = seal_program(Path(busybox).read_bytes())
    pid = os.fork()
    if pid == 0:
        try:
            os.execve(f"/proc/self/fd/{fd}" if by_path else fd, ["sh", "-c", "exit 7"], {})
        finally:
            os._exit(99)
    os.close(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_kernel_without_the_exec_flag_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    create = os.memfd_create

    def old_kernel(name: str, flags: int) -> int:
        asked.append(flags)
        if flags & 0x10:
            raise OSError(errno.EINVAL, "")
        return create(name, flags)

    monkeypatch.setattr(os, "memfd_create", old_kernel)
    os.close(seal_program(b"x"))
    assert [bool(flags & 0x10) for flags in asked] == [True, False]


def test_machine_that_refuses_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, flags: int) -> int:
        raise OSError(errno.EACCES, "")

    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(ExecdrvError, match="cannot make an executable memfd: permission denied"):
        seal_program(b"x")
