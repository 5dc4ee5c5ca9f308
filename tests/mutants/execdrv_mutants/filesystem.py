"""Mutants that spoil the root, or what is mounted in it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence

import attrs

from execdrv.driver import Box, Isolated
from execdrv.init.link import InitLink
from execdrv.linux import check, mounts, view
from execdrv.linux.capabilities import capability_mask
from execdrv.linux.layer import changing_root, clone_bind, clone_root
from execdrv.linux.mounts import clone_tree
from execdrv.linux.procfs import ProcessId
from execdrv.linux.spawn import arrange_fds
from execdrv.linux.step import Attach, Cover, MakeNode, MountStep, NewFs, Protect
from execdrv.linux.syscalls import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    OPEN_TREE_CLONE,
    fsconfig,
    mount_setattr,
    move_mount,
    open_tree,
    pivot_root,
)
from execdrv_chroot import driver as chroot
from execdrv_chroot.driver import ChrootDriver
from execdrv_mutants.change import change, change_walls
from execdrv_mutants.init import use_init
from execdrv_mutants.privilege import with_capabilities
from execdrv_native import child as native_child
from execdrv_native import driver as native
from execdrv_native.child import Walls
from execdrv_native.driver import NativeDriver


def _become_init(box: Box, link: InitLink, *, chroot_to: bool) -> None:
    """As the chroot driver's, without the change of directory, and perhaps of root."""
    memfd, gate, root = arrange_fds(
        stdio=box.stdio, passed=box.passed, keep=[link.memfd, link.gate_fd, box.root]
    )
    os.set_inheritable(memfd, False)
    os.set_inheritable(root, False)
    if chroot_to:
        os.chroot(f"/proc/self/fd/{root}")
    os.execve(memfd, [b"execdrv-init", b"%d" % gate], {})


class NoChroot(ChrootDriver):
    """Leaves the machine's root in place."""

    name = "no-chroot"

    def __init__(self) -> None:
        change(chroot, _become_init=lambda box, link: _become_init(box, link, chroot_to=False))


class ChrootNoChdir(ChrootDriver):
    """Changes the root and leaves the working directory outside."""

    name = "chroot-no-chdir"

    def __init__(self) -> None:
        change(chroot, _become_init=lambda box, link: _become_init(box, link, chroot_to=True))

    def isolate(self, box: Box) -> Isolated:
        use_init(box, "no-chdir")
        return super().isolate(box)


class OldRootLeft(NativeDriver):
    """Does not detach the old root after pivot_root."""

    name = "old-root-left"

    def __init__(self) -> None:
        change(native_child, enter_root=_keep_old_root)


def _keep_old_root(root: int) -> None:
    os.fchdir(root)
    with changing_root():
        # Where the job has a /proc, a /dev and a /tmp, it now has a /mnt with the machine in it.
        pivot_root(b".", b"mnt")
    os.chdir("/")


class RoBindNotRecursive(NativeDriver):
    """Makes only the top of a read-only bind read-only."""

    name = "ro-bind-not-recursive"

    def __init__(self) -> None:
        change(native, clone_bind=_clone_bind)


def _clone_bind(source: int, *, read_only: bool) -> int:
    tree = clone_tree(source, attributes=MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, recursive=True)
    if read_only:
        mount_setattr(tree, attr_set=MOUNT_ATTR_RDONLY)
    return tree


class FollowsSymlinkTarget(NativeDriver):
    """Resolves mount targets by plain path: a link of the root leads into the machine."""

    name = "follows-symlink-target"

    def __init__(self) -> None:
        change(mounts._View, _open_asked=_open_plainly, _open_fixed=_open_fixed_plainly)
        # What a look beforehand would refuse, it does not look for.
        change(check, check_mounts=lambda **_asked: [])


def _open_plainly(self: mounts._View, path: bytes, *, is_directory: bool) -> int:
    # The name of the new root, as this namespace has it.
    target = os.readlink(b"/proc/self/fd/%d" % self.root) + path
    if not os.path.exists(target):
        os.makedirs(target if is_directory else os.path.dirname(target), exist_ok=True)
        if not is_directory:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    return os.open(target, os.O_PATH | os.O_CLOEXEC)


def _open_fixed_plainly(self: mounts._View, path: bytes) -> int:
    return _open_plainly(self, path, is_directory=True)


