"""What stands against the targets of a mount plan, found before anything is made.

A pure look at the root and the bind sources: each target is followed as the kernel will follow it
in the container, with the plan's own earlier mounts in the way. The tree may change afterwards;
execdrv.linux.mounts is safe without this, and refuses the same. Runs in the supervisor.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import Final

import attrs

from execdrv.linux.step import Attach, MakeLink, MakeNode, MountStep, NewFs, show
from execdrv.linux.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2

#: As the kernel's own (path_resolution(7)).
_LINKS_MAX: Final = 40

#: A path in the new root, as its names, without links and "..".
Names = tuple[bytes, ...]


@attrs.frozen
class _Mount:
    """A mount of the plan, as far as it can be seen from here."""

    #: Of its root; None where it is empty in the beginning.
    fd: int | None
    is_directory: bool = True
    #: Whether missing mount points are created in it.
    own: bool = False
    #: Whether nobody may ask for a mount in it.
    closed: bool = False
    asked: bool = False
    #: openat2(2) flags for looking into it.
    resolve: int = 0


@attrs.frozen(kw_only=True)
class TargetProblem:
    """A target on which nothing can be mounted."""

    #: One line: the target and what is wrong with it.
    message: str
    hint: str
    #: The spec's field that named the target: rootfs, binds or tmpfs.
    field: str


class _Problem(Exception):
    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint


def find_problems(
    steps: Sequence[MountStep], *, root: int, sources: Sequence[int], root_is_own: bool
) -> list[TargetProblem]:
    """All targets of a plan that can't be used, in the plan's order.

    Args:
        root, sources: descriptors of the root and of each bind's source.
        root_is_own: whether missing mount points may be created in the root.
    """
    view = _View(root, sources, root_is_own=root_is_own)
    found = []
    for step in steps:
        try:
            view.add(step)
        except _Problem as problem:
            fixed = isinstance(step, NewFs) and not step.asked
            field = "rootfs" if fixed else "tmpfs" if isinstance(step, NewFs) else "binds"
            message = f"cannot mount on {show(step.target)}: {problem}"
            found.append(TargetProblem(message=message, hint=problem.hint, field=field))
    return found


class _View:
    """The new root while the plan grows on it; nothing is really made."""

    def __init__(self, root: int, sources: Sequence[int], *, root_is_own: bool) -> None:
        self.sources = sources
        # The copy of the root holds none of the mounts below it.
        top = _Mount(root, own=root_is_own, resolve=RESOLVE_NO_XDEV)
        self.mounts: dict[Names, _Mount] = {(): top}
        #: What the plan makes beside mounts: directories and files, and links with their text.
        self.made: dict[Names, bool | bytes] = {}

    def add(self, step: MountStep) -> None:
        match step:
            case NewFs():
                own, asked = step.fstype == b"tmpfs", step.asked
                mount = _Mount(None, own=own, closed=not own, asked=asked)
                self._mount(step.target, mount)
            case Attach():
                fd = self.sources[step.tree]
                is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
                self._mount(step.target, _Mount(fd, is_directory=is_directory, asked=True))
            case MakeNode():
                self.made[_split(step.target)] = False
            case MakeLink():
                self.made[_split(step.target)] = step.to

    def _mount(self, target: bytes, mount: _Mount) -> None:
        if not mount.asked:
            # Later targets are looked at as if it had worked, so that all problems are found.
            place = _split(target)
            try:
                self._check_fixed(place)
            finally:
                self.mounts[place] = mount
            return
        place, missing = self._follow(target)
        holder, _ = self._mount_of(place)
        if holder.closed:
            raise _guarded()
        if missing:
            self._check_creation(target, holder, missing)
            for count in range(1, len(missing)):
                self.made[place + missing[:count]] = True
            place += missing
        elif self._kind(place) is not mount.is_directory:
            raise _Problem(
                "it is not a directory"
                if mount.is_directory
                else "it is a directory, the source a file"
            )
        self._check_others(place)
        self.mounts[place] = mount

    def _check_fixed(self, place: Names) -> None:
        holder, _ = self._mount_of(place[:-1])
        kind = self._kind(place)
        if isinstance(kind, bytes):
            raise _Problem("it must not be a symbolic link", "make it a directory")
        if kind is False:
            raise _Problem("it is not a directory")
        if kind is None and not holder.own:
            raise _Problem(
                "it is missing in the root file system",
                "make this directory, or use the root mode private",
            )

    def _check_creation(self, target: bytes, holder: _Mount, missing: Names) -> None:
        if b".." in missing:
            raise _Problem("'..' follows a directory that is missing")
        if not holder.own:
            raise _Problem(f"{show(missing[0])} is missing", f"make {show(target)} first")

    def _check_others(self, place: Names) -> None:
        if place in ((), (b"dev",)):
            raise _Problem("it is a mount that the driver needs")
        for other, mount in self.mounts.items():
            if mount.asked and other[: len(place)] == place:
                raise _Problem(
                    "two mounts were asked for there"
                    if other == place
                    else f"it would hide the mount on {show(b'/' + b'/'.join(other))}"
                )

    def _follow(self, path: bytes) -> tuple[Names, Names]:
        """Where a path leads: the names that exist, and those that are missing."""
        # Each name with the link it comes from, or nothing if it stands in the path itself.
        todo = [(name, b"") for name in _split(path)]
        place: list[bytes] = []
        links = 0
        while todo:
            name, link = todo.pop(0)
            if name == b"..":
                del place[-1:]
                continue
            kind = self._kind((*place, name))
            if kind is None and self._mount_of(tuple(place))[0].closed:
                raise _guarded()
            if isinstance(kind, bytes):
                links += 1
                if links > _LINKS_MAX:
                    raise _Problem("too many symbolic links on the way")
                if kind.startswith(b"/"):
                    place.clear()
                todo[:0] = [(part, link or name) for part in _split(kind)]
            elif kind is None and link:
                reason = f"{show(link)} is a symbolic link to nothing"
                raise _Problem(reason, "name the place it points to")
            elif kind is None:
                return tuple(place), (name, *(part for part, _ in todo))
            elif kind is False and todo:
                raise _Problem(f"{show(name)} is not a directory")
            else:
                place.append(name)
        return tuple(place), ()

    def _kind(self, place: Names) -> bool | bytes | None:
        """True: a directory; False: another file; bytes: a link with that text; None: missing."""
        if place in self.mounts:
            return self.mounts[place].is_directory
        if place in self.made:
            return self.made[place]
        mount, below = self._mount_of(place)
        if mount.fd is None:
            return None
        return _look(mount.fd, b"/".join(below), mount.resolve)

    def _mount_of(self, place: Names) -> tuple[_Mount, Names]:
        """The mount that a place is in, and its path from there."""
        for count in range(len(place), 0, -1):
            if place[:count] in self.mounts:
                return self.mounts[place[:count]], place[count:]
        return self.mounts[()], place


def _guarded() -> _Problem:
    return _Problem("it is in a file system that the driver guards")


def _split(path: bytes) -> Names:
    return tuple(part for part in path.split(b"/") if part not in (b"", b"."))


def _look(directory: int, path: bytes, resolve: int) -> bool | bytes | None:
    """As `_View._kind`, for a path without links below a real directory."""
    flags = os.O_PATH | os.O_NOFOLLOW
    resolve |= RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS
    try:
        fd = openat2(directory, path, flags, resolve=resolve)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        # A mount of the machine is there, which the copy has not: a directory, in nearly any case.
        # Whatever else it is, nobody could have seen it from here.
        return True if error.errno == errno.EXDEV else None
    try:
        mode = os.fstat(fd).st_mode
        return os.readlink(b"", dir_fd=fd) if stat.S_ISLNK(mode) else stat.S_ISDIR(mode)
    finally:
        os.close(fd)
