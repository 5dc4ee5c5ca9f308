"""The state directory: containers' directories, their locks, and who may write their records.

    ROOT/                        0700, ours
      lock                       held while a container is claimed, or while gc looks at one
      containers/ID/             0700
        lock                     flock: its holder lives and alone writes the record
        record                   JSON, renamed into place before each step
        socket                   the supervisor's
        driver/                  the driver's own files

Files of containers lie one directory below `containers`, so that no id can collide with a name of
ours. Uids that containers have for their own are leased in one directory for the whole machine
(LEASES), whatever the ROOT: two containers with one uid could signal each other.

Used by supervisors, collectors, and (reading only) the command line.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator

from execdrv import wire
from execdrv.errors import (
    ContainerExistsError,
    ContainerNotFoundError,
    CreateError,
    ExecdrvError,
    RecordError,
    UsageError,
)
from execdrv.linux import syscalls
from execdrv.spec import NAME_PATTERN
from execdrv.state import RECORD_VERSION, Entry, Record, check_name

#: One directory for all state directories of this machine.
LEASES = "/run/execdrv/leases"
#: Looks at a lock, 2 ms apart, before it counts as held.
LOCK_TRIES = 5


def default_root() -> str:
    """Where state is kept: EXECDRV_ROOT, else /run/execdrv for root, else below XDG_RUNTIME_DIR.

    Raises:
        UsageError: an ordinary user without XDG_RUNTIME_DIR.
    """
    chosen = os.environ.get("EXECDRV_ROOT")
    if chosen:
        return os.path.abspath(chosen)
    if os.geteuid() == 0:
        return "/run/execdrv"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if not runtime:
        raise UsageError(
            "cannot choose a state directory: XDG_RUNTIME_DIR is not set",
            hint="set XDG_RUNTIME_DIR or EXECDRV_ROOT, or give --root DIR",
        )
    return os.path.join(os.path.abspath(runtime), "execdrv")


def _make_private_directory(path: str | bytes, *, dir_fd: int | None = None) -> int:
    """Open a directory that only we can write to, making it where it is missing.

    Raises:
        UsageError: it is a link, no directory, or open to others.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700, dir_fd=dir_fd)
    return _open_private_directory(path, dir_fd=dir_fd)