class SharedTmp(NativeDriver):
    """Shows the machine's /tmp inside."""

    name = "shared-tmp"

    def __init__(self) -> None:
        change_walls(self._bind_tmp)

    @staticmethod
    def _bind_tmp(walls: Walls, _box: Box, opened: contextlib.ExitStack) -> Walls:
        source = os.open("/tmp", os.O_PATH | os.O_CLOEXEC)
        opened.callback(os.close, source)
        plain = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
        tree = clone_tree(source, attributes=plain, recursive=False)
        opened.callback(os.close, tree)
        bind = Attach(target=b"/tmp", tree=len(walls.bind_trees))
        steps = tuple(bind if step.target == b"/tmp" else step for step in walls.steps)
        return attrs.evolve(walls, steps=steps, bind_trees=(*walls.bind_trees, tree))


class NoNosuid(NativeDriver):
    """Mounts without nosuid."""

    name = "no-nosuid"

    def __init__(self) -> None:
        change_walls(
            lambda walls, _box, _opened: attrs.evolve(walls, steps=_allow_suid(walls.steps))
        )
        change(native, clone_bind=_clone_suid_bind)


def _allow_suid(steps: Sequence[MountStep]) -> tuple[MountStep, ...]:
    return tuple(
        attrs.evolve(step, attributes=step.attributes & ~MOUNT_ATTR_NOSUID)
        if isinstance(step, NewFs) and step.fstype == b"tmpfs"
        else step
        for step in steps
    )


def _clone_suid_bind(source: int, *, read_only: bool) -> int:
    attributes = MOUNT_ATTR_NODEV | (MOUNT_ATTR_RDONLY if read_only else 0)
    return clone_tree(source, attributes=attributes, recursive=True)


class UnmaskedProc(NativeDriver):
    """Leaves /proc without masks."""

    name = "unmasked-proc"

    def __init__(self) -> None:
        change_walls(self._uncover)

    @staticmethod
    def _uncover(walls: Walls, _box: Box, _opened: contextlib.ExitStack) -> Walls:
        steps = tuple(step for step in walls.steps if not isinstance(step, Cover))
        if len(walls.steps) - len(steps) != len(view.COVERED):
            raise AssertionError("the plan covers more than /proc")
        return attrs.evolve(walls, steps=steps)


class RoRootWritable(NativeDriver):
    """Leaves a root writable that was asked read-only."""

    name = "ro-root-writable"

    def __init__(self) -> None:
        change(native, clone_root=lambda root, *, read_only: clone_root(root, read_only=False))


class WritesThrough(NativeDriver):
    """Lays no private layer over the root: the job writes to the directory itself."""

    name = "writes-through"

    def __init__(self) -> None:
        change_walls(lambda walls, _box, _opened: attrs.evolve(walls, private=False))


class MasksWithImage(NativeDriver):
    """Covers files of /proc with what the root has as /dev/null (CVE-2025-31133)."""

    name = "masks-with-the-image"

    def __init__(self) -> None:
        change(mounts._View, _cover=_cover_with_image)


_cover = mounts._View._cover


def _cover_with_image(self: mounts._View, path: bytes) -> None:
    directory, name = self._open_parent(path)
    image = os.readlink(b"/proc/self/fd/%d" % self.root) + b"/dev/null"
    try:
        if os.path.isdir(b"/proc/self/fd/%d/%s" % (directory, name)):
            raise IsADirectoryError
        source = os.open(image, os.O_PATH | os.O_CLOEXEC)
        os.stat(name, dir_fd=directory)
    except OSError:
        _cover(self, path)
        return
    tree = open_tree(source, flags=OPEN_TREE_CLONE)
    os.close(source)
    move_mount(tree, directory, name)
    os.close(tree)


class UnprotectedProc(NativeDriver):
    """Leaves /proc/sys and the like writable."""

    name = "unprotected-proc"

    def __init__(self) -> None:
        change_walls(
            lambda walls, _box, _opened: attrs.evolve(
                walls, steps=tuple(step for step in walls.steps if not isinstance(step, Protect))
            )
        )


