"""A container's root: copies of its mounts, a private layer over it, and the change to it.

`clone_root`, `clone_bind` and `layer_attributes` run in the supervisor; the rest runs in a child
that has a mount namespace of its own, between clone and exec, as root and single-threaded: it
imports nothing and logs nothing. What is mounted below the root is for execdrv.linux.mounts.
See pivot_root(2), Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from execdrv.errors import IsolationError
from execdrv.linux.mounts import clone_tree, explain, make_fs
from execdrv.linux.syscalls import (
    CLONE_NEWNS,
    MNT_DETACH,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    mount_id,
    move_mount,
    pivot_root,
    setns,
    umount2,
)

# --- in the supervisor -------------------------------------------------------------------------


def clone_root(root: int, *, read_only: bool) -> int:
    """A private copy of the root's mount, without devices (open_tree(2)).

    The root is one file system: what the machine has mounted below it stays there.

    Args:
        root: descriptor (O_PATH) of the directory.
        read_only: whether nothing can be written by way of the copy.
    Raises:
        OSError: nothing was made.
    """
    attributes = MOUNT_ATTR_NODEV | (MOUNT_ATTR_RDONLY if read_only else 0)
    return clone_tree(root, attributes=attributes, recursive=False)


def clone_bind(source: int, *, read_only: bool) -> int:
    """A private copy of a bind's source and all mounts below it, without devices and setuid.

    Args:
        source: descriptor (O_PATH) of the directory or file.
        read_only: whether nothing can be written by way of the copy, in any of its mounts.
    Raises:
        OSError: nothing was made.
    """
    attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
    attributes |= MOUNT_ATTR_RDONLY if read_only else 0
    return clone_tree(source, attributes=attributes, recursive=True)


def layer_attributes(root: int) -> int:
    """MOUNT_ATTR_* for `make_layer`: no devices, and what the root's mount forbids (statvfs(3)).

    A copy of the mount has that by itself; a layer above it is a mount of its own.

    Args:
        root: descriptor of the directory.
    Raises:
        OSError: the descriptor is of no use.
    """
    flags = os.fstatvfs(root).f_flag
    return (
        MOUNT_ATTR_NODEV
        | (MOUNT_ATTR_NOSUID if flags & os.ST_NOSUID else 0)
        | (MOUNT_ATTR_NOEXEC if flags & os.ST_NOEXEC else 0)
    )


# --- in the child ------------------------------------------------------------------------------


@contextlib.contextmanager
def explained(what: str, *, hint: str = "") -> Iterator[None]:
    """Make an OSError of the block an IsolationError, `cannot <what>: <reason>`.

    Raises:
        IsolationError: with that message, the hint and the errno.
    """
    try:
        yield
    except OSError as error:
        message = f"cannot {what}: {explain(error)}"
        raise IsolationError(message, hint=hint, errno=error.errno) from error


def make_scratch(directory: bytes) -> int:
    """A tmpfs on a directory, for all that is needed before there is a root.

    Everything is mounted in the caller's mount namespace, which must be private by now.

    Args:
        directory: the container's own; not followed where it is a link.
    Returns:
        A descriptor of the tmpfs's root.
    Raises:
        OSError: the mount namespace is of no use any more.
    """
    scratch = make_fs(b"tmpfs", ((b"mode", b"700"),), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    move_mount(scratch, place)
    os.close(place)
    return scratch


def make_layer(scratch: int, *, below: int, attributes: int) -> int:
    """An overlay over a root, mounted nowhere yet; what is written to it ends with `scratch`.

    Linux 5.14 to 6.14 want its lower layer mounted in the current mount namespace, hence the
    way by a directory. The names are our own and relative, so that no name of the machine can
    be mistaken for an option, nor be read in the container's mountinfo. Changes the working
    directory to `scratch`.

    Args:
        scratch: descriptor of what `make_scratch` made.
        below: a copy of the root's mount (`clone_root`), which is attached there.
        attributes: MOUNT_ATTR_* of the overlay's mount (`layer_attributes`).
    Returns:
        A descriptor of the overlay's root.
    Raises:
        OSError: the mount namespace is of no use any more.
    """
    for name in (b"lower", b"upper", b"work"):
        os.mkdir(name, 0o700, dir_fd=scratch)
    move_mount(below, scratch, b"lower")
    # The upper directory is what the job sees as /.
    status = os.fstat(below)
    os.chown(b"upper", status.st_uid, status.st_gid, dir_fd=scratch)
    os.chmod(b"upper", stat.S_IMODE(status.st_mode), dir_fd=scratch)
    os.utime(b"upper", ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=scratch)
    os.fchdir(scratch)
    layers = ((b"lowerdir", b"lower"), (b"upperdir", b"upper"), (b"workdir", b"work"))
    return make_fs(b"overlay", layers, attributes)


def enter_root(root: int) -> None:
    """Make `root` the root of this mount namespace, and detach all that was there before.

    That the old root is gone is not taken for granted: entering the namespace anew leads to its
    own root, whatever this process could reach until now. They differ where this process ran in
    a chroot; then the machine's root would be left below, for a job that may call setns(2).

    Args:
        root: descriptor of a mount's root, mounted in the caller's own mount namespace.
    Raises:
        IsolationError: the old root can't be exchanged, or was not the namespace's own.
        OSError: likewise the child must end; what it sees as / is not certain.
    """
    namespace = os.open(b"/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    os.fchdir(root)
    with changing_root():
        pivot_root(b".", b".")
    umount2(b".", MNT_DETACH)
    setns(namespace, CLONE_NEWNS)
    os.close(namespace)
    reached = os.open(b"/", os.O_PATH | os.O_CLOEXEC)
    if mount_id(reached) != mount_id(root):
        raise _no_pivot()
    os.close(reached)
    os.chdir(b"/")


@contextlib.contextmanager
def changing_root() -> Iterator[None]:
    """For calls that say EINVAL where execdrv's root is no mount point: pivot_root(2), mount(2).

    Raises:
        IsolationError: in place of that EINVAL, with the reason and the way out.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise _no_pivot() from error
        raise


def _no_pivot() -> IsolationError:
    return IsolationError(
        "cannot change the root: execdrv's own root is no mount point that can be exchanged "
        "(a chroot, or the initramfs)",
        hint="run execdrv outside of the chroot, or move the root to a mounted file system first",
    )
