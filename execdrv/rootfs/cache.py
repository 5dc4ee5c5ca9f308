"""The cache of root file systems: where it is, what is in it, who uses what.

In the cache directory a root NAME is three things: the tree NAME/, NAME.json (manifest.py) and
NAME.lock (held shared by whoever uses it). make.lock is held by whoever adds or removes a root;
what a killed one left begins with a dot, and the next one removes it. Runs in the command, the host
and the kit (`use_root` in the supervisor too); a run loads nothing slow with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator

import attrs

from execdrv.errors import SpecError, StateError, UsageError
from execdrv.rootfs.manifest import NAME, Root, explained, is_request, read_file, read_root
from execdrv.rootfs.tree import has_mount, remove_tree

#: Told in one line what takes time.
Progress = Callable[[str], None]

SYSTEM_CACHE = "/var/cache/execdrv"

#: Start of the names of what is being made or removed.
MAKING = ".making-"
REMOVING = ".removing-"


# --- the directory -----------------------------------------------------------------------------


def cache_path(cache: str | None = None) -> str:
    """Absolute path of the cache, not looked at: the argument, else EXECDRV_CACHE, else as root
    /var/cache/execdrv, else execdrv in $XDG_CACHE_HOME or ~/.cache.

    Raises:
        UsageError: none of these is set.
    """
    chosen = cache or os.environ.get("EXECDRV_CACHE")
    if chosen:
        return os.path.abspath(chosen)
    if os.geteuid() == 0:
        return SYSTEM_CACHE
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # "all paths must be absolute" (XDG Base Directory)
        base = os.path.expanduser("~/.cache")
    if not os.path.isabs(base):
        raise UsageError(
            "cannot find a cache directory: neither XDG_CACHE_HOME nor HOME is set",
            hint="set EXECDRV_CACHE to a directory of your own",
        )
    return os.path.join(base, "execdrv")


def cache_dir(cache: str | None = None) -> str:
    """The cache directory, made (0755) if it is not there and checked.

    Checked each time: it is a directory of root or ours, nobody else may write to it, and no
    directory above it lets anybody replace it.

    Args:
        cache: a path; None means the order of `cache_path`.

    Returns:
        Its path, links resolved.

    Raises:
        UsageError: it is not safe to use.
        OperationError: it could not be made.
    """
    path = cache_path(cache)
    with explained(f"cannot use cache directory {path!r}"):
        if not os.path.lexists(path):
            _make_directory(path)
        link = os.lstat(path)
        # A link of another user could lead to any directory of ours.
        if link.st_uid not in (0, os.geteuid()):
            raise _refuse(path, f"it belongs to uid {link.st_uid}")
        path = os.path.realpath(path)
        seen = os.stat(path)
        if not stat.S_ISDIR(seen.st_mode):
            raise _refuse(path, "it is not a directory")
        if seen.st_uid not in (0, os.geteuid()):
            raise _refuse(path, f"it belongs to uid {seen.st_uid}")
        if seen.st_mode & 0o022:
            raise _refuse(path, f"others may write to it (mode {seen.st_mode & 0o7777:04o})")
        above = path
        while above != "/":
            above = os.path.dirname(above)
            mode = os.stat(above).st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                raise _refuse(path, f"anybody may replace it, for {above!r} is writable by all")
    return path


def _make_directory(path: str) -> None:
    if not os.path.isdir(os.path.dirname(path)):
        _make_directory(os.path.dirname(path))
    with contextlib.suppress(FileExistsError):  # another process was faster
        os.mkdir(path, 0o755)
        os.chmod(path, 0o755)  # whatever the umask is


def _refuse(path: str, reason: str) -> UsageError:
    return UsageError(
        f"cannot use cache directory {path!r}: {reason}",
        hint="set EXECDRV_CACHE to a directory of your own, mode 0755",
    )


# --- locks -------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(directory: str, *, progress: Progress | None = None) -> Iterator[None]:
    """Hold the lock of whoever adds roots or removes them; what a killed one left is removed.

    Raises:
        OperationError: the lock can't be had, or the leftovers can't be removed.
    """
    with explained(f"cannot lock cache directory {directory!r}"):
        fd = _open_lock(os.path.join(directory, "make.lock"), create=True)
    try:
        with explained(f"cannot lock cache directory {directory!r}"):
            if not _try_lock(fd):
                if progress:
                    progress("waiting for another process that makes a root file system")
                fcntl.flock(fd, fcntl.LOCK_EX)
            _remove_unfinished(directory)
        yield
    finally:
        _unlock(fd)


def make_lock(root: Root) -> None:
    """Make NAME.lock.

    Raises:
        OSError: it could not be made.
    """
    os.close(_open_lock(root.path + ".lock", create=True))


def use_root(root: Root) -> int:
    """Say that a cached root is in use until the descriptor is closed.

    Returns:
        A descriptor (closed on exec) that holds a shared lock on NAME.lock; whoever inherits it
        holds it too.

    Raises:
        UsageError: the root is not in a cache, or was removed meanwhile.
    """
    lock = root.path + ".lock"
    try:
        fd = _open_lock(lock)
    except FileNotFoundError as error:
        raise _refuse_gone(root) from error
    except OSError as error:
        raise UsageError(
            f"cannot use root file system {root.name!r}: {error.strerror} ({lock!r})",
            hint="set EXECDRV_CACHE to a directory of your own",
        ) from error
    fcntl.flock(fd, fcntl.LOCK_SH)
    # Whoever removed it held the lock until the tree had left and the lock file was unlinked.
    if os.fstat(fd).st_nlink == 0 or not os.path.isdir(root.path):
        os.close(fd)
        raise _refuse_gone(root)
    return fd


def _refuse_gone(root: Root) -> UsageError:
    return UsageError(
        f"cannot use root file system {root.name!r}: it is not in the cache (any more)",
        hint="make it again: execdrv rootfs make",
    )


def _open_lock(path: str, *, create: bool = False) -> int:
    # 0600, for whoever can open a lock file can hold its lock for ever.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    return os.open(path, flags, 0o600)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(fd: int) -> None:
    # A process forked meanwhile by another thread has a copy of the descriptor: closing ours alone
    # would leave the lock with it (flock(2)).
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def _remove_unfinished(directory: str) -> None:
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if name.startswith((MAKING, REMOVING)):
            if os.path.isdir(path) and not os.path.islink(path):
                remove_tree(path)
            else:
                with contextlib.suppress(FileNotFoundError):  # `write_file` without the lock
                    os.unlink(path)
            continue
        beside, suffix = os.path.splitext(path)
        known = suffix in (".json", ".lock") and NAME.fullmatch(os.path.basename(beside))
        if known and not os.path.isdir(beside):
            os.unlink(path)


# --- what is there -----------------------------------------------------------------------------


def list_roots(*, cache: str | None = None) -> list[Root]:
    """The roots of the cache, by name, each with whether it is in use now.

    Raises:
        UsageError: the cache is not safe to use.
    """
    if not os.path.lexists(cache_path(cache)):
        return []  # looking makes nothing
    directory = cache_dir(cache)
    found = [read_root(directory, name) for name in sorted(os.listdir(directory))]
    return [attrs.evolve(read[0], in_use=_is_used(read[0])) for read in found if read]


def _is_used(root: Root) -> bool:
    try:
        fd = _open_lock(root.path + ".lock")
    except OSError:
        return False
    try:
        return not _try_lock(fd)
    finally:
        _unlock(fd)


def is_cached_root(path: str | bytes, *, cache: str | None = None) -> bool:
    """Whether a directory is in a cache of shared roots, its links resolved: the cache of this
    process, or another one, told by what lies beside the root."""
    real = os.fsdecode(os.path.realpath(path))
    shared = os.path.realpath(cache_path(cache))
    if real == shared or real.startswith(shared + "/"):
        return True
    while real != "/":
        if NAME.fullmatch(os.path.basename(real)) and os.path.isfile(real + ".lock"):
            return os.path.isfile(real + ".json")
        real = os.path.dirname(real)
    return False


def remove_root(name: str, *, cache: str | None = None) -> None:
    """Remove a root from the cache.

    It leaves its place in one step (a rename) and is then removed; no link is followed and no mount
    entered. When it raises SpecError or StateError, nothing has changed.

    Raises:
        SpecError: the cache has no root of that name.
        StateError: it is in use, or something is mounted in it.
        OperationError: it could not be removed; the next make or remove goes on with it.
    """
    directory = cache_dir(cache)
    path = os.path.join(directory, name)
    with locked(directory), explained(f"cannot remove root file system {name!r}"):
        if not NAME.fullmatch(name) or not os.path.isdir(path):
            raise SpecError(
                f"cannot remove root file system {name!r}: {directory!r} has none of that name",
                hint="execdrv rootfs list shows their names",
                field="name",
                value=name,
            )
        lock = _open_lock(path + ".lock", create=True)
        try:
            if not _try_lock(lock):
                raise _refuse_removal(name, "a container uses it")
            if has_mount(path):
                raise _refuse_removal(name, "something is mounted in it")
            leaving = os.path.join(directory, REMOVING + name)
            os.rename(path, leaving)
            for file in (*_requests_of(directory, name), f"{path}.json", f"{path}.lock"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(file)
        finally:
            _unlock(lock)
        remove_tree(leaving)


def _refuse_removal(name: str, reason: str) -> StateError:
    return StateError(
        f"cannot remove root file system {name!r}: {reason}",
        hint="end the containers that use it first: execdrv ps",
        operation="remove",
        state="in use",
    )


def _requests_of(directory: str, name: str) -> list[str]:
    """The files that remember `name` as the answer to a request."""
    found = []
    for file in os.listdir(directory):
        request = read_file(os.path.join(directory, file)) if is_request(file) else None
        if request is not None and request.get("root") == name:
            found.append(os.path.join(directory, file))
    return found
