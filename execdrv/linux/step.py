"""The steps of a mount plan, as data.

Pure. `execdrv.linux.view` makes plans of them, `execdrv.linux.target` looks what stands against
one, `execdrv.linux.mounts` carries one out. Targets are absolute in the new root; only those that
a user named (`Attach`, and `NewFs` with `asked`) may contain links.
"""

from __future__ import annotations

import os

import attrs


@attrs.frozen(kw_only=True)
class NewFs:
    """Mount a new file system."""

    target: bytes
    fstype: bytes
    options: tuple[tuple[bytes, bytes], ...] = ()
    #: MOUNT_ATTR_* of mount_setattr(2).
    attributes: int
    #: Whether the user named the target, who may use links of the root and missing directories.
    asked: bool = False


@attrs.frozen(kw_only=True)
class Attach:
    """Mount a tree of `clone_tree` on what the user named."""

    target: bytes
    #: Index into the trees given to `apply_steps`.
    tree: int


@attrs.frozen(kw_only=True)
class MakeNode:
    """Make a device node, readable and writable by all."""

    target: bytes
    major: int
    minor: int


@attrs.frozen(kw_only=True)
class MakeLink:
    """Make a symbolic link."""

    target: bytes
    to: bytes


@attrs.frozen(kw_only=True)
class Cover:
    """Hide an entry of a mount of our own under an empty read-only file or directory, if there."""

    target: bytes


@attrs.frozen(kw_only=True)
class Protect:
    """Make an entry of a mount of our own read-only, if it is there."""

    target: bytes


@attrs.frozen(kw_only=True)
class Seal:
    """Make the mount of an earlier `NewFs` read-only (not what is mounted below it)."""

    target: bytes


MountStep = NewFs | Attach | MakeNode | MakeLink | Cover | Protect | Seal


def describe(step: MountStep) -> str:
    """A step in a few words, for messages."""
    words = {
        Attach: "a bind on",
        MakeNode: "device node",
        MakeLink: "link",
        Cover: "a cover over",
        Protect: "a read-only view of",
        Seal: "nothing more below",
    }
    what = f"a new {step.fstype.decode()} on" if isinstance(step, NewFs) else words[type(step)]
    return f"{what} {show(step.target)}"


def show(path: bytes) -> str:
    """A path for a message: quoted, odd bytes escaped."""
    return repr(os.fsdecode(path))
