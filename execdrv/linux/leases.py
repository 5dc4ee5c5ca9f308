"""Numbers held by lock files: a user id of its own for each container that was given none.

    DIRECTORY/NUMBER      there: taken; locked (flock(2)): by a process that lives

A number is free only where its file is *missing*. A file whose lock is free belongs to a container
whose supervisor has died: processes of it may live on with that uid, so nobody gets the number
until they are ended and `remove_lease` or `sweep_leases` has removed the file. Knows no records.
Runs in supervisors and collectors, many at once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Collection, Iterator

import attrs

from execdrv.errors import CreateError, UsageError
from execdrv.linux.strays import detect_uids

#: The first number and how many there are: far above what distributions, systemd's dynamic users,
#: subordinate ids and container managers give out, and below 2**31 (old programs read ids as int).
LEASE_BASE = 2_000_000_000
LEASE_COUNT = 100_000

_OPEN_LOCK = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


@attrs.define(kw_only=True, eq=False)
class Lease:
    """A number that no other process gets while this object, or a copy of its lock, is there."""

    number: int
    #: The lock file.
    path: str
    #: Of the lock file, closed on exec; -1 once it was given back.
    fd: int

    def release(self) -> None:
        """Give the number back, when no process has it any more. Repeatable."""
        if self.fd < 0:
            return
        # Removed under the lock: nobody can have taken the number again before it is closed.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        os.close(self.fd)
        self.fd = -1


def lease_id(directory: str, *, base: int = LEASE_BASE, count: int = LEASE_COUNT) -> Lease:
    """Take the lowest free number of `base` to `base + count - 1`.

    Args:
        directory: absolute path of the lock files' directory; made (0700) where it is missing.
    Raises:
        CreateError: all numbers are taken, or the directory or file can't be made.
        UsageError: the directory is not ours alone. In any case nothing was taken.
    """
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        with _open_directory(directory) as dir_fd:
            for number in range(base, base + count):
                fd = _take(dir_fd, str(number))
                if fd is not None:
                    return Lease(number=number, path=f"{directory}/{number}", fd=fd)
    except OSError as error:
        raise CreateError(
            f"cannot take a user number in {directory!r}: {error.strerror}", errno=error.errno
        ) from error
    raise CreateError(
        f"cannot take a user number: all {count} from {base} on are in use",
        hint="end containers, or remove lost ones with `execdrv gc`",
    )


def remove_lease(directory: str, number: int) -> bool:
    """Free the number of a holder that has died, when no process has it any more. Repeatable.

    Returns:
        False if a living process holds it: then nothing has changed.
    Raises:
        UsageError: the directory is not ours alone.
        OSError: the file can't be removed.
    """
    with contextlib.suppress(FileNotFoundError), _open_directory(directory) as dir_fd:
        return _remove_unlocked(dir_fd, str(number))
    return True


def sweep_leases(directory: str, *, keep: Collection[int] = ()) -> list[int]:
    """Free every number whose holder has died, killed for example before it had written a record.

    A number that is some process's uid stays.

    Args:
        keep: numbers that a record still has: a process that forks and exits without end may be
            seen by nobody who reads /proc.
    Returns:
        The numbers that were freed.
    Raises:
        UsageError: the directory is not ours alone.
        OSError: a file can't be removed.
    """
    freed: list[int] = []
    with contextlib.suppress(FileNotFoundError), _open_directory(directory) as dir_fd:
        # What is no number is none of ours.
        numbers = [int(name) for name in os.listdir(dir_fd) if name.isascii() and name.isdigit()]
        used = detect_uids()
        for number in sorted(numbers):
            if number in keep or number in used:
                continue
            if _remove_unlocked(dir_fd, str(number)):
                freed.append(number)
    return freed


@contextlib.contextmanager
def _open_directory(path: str) -> Iterator[int]:
    """A descriptor of the directory; refused if it is a link or if others could write there."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise _not_ours(path, "it is not a directory") from error
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise _not_ours(path, "it is not ours alone (mode 0700)")
        yield fd
    finally:
        os.close(fd)


def _not_ours(path: str, reason: str) -> UsageError:
    return UsageError(
        f"cannot use the lease directory {path!r}: {reason}",
        hint="remove it, or give another state directory with --root DIR",
    )


def _take(dir_fd: int, name: str) -> int | None:
    """A descriptor of the new, locked file; None if somebody else has the name."""
    try:
        fd = os.open(name, _OPEN_LOCK | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=dir_fd)
    except FileExistsError:
        return None
    # Until it is locked the new file looks like that of a dead holder, and a collector may lock
    # and remove it: then another number will do.
    try:
        if _lock(fd) and _is_file_of(fd, name, dir_fd):
            return fd
    except OSError:
        os.close(fd)
        os.unlink(name, dir_fd=dir_fd)
        raise
    os.close(fd)
    return None


def _remove_unlocked(dir_fd: int, name: str) -> bool:
    """Remove a file that nobody has locked; False if somebody has."""
    try:
        fd = os.open(name, _OPEN_LOCK, dir_fd=dir_fd)
    except FileNotFoundError:
        return True
    try:
        if not _lock(fd) or not _is_file_of(fd, name, dir_fd):
            return False
        os.unlink(name, dir_fd=dir_fd)
        return True
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            raise
        return False
    return True


def _is_file_of(fd: int, name: str, dir_fd: int) -> bool:
    """Whether the name still is this file: it may have been removed before we had its lock."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(name, dir_fd=dir_fd, follow_symlinks=False))
    except FileNotFoundError:
        return False
