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
cgroup_namespaces(7), and execdrv.linux.layer for steps 3 and 5.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final

import attrs

from execdrv.linux.layer import changing_root, enter_root, explained, make_layer, make_scratch
from execdrv.linux.mounts import apply_steps, make_covers
from execdrv.linux.step import MountStep
from execdrv.linux.syscalls import (
    CLONE_NEWCGROUP,
    MS_PRIVATE,
    MS_REC,
    mount,
    move_mount,
    sethostname,
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
    #: A copy of the root's mount (execdrv.linux.layer.clone_root).
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
    with explained("join the container's group"):
        _join_groups(walls.procs_fds)
    os.umask(0)
    with explained("set up the container's names"):
        if walls.own_net:
            _set_loopback_up()
        sethostname(walls.hostname)
    with explained("mount the new root"):
        scratch = _mount_scratch(walls.directory)
        covers = make_covers(scratch, b"covers")
    root = walls.root_tree
    if walls.private:
        with explained("lay a private layer over the root", hint=_LAYER_HINT):
            root = make_layer(scratch, below=root, attributes=walls.attributes)
    with explained("mount the new root"):
        os.mkdir(b"root", 0o700, dir_fd=scratch)
        move_mount(root, scratch, b"root")
    apply_steps(
        walls.steps, root=root, trees=walls.bind_trees, covers=covers, root_is_own=walls.private
    )
    with explained("enter the new root"):
        enter_root(root)


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
    with changing_root():
        mount(None, b"/", flags=MS_REC | MS_PRIVATE)
    return make_scratch(directory)
