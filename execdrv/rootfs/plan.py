"""What will be in a root file system: a table from path to entry, made before anything is written.

The table answers three questions once, for everybody who adds to it: where a file of this machine
goes (`Planner.destination`), what a link points at (always relative, so that it leads nowhere else
when read from outside), and who wins (the first). Reads the machine, changes nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable

import attrs

from execdrv.errors import SpecError

#: Directories that are links in every tree made here: the merged /usr of most machines.
MERGED = (("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"))
#: Made only where this machine has them (libraries of other ABIs).
MERGED_IF_THERE = (("lib32", "usr/lib32"), ("libx32", "usr/libx32"))
#: Merged further on some machines: (link, what it must resolve to here, link in the tree).
MERGED_IN_USR = (("usr/sbin", "usr/bin"), ("usr/lib64", "usr/lib"))

#: Levels below a copied directory; deeper ones are refused.
DEPTH_LIMIT = 128

#: Write bits of group and others, setuid, setgid and sticky never reach a copy.
KEPT_BITS = 0o755


@attrs.frozen
class Copy:
    """A regular file with the content of `source`, an absolute path of this machine."""

    source: str
    mode: int


@attrs.frozen
class Link:
    """A symbolic link."""

    target: str


@attrs.frozen
class Directory:
    """A directory."""

    mode: int = 0o755


@attrs.frozen
class Text:
    """A regular file with this content, mode 0644."""

    data: str


@attrs.frozen
class Node:
    """A character device, mode 0666."""

    major: int
    minor: int


Entry = Copy | Link | Directory | Text | Node


@attrs.frozen(kw_only=True)
class Plan:
    """A tree to be written."""

    #: By path in the tree, without a leading slash; no entry lies below a link or file.
    entries: dict[str, Entry]
    #: Paths of this machine on which the entries depend, those looked for in vain included.
    inputs: tuple[str, ...]
    #: What was wished for and is not on this machine.
    missing: tuple[str, ...]
    #: Directories of the tree whose python files are to be compiled: (interpreter here, path).
    compiled: tuple[tuple[str, str], ...] = ()


def detect_merged() -> tuple[tuple[str, str], ...]:
    """The directory links of a tree made on this machine, root level first."""
    links = list(MERGED)
    links += [pair for pair in MERGED_IF_THERE if os.path.isdir("/" + pair[0])]
    for link, target in MERGED_IN_USR:
        if os.path.isdir("/" + link) and os.path.realpath("/" + link) == "/" + target:
            links.append((link, target))
    return tuple(links)


def canonical(path: str) -> str:
    """The path with the links of its directory resolved, its own name kept."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


