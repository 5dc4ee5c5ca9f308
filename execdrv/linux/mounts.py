"""A container's mounts: steps that are data, and the small executor that carries them out.

`clone_tree` runs in the supervisor; its copies are attached to no mount namespace. `apply_steps`
runs in a child with a mount namespace of its own, between clone and exec, on a new root that is
mounted there: it imports nothing and logs nothing.

The tree below the new root is hostile and may change at any moment. So every target is resolved
once, by openat2(2) with the new root as its root, and everything is mounted on the descriptor
that this gave; nothing is created but in file systems of the container's own.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import Final

from execdrv.errors import IsolationError
from execdrv.linux.step import (
    Attach,
    Cover,
    MakeLink,
    MakeNode,
    MountStep,
    NewFs,
    Protect,
    Seal,
    describe,
    show,
)
from execdrv.linux.syscalls import (
    AT_RECURSIVE,
    AT_SYMLINK_NOFOLLOW,
    FSCONFIG_CMD_CREATE,
    FSCONFIG_SET_STRING,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    OPEN_TREE_CLONE,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    fsconfig,
    fsmount,
    fsopen,
    mount_id,
    mount_setattr,
    move_mount,
    open_tree,
    openat2,
)

__all__ = [
    "INERT",
    "Attach",
    "Cover",
    "MakeLink",
    "MakeNode",
    "MountStep",
    "NewFs",
    "Protect",
    "Seal",
    "apply_steps",
    "clone_tree",
    "describe",
    "explain",
    "make_covers",
    "make_fs",
    "refuse_target",
    "show",
]

#: What every mount gets that carries neither programs nor devices.
INERT: Final = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
#: openat2(2) with RESOLVE_IN_ROOT says EAGAIN when something was renamed meanwhile.
_TRIES: Final = 1000

# --- in the supervisor -------------------------------------------------------------------------


def clone_tree(source: int, *, attributes: int, recursive: bool) -> int:
    """A private copy of a mount, from the directory or file of a descriptor down.

    The copy belongs to no mount namespace and ends with its descriptor, if nobody attaches it.
    It is made private at once: as a peer of its source, what the container mounts below it
    would show up in the machine (mount_namespaces(7), shared subtrees).

    Args:
        source: descriptor (O_PATH), of a mount in the caller's mount namespace.
        attributes: MOUNT_ATTR_* to add, on every mount of the copy.
        recursive: whether the mounts below the source are copied too.
    Raises:
        OSError: nothing was made.
    """
    recurse = AT_RECURSIVE if recursive else 0
    tree = open_tree(source, flags=OPEN_TREE_CLONE | recurse)
    try:
        mount_setattr(tree, attr_set=attributes, propagation=MS_PRIVATE, flags=AT_RECURSIVE)
    except OSError:
        os.close(tree)
        raise
    return tree


# --- in the child ------------------------------------------------------------------------------


def apply_steps(
    steps: Sequence[MountStep],
    *,
    root: int,
    trees: Sequence[int],
    covers: int,
    root_is_own: bool,
) -> None:
    """Carry out the steps, in order.

    Args:
        root: descriptor of the new root, a mount in the caller's own mount namespace.
        trees: what `Attach.tree` counts.
        covers: descriptor of what `make_covers` made.
        root_is_own: whether missing mount points may be created in the new root itself.
    Raises:
        IsolationError: a step failed; the mount namespace is of no use any more.
    """
    sealed = frozenset(step.target for step in steps if isinstance(step, Seal))
    view = _View(root=root, trees=trees, covers=covers, guarded_targets=sealed)
    if root_is_own:
        view.own_mounts.add(mount_id(root))
    for step in steps:
        try:
            view.apply(step)
        except OSError as error:
            raise IsolationError(
                f"cannot mount {describe(step)}: {explain(error)}", errno=error.errno
            ) from error


def make_fs(fstype: bytes, options: Sequence[tuple[bytes, bytes]], attributes: int) -> int:
    """A new file system, mounted nowhere yet.

    Raises:
        OSError: the kernel's own words are in its text where it has any.
    """
    context = fsopen(fstype)
    try:
        # What mountinfo and df show as the device; without it "none".
        fsconfig(context, FSCONFIG_SET_STRING, b"source", fstype)
        for key, value in options:
            fsconfig(context, FSCONFIG_SET_STRING, key, value)
        fsconfig(context, FSCONFIG_CMD_CREATE, None, None)
        return fsmount(context, attributes=attributes)
    except OSError as error:
        said = _read_kernel_log(context)
        raise OSError(error.errno, f"{error.strerror}{said}") from error
    finally:
        os.close(context)


def make_covers(parent: int, name: bytes) -> int:
    """A read-only mount with an empty `file` and an empty `directory`, on a directory made for it.

    Returns:
        A descriptor of its root, for `apply_steps`.
    """
    os.mkdir(name, 0o700, dir_fd=parent)
    covers = make_fs(b"tmpfs", ((b"mode", b"755"), (b"size", b"4k"), (b"nr_inodes", b"8")), INERT)
    os.mkdir(b"directory", 0o555, dir_fd=covers)
    os.mknod(b"file", 0o444 | stat.S_IFREG, dir_fd=covers)
    mount_setattr(covers, attr_set=MOUNT_ATTR_RDONLY)
    move_mount(covers, parent, name)
    return covers


def explain(error: OSError) -> str:
    """An OSError's reason in the form of our messages."""
    head, colon, call = (error.strerror or str(error)).partition(": ")
    return f"{head[:1].lower()}{head[1:]}{colon}{call}"