class NamesHostPaths(NativeDriver):
    """Names directories of the machine as the sources of its mounts."""

    name = "names-host-paths"

    def __init__(self) -> None:
        def configure_with_path(
            fd: int, command: int, key: bytes | None, value: bytes | None, aux: int = 0
        ) -> None:
            fsconfig(fd, command, key, os.getcwdb() if key == b"source" else value, aux)

        change(mounts, fsconfig=configure_with_path)
        change_walls(self._stand_in_directory)

    @staticmethod
    def _stand_in_directory(walls: Walls, box: Box, _opened: contextlib.ExitStack) -> Walls:
        os.chdir(box.directory)
        return walls


class RoBindWritable(NativeDriver):
    """Leaves a bind writable that was asked read-only."""

    name = "ro-bind-writable"

    def __init__(self) -> None:
        change(native, clone_bind=lambda source, *, read_only: clone_bind(source, read_only=False))


class BindIsEmpty(NativeDriver):
    """Mounts an empty tmpfs where a bind was asked."""

    name = "bind-is-empty"

    def __init__(self) -> None:
        change_walls(self._empty)

    @staticmethod
    def _empty(walls: Walls, _box: Box, _opened: contextlib.ExitStack) -> Walls:
        steps = tuple(_empty_bind(step, walls.bind_trees) for step in walls.steps)
        return attrs.evolve(walls, steps=steps)


def _empty_bind(step: MountStep, trees: Sequence[int]) -> MountStep:
    if not isinstance(step, Attach) or not stat.S_ISDIR(os.fstat(trees[step.tree]).st_mode):
        return step
    plain = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
    return NewFs(target=step.target, fstype=b"tmpfs", attributes=plain, asked=True)


class TmpfsWithoutOptions(NativeDriver):
    """Mounts a tmpfs that was asked without the size and mode that were asked."""

    name = "tmpfs-without-options"

    def __init__(self) -> None:
        change_walls(
            lambda walls, _box, _opened: attrs.evolve(
                walls,
                steps=tuple(
                    attrs.evolve(step, options=())
                    if isinstance(step, NewFs) and step.asked
                    else step
                    for step in walls.steps
                ),
            )
        )


class MountsDeepestFirst(NativeDriver):
    """Mounts what was asked deepest first: the last one hides the others."""

    name = "mounts-deepest-first"

    def __init__(self) -> None:
        change_walls(self._reverse)

    @staticmethod
    def _reverse(walls: Walls, _box: Box, _opened: contextlib.ExitStack) -> Walls:
        asked = [step for step in walls.steps if _is_asked(step)]
        others = [step for step in walls.steps if not _is_asked(step)]
        return attrs.evolve(walls, steps=(*others[:-1], *reversed(asked), others[-1]))


def _is_asked(step: MountStep) -> bool:
    return isinstance(step, Attach) or (isinstance(step, NewFs) and step.asked)


class ExtraDevice(NativeDriver):
    """Has a node in /dev that nobody asked for: the kernel's log."""

    name = "extra-device"

    def __init__(self) -> None:
        change_walls(self._add_node)

    @staticmethod
    def _add_node(walls: Walls, _box: Box, _opened: contextlib.ExitStack) -> Walls:
        node = MakeNode(target=b"/dev/kmsg", major=1, minor=11)
        return attrs.evolve(walls, steps=(*walls.steps[:-1], node, walls.steps[-1]))


class WrongDevice(NativeDriver):
    """Makes /dev/zero a node of the null device."""

    name = "wrong-device"

    def __init__(self) -> None:
        change_walls(
            lambda walls, _box, _opened: attrs.evolve(
                walls, steps=tuple(_make_null(step) for step in walls.steps)
            )
        )


def _make_null(step: MountStep) -> MountStep:
    if isinstance(step, MakeNode) and step.target == b"/dev/zero":
        return attrs.evolve(step, minor=3)
    return step


class MakesAnyDevice(NativeDriver):
    """Leaves root of the container the right to make device nodes, and to open them."""

    name = "makes-any-device"

    def __init__(self) -> None:
        change(native, _has_device_control=lambda _group: False)
        # The mount is the last barrier: nothing works without devices on it but nodev.
        change_walls(
            lambda walls, _box, _opened: attrs.evolve(
                walls, attributes=walls.attributes & ~MOUNT_ATTR_NODEV
            )
        )

    def start(self, box: Box) -> ProcessId:
        return super().start(with_capabilities(box, capability_mask(["MKNOD"])))