class Planner:
    """A plan being made. Adding the same thing twice is harmless; of two things for one path the
    first stays."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.inputs: dict[str, None] = {}
        self.missing: list[str] = []
        self.compiled: list[tuple[str, str]] = []
        self.merged = detect_merged()
        self._moved: list[tuple[str, str]] = []
        #: First copy of each hard-linked file: (device, inode) -> path in the tree.
        self._inodes: dict[tuple[int, int], str] = {}
        for link, target in self.merged:
            self.add_link(link, target)

    def move(self, path: str, place: str) -> None:
        """Let the machine's file or directory `path` go to `place` in the tree."""
        self._moved.append((path.strip("/"), place))

    def destination(self, path: str) -> str:
        """Where an absolute path of this machine is in the tree, without a leading slash."""
        inside = os.path.normpath(path).strip("/")
        for prefix, replacement in (*self._moved, *self.merged):
            if inside == prefix or inside.startswith(prefix + "/"):
                inside = replacement + inside[len(prefix) :]
        return inside

    def add(self, place: str, entry: Entry) -> None:
        """Put an entry at a path of the tree, unless there is one."""
        self.entries.setdefault(place, entry)

    def add_link(self, place: str, target: str) -> None:
        """Make `place` lead to `target`, both paths of the tree; nothing if they are the same."""
        if place != target:
            self.add(place, Link(os.path.relpath(target, os.path.dirname(place) or ".")))

    def add_file(self, path: str) -> str:
        """Copy a regular file of this machine to its own place, and let `path` lead to it where
        that is a link here.

        Returns:
            The path in the tree that `path` became.

        Raises:
            OSError: the file is not there.
        """
        real = os.path.realpath(path)
        seen = os.stat(real)
        place = self.destination(real)
        self.inputs[real] = None
        if place not in self.entries:
            first = self._inodes.setdefault((seen.st_dev, seen.st_ino), place)
            # Programs of many names are one file with hard links on some machines; the tree has
            # one copy and links, for a program tells its names apart by argv[0].
            if first == place or seen.st_nlink == 1:
                self.add(place, Copy(real, seen.st_mode & KEPT_BITS))
            else:
                self.add_link(place, first)
        for name in (canonical(path), path):
            self.add_link(self.destination(name), place)
        return self.destination(path)

    def add_directory(
        self,
        path: str,
        *,
        keep: Callable[[str], bool],
        skip: frozenset[tuple[int, int]] = frozenset(),
    ) -> list[str]:
        """Copy a directory of this machine to its own place: links as links, nothing of other
        file systems, no sockets, pipes and devices.

        Args:
            keep: asked with the path below `path` of each entry.
            skip: device and inode of directories to leave out (the tree that is being made).

        Returns:
            The regular files added, as paths of this machine.

        Raises:
            SpecError: it nests deeper than DEPTH_LIMIT.
            OSError: a directory could not be read.
        """
        real = os.path.realpath(path)
        self.add_link(self.destination(path), self.destination(real))
        top = os.stat(real)
        files: list[str] = []
        pending = [(real, self.destination(real), 0)]
        if (top.st_dev, top.st_ino) in skip:
            pending = []
        while pending:
            source, place, depth = pending.pop()
            if depth > DEPTH_LIMIT:
                raise SpecError(
                    f"cannot copy {path!r}: it nests deeper than {DEPTH_LIMIT} directories",
                    hint="name the directories that are needed, each with its own --with",
                    field="with",
                    value=path,
                )
            self.inputs[source] = None
            self.add(place, Directory(os.stat(source).st_mode & KEPT_BITS | 0o700))
            with os.scandir(source) as found:
                entries = sorted(found, key=lambda entry: entry.name)
            for entry in entries:
                if not keep(os.path.relpath(entry.path, real)):
                    continue
                seen = entry.stat(follow_symlinks=False)
                below = f"{place}/{entry.name}"
                if stat.S_ISDIR(seen.st_mode):
                    if seen.st_dev == top.st_dev and (seen.st_dev, seen.st_ino) not in skip:
                        pending.append((entry.path, below, depth + 1))
                elif stat.S_ISLNK(seen.st_mode):
                    self.add(below, Link(os.readlink(entry.path)))
                elif stat.S_ISREG(seen.st_mode):
                    self.inputs[entry.path] = None
                    self.add(below, Copy(entry.path, seen.st_mode & KEPT_BITS))
                    files.append(entry.path)
        return files

    def note_missing(self, names: Iterable[str]) -> None:
        """Remember what was wished for and is not here."""
        self.missing.extend(name for name in names if name not in self.missing)

    def finish(self) -> Plan:
        """The plan, without entries that would be written through a link or below a file."""
        entries = {
            place: entry for place, entry in self.entries.items() if not self._is_covered(place)
        }
        # Compiled python files come and go as root imports things: no reason for a new tree.
        inputs = sorted(path for path in self.inputs if "/__pycache__" not in path)
        return Plan(
            entries=entries,
            inputs=tuple(inputs),
            missing=tuple(self.missing),
            compiled=tuple(self.compiled),
        )

    def _is_covered(self, place: str) -> bool:
        parent = os.path.dirname(place)
        while parent:
            if not isinstance(self.entries.get(parent, Directory()), Directory):
                return True
            parent = os.path.dirname(parent)
        return False
