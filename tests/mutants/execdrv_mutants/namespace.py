"""Mutants that leave out a namespace, or spoil one."""

from __future__ import annotations

import contextlib
import os
import socket

import attrs

from execdrv.driver import Box
from execdrv.linux.layer import make_scratch
from execdrv.linux.mounts import INERT, clone_tree
from execdrv.linux.step import Attach, NewFs
from execdrv.linux.syscalls import (
    AT_RECURSIVE,
    CLONE_NEWIPC,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    MNT_DETACH,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    MS_REC,
    OPEN_TREE_CLONE,
    mount,
    mount_setattr,
    open_tree,
    pivot_root,
    umount2,
)
from execdrv_mutants.change import change, change_walls
from execdrv_native import child as native_child
from execdrv_native import driver as native
from execdrv_native.child import Walls
from execdrv_native.driver import NativeDriver


def _leave_out(flag: int) -> None:
    change(native, _NAMESPACES=native._NAMESPACES & ~flag)


class NoPidNamespace(NativeDriver):
    """Makes no pid namespace."""

    name = "no-pid-ns"

    def __init__(self) -> None:
        _leave_out(CLONE_NEWPID)


class HostProcMounted(NativeDriver):
    """Binds the machine's /proc instead of mounting its own."""

    name = "host-proc-mounted"

    def __init__(self) -> None:
        change_walls(self._bind_proc)

    @staticmethod
    def _bind_proc(walls: Walls, _box: Box, opened: contextlib.ExitStack) -> Walls:
        source = os.open("/proc", os.O_PATH | os.O_CLOEXEC)
        opened.callback(os.close, source)
        tree = clone_tree(source, attributes=INERT, recursive=False)
        opened.callback(os.close, tree)
        bind = Attach(target=b"/proc", tree=len(walls.bind_trees))
        steps = tuple(
            bind if isinstance(step, NewFs) and step.target == b"/proc" else step
            for step in walls.steps
        )
        return attrs.evolve(walls, steps=steps, bind_trees=(*walls.bind_trees, tree))


class NoMountNamespace(NativeDriver):
    """Makes no mount namespace: mounts in the machine's, and changes only the root directory."""

    name = "no-mnt-ns"

    def __init__(self) -> None:
        _leave_out(CLONE_NEWNS)
        # Nothing of the machine's own mounts is changed, and its root stays where it is.
        change(native_child, _mount_scratch=make_scratch, enter_root=_change_directory)

    def destroy(self, box: Box) -> None:
        super().destroy(box)
        with contextlib.suppress(OSError):
            umount2(box.directory, MNT_DETACH)


def _change_directory(root: int) -> None:
    os.fchdir(root)
    os.chroot(".")
    os.chdir("/")


class SharedPropagation(NativeDriver):
    """Leaves its mounts peers of the machine's: what is mounted below them shows there."""

    name = "shared-propagation"

    def __init__(self) -> None:
        change(native_child, _mount_scratch=_mount_shared, enter_root=_enter_shared_root)
        change(native, clone_bind=_clone_peer)

    def destroy(self, box: Box) -> None:
        super().destroy(box)
        with contextlib.suppress(OSError):
            # As peers of the machine's, its own mounts would go with these.
            mount(None, box.directory, flags=MS_REC | MS_PRIVATE)
            umount2(box.directory, MNT_DETACH)


def _clone_peer(source: int, *, read_only: bool) -> int:
    """A copy of a bind's source that stays its peer."""
    tree = open_tree(source, flags=OPEN_TREE_CLONE | AT_RECURSIVE)
    attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (MOUNT_ATTR_RDONLY if read_only else 0)
    mount_setattr(tree, attr_set=attributes, flags=AT_RECURSIVE)
    return tree


#: The tmpfs of `_mount_shared`, in the child.
_scratch = -1


def _mount_shared(directory: bytes) -> int:
    global _scratch
    _scratch = make_scratch(directory)
    return _scratch


def _enter_shared_root(root: int) -> None:
    """pivot_root(2) wants the parents of both roots, and the place of the old one, private."""
    mount_setattr(_scratch, propagation=MS_PRIVATE)
    mount(None, b"/", flags=MS_PRIVATE)
    os.fchdir(root)
    # The covers of /proc hang below it: only the mount itself becomes private.
    mount(None, b"proc", flags=MS_PRIVATE)
    pivot_root(b".", b"proc")
    os.chdir("/")
    # As in `destroy`.
    mount(None, b"/proc", flags=MS_REC | MS_PRIVATE)
    umount2(b"/proc", MNT_DETACH)


class HostNet(NativeDriver):
    """Makes no network namespace."""

    name = "host-net"

    def __init__(self) -> None:
        change(native, CLONE_NEWNET=0)
        change_walls(lambda walls, _box, _opened: attrs.evolve(walls, own_net=False))


class LoDown(NativeDriver):
    """Leaves loopback down."""

    name = "net-but-lo-down"

    def __init__(self) -> None:
        change_walls(lambda walls, _box, _opened: attrs.evolve(walls, own_net=False))


class NoIpcNamespace(NativeDriver):
    """Makes no ipc namespace."""

    name = "no-ipc"

    def __init__(self) -> None:
        _leave_out(CLONE_NEWIPC)


class NoUtsNamespace(NativeDriver):
    """Makes no uts namespace, and leaves the machine's name as it is."""

    name = "no-uts"

    def __init__(self) -> None:
        _leave_out(CLONE_NEWUTS)
        name = socket.gethostname().encode()
        change_walls(lambda walls, _box, _opened: attrs.evolve(walls, hostname=name))


class NoCgroupNamespace(NativeDriver):
    """Makes no cgroup namespace."""

    name = "no-cgroup-ns"

    def __init__(self) -> None:
        change(native_child, unshare=lambda _flags: None)
