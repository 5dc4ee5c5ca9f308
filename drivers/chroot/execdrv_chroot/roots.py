"""Whether a directory can be a job's root as it is: a chroot mounts and makes nothing in it.

A pure look, by descriptor, at a hostile tree: no link is followed, nothing but directories is
opened. Runs in the supervisor, for `check`. openat2(2), acl(5).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator
from typing import Final

from execdrv.driver import Refusal
from execdrv.linux import syscalls

#: What /dev may hold beside links, directories and plain files: kind, major, minor
#: (the kernel's Documentation/admin-guide/devices.txt).
NODES: Final = {
    ("c", 1, 3): "null",
    ("c", 1, 5): "zero",
    ("c", 1, 7): "full",
    ("c", 1, 8): "random",
    ("c", 1, 9): "urandom",
    ("c", 5, 0): "tty",
    # Opens a terminal of the devpts mounted beside it; without one it opens nothing.
    ("c", 5, 2): "ptmx",
}
#: Those that a job can count on where `dev.usable` is required.
_NEEDED_NODES: Final = ("null", "zero", "full", "random", "urandom", "tty")
#: Over these the machine's own file systems are mounted in a root that was made ready by hand.
_FURNISHED: Final = ("proc", "sys", "dev")
_ENTRIES_MAX: Final = 4096
_NAMED_AT_MOST: Final = 3

_BELOW: Final = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_XDEV


def find_mounts(root_fd: int) -> Iterator[Refusal]:
    """Refusals for what is mounted on /proc, /sys and /dev of the root."""
    for name in _FURNISHED:
        try:
            os.close(_open_below(root_fd, name))
        except OSError as error:
            if error.errno == errno.EXDEV:
                yield Refusal(
                    message=f"cannot use this root file system: something is mounted on '/{name}'",
                    hint=f"unmount it; the driver 'native' mounts a '/{name}' of the job's own",
                    field="rootfs",
                )


def find_nodes(root_fd: int) -> Iterator[Refusal]:
    """Refusals for nodes in /dev that reach more of the machine than a job is to reach."""
    found: list[str] = []
    for count, (path, info) in enumerate(_walk_dev(root_fd)):
        if count == _ENTRIES_MAX:
            yield Refusal(
                message=f"cannot use this root file system: '/dev' has over {_ENTRIES_MAX} entries",
                hint="give it a small one, as `execdrv rootfs make` does",
                field="rootfs",
            )
            return
        kind = _kind_of(info)
        if kind is not None and kind not in NODES:
            letter, major, minor = kind
            found.append(f"{path!r} ({letter} {major}:{minor})")
    if found:
        more = f" and {len(found) - _NAMED_AT_MOST} more" if len(found) > _NAMED_AT_MOST else ""
        yield Refusal(
            message="cannot use this root file system: it has the device nodes "
            f"{', '.join(found[:_NAMED_AT_MOST])}{more}",
            hint=f"leave only {', '.join(NODES.values())} in its '/dev', or use the driver "
            "'native', which makes a '/dev' of the job's own",
            field="rootfs",
            guarantee="dev.minimal",
        )


def find_missing_nodes(root_fd: int) -> Iterator[Refusal]:
    """Refusals for usual nodes that are not there or that the root's mount makes useless."""
    present = {NODES[kind] for _, info in _walk_dev(root_fd) if (kind := _kind_of(info)) in NODES}
    missing = [name for name in _NEEDED_NODES if name not in present]
    if missing:
        yield Refusal(
            message=f"cannot require dev.usable: the root's '/dev' lacks {', '.join(missing)}",
            hint="make the nodes, as `execdrv rootfs make` does",
            field="require",
            guarantee="dev.usable",
        )
    elif os.fstatvfs(root_fd).f_flag & os.ST_NODEV:
        yield Refusal(
            message="cannot require dev.usable: the root is on a file system mounted nodev",
            hint="keep the root elsewhere, or use the driver 'native'",
            field="require",
            guarantee="dev.usable",
        )


def find_closed_root(root_fd: int, *, uid: int, groups: Collection[int]) -> Iterator[Refusal]:
    """A refusal if the root directory itself is closed to the job's user.

    Args:
        groups: the primary group and all others.
    """
    info = os.fstat(root_fd)
    if uid == info.st_uid:
        needed = stat.S_IXUSR
    elif info.st_gid in groups:
        needed = stat.S_IXGRP
    else:
        needed = stat.S_IXOTH
    if info.st_mode & needed or _has_acl(root_fd):
        return
    mode = stat.S_IMODE(info.st_mode)
    yield Refusal(
        message=f"cannot run as user {uid}: the root directory has mode {mode:04o} and belongs "
        f"to user {info.st_uid}",
        hint="chmod 755 the root directory, or choose a --user who may enter it",
        field="rootfs",
    )


def _has_acl(fd: int) -> bool:
    """Whether more than the mode decides."""
    try:
        return bool(os.getxattr(f"/proc/self/fd/{fd}", "system.posix_acl_access"))
    except OSError:
        return False


def _walk_dev(root_fd: int) -> Iterator[tuple[str, os.stat_result]]:
    """Every entry below /dev, directories before what is in them."""
    pending = ["dev"]
    while pending:
        directory = pending.pop()
        try:
            fd = _open_below(root_fd, directory)
        except OSError:
            # Not there, a link, a mount (see find_mounts), or gone in between.
            continue
        try:
            for name in os.listdir(fd):
                try:
                    info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                yield f"/{directory}/{name}", info
                if stat.S_ISDIR(info.st_mode):
                    pending.append(f"{directory}/{name}")
        finally:
            os.close(fd)


def _open_below(root_fd: int, path: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    return syscalls.openat2(root_fd, os.fsencode(path), flags, resolve=_BELOW)


def _kind_of(info: os.stat_result) -> tuple[str, int, int] | None:
    if stat.S_ISCHR(info.st_mode):
        letter = "c"
    elif stat.S_ISBLK(info.st_mode):
        letter = "b"
    else:
        return None
    return letter, os.major(info.st_rdev), os.minor(info.st_rdev)