def _open_private_directory(path: str | bytes, *, dir_fd: int | None = None) -> int:
    """Open a directory that only we can write to.

    Raises:
        FileNotFoundError: it is missing.
        UsageError: it is a link, no directory, or open to others.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, dir_fd=dir_fd)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise UsageError(
            f"cannot use the state directory {path!r}: it is not a directory",
            hint="remove it, or give another with --root DIR",
        ) from error
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        os.close(fd)
        raise UsageError(
            f"cannot use the state directory {path!r}: it is not ours alone (mode 0700)",
            hint="remove it, or give another with --root DIR",
        )
    return fd


class ContainerDirectory:
    """One container's directory; this object (from `claim` or `adopt`) holds its lock."""

    def __init__(self, path: str, fd: int, lock_fd: int) -> None:
        self.path = path
        self.fd = fd
        self._lock_fd = lock_fd

    @property
    def id(self) -> str:
        return os.path.basename(self.path)

    def write(self, record: Record) -> None:
        """Replace the record. When it raises, the earlier record is unchanged.

        No fsync: a record outlives processes, not the machine (its boot id says so).
        """
        data = wire.dumps(wire.encode(record))
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open("record.new", flags, 0o600, dir_fd=self.fd)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
        os.rename("record.new", "record", src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def read(self) -> Record:
        """The record.

        Raises:
            RecordError: missing, unreadable, or of a version this execdrv does not know.
        """
        return _read_record(self.fd, self.id)

    def remove(self) -> list[str]:
        """Remove the directory; returns what is left. Never follows links or crosses mounts."""
        leftovers = _remove_tree(self.fd, self.path)
        if not leftovers:
            try:
                os.rmdir(self.path)
            except FileNotFoundError:
                pass
            except OSError as error:
                leftovers = [f"{self.path} ({error.strerror})"]
        return leftovers

    def close(self) -> None:
        """Give up the lock. Repeatable."""
        for fd in (self._lock_fd, self.fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self._lock_fd = -1


def _read_record(directory: int, container: str) -> Record:
    try:
        fd = os.open("record", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        with open(fd, "rb") as file:
            data = wire.loads(file.read())
        if isinstance(data, dict) and data.get("version") != RECORD_VERSION:
            raise RecordError(f"version {data.get('version')!r} is not known to this execdrv")
        return wire.decode(Record, data)
    except (OSError, ExecdrvError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RecordError(
            f"cannot read the record of {container!r}: {reason}",
            hint=f"`execdrv destroy {container}` removes it",
            container=container,
        ) from error


#: Also a bind from the same file system is another mount: its device number would not tell.
_NO_DETOURS = syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_SYMLINKS


def _remove_tree(directory: int, path: str) -> list[str]:
    """Empty a directory by descriptor; returns what could not be removed, by path."""
    leftovers: list[str] = []
    for name in os.listdir(directory):
        inner = f"{path}/{name}"
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                os.unlink(name, dir_fd=directory)
                continue
            fd = syscalls.openat2(
                directory, os.fsencode(name), os.O_RDONLY | os.O_DIRECTORY, resolve=_NO_DETOURS
            )
            try:
                leftovers += _remove_tree(fd, inner)
            finally:
                os.close(fd)
            os.rmdir(name, dir_fd=directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            mounted = error.errno in (errno.EXDEV, errno.EBUSY)
            reason = "something is mounted there" if mounted else error.strerror
            leftovers.append(f"{inner} ({reason})")
    return leftovers


class Registry:
    """The state directory of one ROOT.

    Args:
        root: its path, or None for `default_root`.
    """

    def __init__(self, root: str | None = None) -> None:
        self.root = os.path.abspath(root) if root else default_root()

    @property
    def containers_path(self) -> str:
        return os.path.join(self.root, "containers")

    @property
    def leases_path(self) -> str:
        """Where the lock files of containers' own uids lie (execdrv.linux.leases)."""
        # Without root there is no uid to lease.
        return LEASES if os.geteuid() == 0 else os.path.join(self.root, "leases")

    def path_of(self, container: str) -> str:
        """The directory of a container, whether it is there or not."""
        return os.path.join(self.containers_path, container)

    def open(self) -> None:
        """Make the state directory where it is missing, and check that it is ours.

        Raises:
            UsageError: it is not ours alone.
            CreateError: it can't be made.
        """
        try:
            parent = os.path.dirname(self.root)
            os.makedirs(parent, mode=0o755, exist_ok=True)
            fd = _make_private_directory(self.root)
            try:
                os.close(_make_private_directory("containers", dir_fd=fd))
            finally:
                os.close(fd)
        except OSError as error:
            raise CreateError(
                f"cannot make the state directory {self.root!r}: {error.strerror}"
            ) from error

    def _check(self) -> bool:
        """Whether there is a state directory; a record that others could write is never believed.

        It names code that would run: the driver's.

        Raises:
            UsageError: it is not ours alone.
        """
        try:
            fd = _open_private_directory(self.root)
            try:
                os.close(_open_private_directory("containers", dir_fd=fd))
            finally:
                os.close(fd)
        except FileNotFoundError:
            return False
        except PermissionError as error:
            raise UsageError(
                f"cannot use the state directory {self.root!r}: it is another user's",
                hint="give another with --root DIR",
            ) from error
        return True

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        path = os.path.join(self.root, "lock")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def claim(self, container: str) -> ContainerDirectory:
        """Make a container's directory and take its lock.

        Raises:
            ContainerExistsError: the id is in use, or a lost container of that id is there still.
            CreateError: the directory can't be made; nothing is left of it.
        """
        self.open()
        path = self.path_of(container)
        with self._locked():
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                raise ContainerExistsError(
                    f"cannot create container {container!r}: the name is in use",
                    hint=f"choose another, or `execdrv destroy {container}`",
                    container=container,
                ) from None
            except OSError as error:
                raise CreateError(f"cannot make {path!r}: {error.strerror}") from error
            try:
                # Nobody but a short look (`entry`) can hold this new lock.
                return _lock_directory(path, tries=LOCK_TRIES)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(path, "lock"))
                os.rmdir(path)
                raise CreateError(f"cannot lock {path!r}: {error.strerror}") from error

    def adopt(self, container: str) -> ContainerDirectory | None:
        """Take the lock of a container whose supervisor is gone; None if it lives.

        Raises:
            ContainerNotFoundError: there is none.
            UsageError: the state directory is not ours alone.
        """
        self._check()
        try:
            with self._locked():
                return _lock_directory(self.path_of(check_name(container)), tries=LOCK_TRIES)
        except BlockingIOError:
            return None
        except (FileNotFoundError, NotADirectoryError):
            raise ContainerNotFoundError(
                f"cannot find container {container!r}: there is none of that name",
                hint="`execdrv ps` lists them",
                container=container,
            ) from None

    def names(self) -> list[str]:
        """The ids of all containers, lost and broken ones included, sorted.

        Raises:
            UsageError: the state directory is not ours alone.
        """
        return sorted(os.listdir(self.containers_path)) if self._check() else []

    def entries(self) -> list[Entry]:
        """All containers as they are now. Changes nothing."""
        found = [self.entry(name) or _foreign_entry(name) for name in self.names()]
        return [entry for entry in found if entry is not None]

    def entry(self, container: str) -> Entry | None:
        """One container as it is now, or None if there is none.

        Raises:
            UsageError: the state directory is not ours alone.
        """
        # A name from outside must not lead to a record outside of the state directory.
        if not re.fullmatch(NAME_PATTERN, container) or not self._check():
            return None
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(self.path_of(container), flags)
        except OSError:
            return None
        try:
            alive = _is_locked(fd)
            try:
                record = _read_record(fd, container)
            except RecordError as error:
                return Entry(id=container, record=None, alive=alive, problem=str(error))
            return Entry(id=container, record=record, alive=alive)
        finally:
            os.close(fd)


def _foreign_entry(name: str) -> Entry | None:
    """What lies beside containers without being one; None for a name that has just gone."""
    if re.fullmatch(NAME_PATTERN, name):
        return None
    problem = f"cannot read {name!r}: no container has such a name"
    return Entry(id=name, record=None, alive=False, problem=problem)


def _lock_directory(path: str, *, tries: int) -> ContainerDirectory:
    """Open a container's directory and take its lock.

    Tries again, since `_is_locked` holds the lock too, for some microseconds.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags)
    lock_fd = -1
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock_fd = os.open("lock", flags, 0o600, dir_fd=fd)
        _take_lock(lock_fd, tries=tries)
    except OSError:
        if lock_fd >= 0:
            os.close(lock_fd)
        os.close(fd)
        raise
    return ContainerDirectory(path, fd, lock_fd)


def _take_lock(fd: int, *, tries: int) -> None:
    for attempt in range(tries):
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt == tries - 1:
                raise
            time.sleep(0.002)


def _is_locked(directory: int) -> bool:
    try:
        fd = os.open("lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return False
    try:
        # A shared lock: two lookers do not see each other.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