class _View:
    """The new root while it grows."""

    def __init__(
        self, *, root: int, trees: Sequence[int], covers: int, guarded_targets: frozenset[bytes]
    ) -> None:
        self.root, self.trees, self.covers = root, trees, covers
        self.guarded_targets = guarded_targets
        #: Numbers of the mounts in which mount points may be created: the container's own.
        self.own_mounts: set[int] = set()
        #: st_dev of file systems on which nobody may ask for a mount.
        self.closed_devices: set[int] = {os.fstat(covers).st_dev}
        #: Descriptors of mounts that nobody asked for, by target; the exec closes them.
        self.fixed: dict[bytes, int] = {}

    def apply(self, step: MountStep) -> None:
        match step:
            case NewFs():
                self._apply_new_fs(step)
            case Attach():
                tree = self.trees[step.tree]
                is_directory = stat.S_ISDIR(os.fstat(tree).st_mode)
                self._mount(tree, self._open_asked(step.target, is_directory=is_directory))
            case MakeNode():
                directory, name = self._open_parent(step.target)
                device = os.makedev(step.major, step.minor)
                os.mknod(name, 0o666 | stat.S_IFCHR, device, dir_fd=directory)
            case MakeLink():
                directory, name = self._open_parent(step.target)
                os.symlink(step.to, name, dir_fd=directory)
            case Cover():
                self._cover(step.target)
            case Protect():
                self._protect(step.target)
            case Seal():
                mount_setattr(self.fixed[step.target], attr_set=MOUNT_ATTR_RDONLY)

    def _apply_new_fs(self, step: NewFs) -> None:
        mount = make_fs(step.fstype, step.options, step.attributes)
        if step.asked:
            target = self._open_asked(step.target, is_directory=True)
        else:
            target = self._open_fixed(step.target)
            self.fixed[step.target] = mount
        if step.fstype == b"tmpfs":
            self.own_mounts.add(mount_id(mount))
        else:
            self.closed_devices.add(os.fstat(mount).st_dev)
        self._mount(mount, target)

    def _mount(self, tree: int, target: int) -> None:
        move_mount(tree, target)
        os.close(target)

    def _cover(self, path: bytes) -> None:
        directory, name = self._open_parent(path)
        try:
            mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return  # this kernel has no such file
        kind = b"directory" if stat.S_ISDIR(mode) else b"file"
        cover = open_tree(self.covers, kind, flags=OPEN_TREE_CLONE)
        move_mount(cover, directory, name)
        os.close(cover)

    def _protect(self, path: bytes) -> None:
        directory, name = self._open_parent(path)
        try:
            tree = open_tree(directory, name, flags=OPEN_TREE_CLONE | AT_SYMLINK_NOFOLLOW)
        except FileNotFoundError:
            return  # this kernel has no such file
        mount_setattr(tree, attr_set=MOUNT_ATTR_RDONLY | INERT)
        move_mount(tree, directory, name)
        os.close(tree)

    def _open_parent(self, path: bytes) -> tuple[int, bytes]:
        """A descriptor of the directory, and the name of something right below it."""
        directory, _, name = path.rpartition(b"/")
        if directory not in self.fixed:
            self.fixed[directory] = self._open(directory, RESOLVE_NO_SYMLINKS)
        return self.fixed[directory], name

    def _open_fixed(self, path: bytes) -> int:
        """A mount point that nobody asked for: a directory, and no link on the way to it."""
        try:
            target = self._open(path, RESOLVE_NO_SYMLINKS)
        except FileNotFoundError:
            directory, _, name = path.rpartition(b"/")
            parent = self._open(directory or b"/", RESOLVE_NO_SYMLINKS)
            return self._create(parent, name, path=path, is_directory=True)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise refuse_target(path, "it must not be a symbolic link") from error
            raise
        _check_kind(target, path, is_directory=True)
        return target

    def _open_asked(self, path: bytes, *, is_directory: bool) -> int:
        """A mount point that the user named, created if it is missing in a place of our own."""
        try:
            target = self._open(path, RESOLVE_NO_MAGICLINKS)
        except FileNotFoundError:
            target = self._create_missing(path, is_directory=is_directory)
        _check_kind(target, path, is_directory=is_directory)
        status = os.fstat(target)
        if status.st_dev in self.closed_devices:
            raise refuse_target(path, "it is in a file system that the driver guards")
        if any(os.path.samestat(status, os.fstat(fd)) for fd in self._guarded()):
            raise refuse_target(path, "it is a mount that the driver needs")
        return target

    def _guarded(self) -> list[int]:
        made = (self.fixed[path] for path in self.guarded_targets if path in self.fixed)
        return [self.root, *made]

    def _create_missing(self, path: bytes, *, is_directory: bool) -> int:
        """Create what is missing of a path, each part in the directory held before it."""
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        here, count = self._open_existing(parts)
        if b".." in parts[count:]:
            raise refuse_target(path, "'..' follows a directory that is missing")
        for number, part in enumerate(parts[count:], start=count + 1):
            last = number == len(parts)
            above = here
            here = self._create(above, part, path=path, is_directory=is_directory or not last)
            os.close(above)
        return here

    def _open_existing(self, parts: Sequence[bytes]) -> tuple[int, int]:
        """The directory of the longest part of a path that exists, and how many names it has."""
        for count in range(len(parts) - 1, 0, -1):
            try:
                return self._open(b"/".join(parts[:count]), RESOLVE_NO_MAGICLINKS), count
            except FileNotFoundError:
                continue
        return self._open(b"/", RESOLVE_NO_MAGICLINKS), 0

    def _create(self, parent: int, name: bytes, *, path: bytes, is_directory: bool) -> int:
        if mount_id(parent) not in self.own_mounts:
            raise refuse_target(path, f"{show(name)} is missing", hint=f"make {show(path)} first")
        try:
            if is_directory:
                os.mkdir(name, 0o755, dir_fd=parent)
            else:
                os.mknod(name, 0o644 | stat.S_IFREG, dir_fd=parent)
        except FileExistsError as error:
            reason = f"{show(name)} is a symbolic link to nothing"
            raise refuse_target(path, reason, hint="name the place it points to") from error
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)

    def _open(self, path: bytes, resolve: int) -> int:
        for _ in range(_TRIES):
            try:
                return openat2(self.root, path, os.O_PATH, resolve=RESOLVE_IN_ROOT | resolve)
            except BlockingIOError:
                continue
        raise refuse_target(path, "its directories are renamed all the time")


def _check_kind(target: int, path: bytes, *, is_directory: bool) -> None:
    if stat.S_ISDIR(os.fstat(target).st_mode) != is_directory:
        reason = "it is not a directory" if is_directory else "it is a directory, the source a file"
        raise refuse_target(path, reason)


def refuse_target(path: bytes, reason: str, *, hint: str = "") -> IsolationError:
    """The error for a mount point that can't be used."""
    return IsolationError(f"cannot mount on {show(path)}: {reason}", hint=hint)


def _read_kernel_log(context: int) -> str:
    """What the kernel has to say about a file system that it did not make (fsopen(2))."""
    try:
        return " (" + os.read(context, 1024).decode("utf-8", "replace").strip() + ")"
    except OSError:
        return ""
