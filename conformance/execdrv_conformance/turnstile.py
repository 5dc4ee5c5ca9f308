"""A readers-writer lock of files, one for the machine: checks that measure time run alone.

Who wants to be alone takes the turnstile and waits for the others to leave; meanwhile nobody new
gets past it. The files are removed by whoever leaves last, and a lock on a removed file is no
lock, so each looks again once it has it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator


def lock_directory() -> str:
    """Where the files are: the same for every run of this machine."""
    return "/run/lock" if os.access("/run/lock", os.W_OK) else tempfile.gettempdir()


def _open(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)


def _take(path: str, operation: int) -> int:
    """A lock on the file that has this name now."""
    while True:
        fd = _open(path)
        fcntl.flock(fd, operation)
        try:
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except FileNotFoundError:
            pass
        os.close(fd)


def _leave(path: str, fd: int) -> None:
    """Give up a lock; the last one removes the file."""
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            os.unlink(path)
    os.close(fd)


@contextlib.contextmanager
def pass_turnstile(*, exclusive: bool, directory: str | None = None) -> Iterator[None]:
    """Run the block beside others, or alone.

    Args:
        exclusive: alone.
        directory: of the lock files; None: the machine's.
    """
    base = os.path.join(directory or lock_directory(), "execdrv-conformance")
    door = _take(f"{base}.door", fcntl.LOCK_EX)
    try:
        room = _take(f"{base}.room", fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
    finally:
        _leave(f"{base}.door", door)
    try:
        yield
    finally:
        _leave(f"{base}.room", room)
