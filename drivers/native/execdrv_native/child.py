"""What the child of `isolate` does between clone and exec: it becomes the container's inside.

    1. joins the container's groups, before anything else, so that all it uses is counted there;
       a cgroup namespace made after that has the groups as its root;
    2. brings the loopback up and sets the host name, in namespaces that came with the clone;
    3. makes its mounts private, and the new root on a tmpfs over the container's own directory,
       which hides that directory;
    4. carries out the mount plan below the new root;
    5. makes it the root and detaches the old one;
    6. (the driver) becomes execdrv-init.

Single-threaded, as root, with everything imported and opened by the supervisor before. See
pivot_root(2), cgroup_namespaces(7), Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from execdrv.errors import IsolationError
from execdrv.linux.mounts import apply_steps, explain, make_covers, make_fs
from execdrv.linux.step import MountStep
from execdrv.linux.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWNS,
    MNT_DETACH,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MS_PRIVATE,
    MS_REC,
    mount,
    mount_id,
    move_mount,
    pivot_root,
    sethostname,
    setns,
    umount2,
    unshare,
)

# netdevice(7)
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 0x1
_IFREQ: Final = struct.Struct("=16sh22x")

_LAYER_HINT: Final = "its file system may not allow that: try --root-mode read-only"


@attrs.frozen(kw_only=True)
class Walls:
    """All that the child needs; every descriptor is open already."""

    #: A cgroup.procs of each hierarchy.
    procs_fds: tuple[int, ...]
    #: Whether the clone made a network namespace.
    own_net: bool
    hostname: bytes
    #: The container's own directory.
    directory: bytes
    #: A copy of the root's mount (execdrv.linux.mounts.clone_tree).
    root_tree: int
    #: Whether writes go to a layer that ends with the container, and the root stays as it is.
    private: bool
    #: MOUNT_ATTR_* of the private layer's mount.
    attributes: int
    steps: tuple[MountStep, ...]
    #: A copy of each bind's source.
    bind_trees: tuple[int, ...]


def build_walls(walls: Walls) -> None:
    """Steps 1 to 5.

    Raises:
        IsolationError: the child must end.
    """
    with _doing("join the container's group"):
        _join_groups(walls.procs_fds)
    os.umask(0)
    with _doing("set up the container's names"):
        if walls.own_net:
            _set_loopback_up()
        sethostname(walls.hostname)
    with _doing("mount the new root"):
        scratch = _mount_scratch(walls.directory)
        covers = make_covers(scratch, b"covers")
    root = walls.root_tree
    if walls.private:
        with _doing("lay a private layer over the root", hint=_LAYER_HINT):
            root = _make_private(scratch, walls)
    with _doing("mount the new root"):
        os.mkdir(b"root", 0o700, dir_fd=scratch)
        move_mount(root, scratch, b"root")
    apply_steps(
        walls.steps, root=root, trees=walls.bind_trees, covers=covers, root_is_own=walls.private
    )
    with _doing("enter the new root"):
        _enter_root(root)


@contextlib.contextmanager
def _doing(what: str, *, hint: str = "") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"cannot {what}: {explain(error)}"
        raise IsolationError(message, hint=hint, errno=error.errno) from error


def _join_groups(procs_fds: Sequence[int]) -> None:
    for fd in procs_fds:
        os.write(fd, b"0")
    unshare(CLONE_NEWCGROUP)


def _set_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", _IFF_UP))


def _mount_scratch(directory: bytes) -> int:
    """A tmpfs for the upper layer and all mount points that are needed before there is a root."""
    # Before anything else: where the machine's root is shared, our mounts would show there.
    with _changing_root():
        mount(None, b"/", flags=MS_REC | MS_PRIVATE)
    scratch = make_fs(b"tmpfs", ((b"mode", b"700"),), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    move_mount(scratch, place)
    os.close(place)
    return scratch


def _make_private(scratch: int, walls: Walls) -> int:
    """An overlay over the root, mounted nowhere yet.

    Linux 5.14 to 6.14 want its lower layer mounted in the current mount namespace, hence the
    way by a directory. The names are our own and relative, so that no name of the machine can
    be mistaken for an option, nor be read in the container's mountinfo.
    """
    for name in (b"lower", b"upper", b"work"):
        os.mkdir(name, 0o700, dir_fd=scratch)
    move_mount(walls.root_tree, scratch, b"lower")
    # The upper directory is what the job sees as /.
    below = os.fstat(walls.root_tree)
    os.chown(b"upper", below.st_uid, below.st_gid, dir_fd=scratch)
    os.chmod(b"upper", stat.S_IMODE(below.st_mode), dir_fd=scratch)
    os.utime(b"upper", ns=(below.st_atime_ns, below.st_mtime_ns), dir_fd=scratch)
    os.fchdir(scratch)
    layers = ((b"lowerdir", b"lower"), (b"upperdir", b"upper"), (b"workdir", b"work"))
    return make_fs(b"overlay", layers, walls.attributes)


def _enter_root(root: int) -> None:
    """Make `root` the root of this mount namespace, and detach all that was there before.

    That the old root is gone is not taken for granted: entering the namespace anew leads to its
    own root, whatever this process could reach until now. They differ where this process ran in
    a chroot; then the machine's root would be left below, for a job that may call setns(2).
    """
    namespace = os.open(b"/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    os.fchdir(root)
    with _changing_root():
        pivot_root(b".", b".")
    umount2(b".", MNT_DETACH)
    setns(namespace, CLONE_NEWNS)
    reached = os.open(b"/", os.O_PATH | os.O_CLOEXEC)
    if mount_id(reached) != mount_id(root):
        raise _no_pivot()
    os.chdir(b"/")


@contextlib.contextmanager
def _changing_root() -> Iterator[None]:
    """For calls that say EINVAL where the root is no mount point."""
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
