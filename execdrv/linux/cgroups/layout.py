"""What cgroups this process sees: hierarchies, where they are mounted, and its own groups.

Reads /proc/self/mountinfo (proc(5)) and /proc/self/cgroup (cgroups(7)), and on cgroup2 what
decides where a group may be made. Asks the kernel, never the distribution; an absent feature is
an absent value, never an error. Decides nothing: `plan` does. Runs in any process; the answers
hold for the process that asked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping

import attrs

from execdrv.linux.cgroups.control import read_optional

#: The group below a cgroup2 group into which our own processes move, so that controllers can be
#: switched on there ("no internal processes", cgroup-v2.rst).
LEAF_NAME = "execdrv-self"

#: Files of a cgroup2 group that say an outer limit, and their text where there is none.
_FINITE_FILES = (
    ("memory.max", "max"),
    ("memory.high", "max"),
    ("memory.swap.max", "max"),
    ("cpu.max", "max"),
    ("pids.max", "max"),
    ("io.max", ""),
    ("cpuset.cpus", ""),
    ("cpuset.mems", ""),
)


@attrs.frozen
class Mount:
    """One line of mountinfo, as far as cgroups need it."""

    mount_id: int
    parent_id: int
    root: str
    mountpoint: str
    fstype: str
    #: Options of the mount and of the file system.
    options: tuple[str, ...]


@attrs.frozen
class Hierarchy:
    """One mounted hierarchy."""

    #: 1 or 2.
    version: int
    #: v1: what is bound to it (a named one: `name=NAME`); v2: what its topmost group can hand down.
    controllers: tuple[str, ...]
    mountpoint: str
    #: The group that stands at the mountpoint.
    mount_root: str
    #: This process's own directory; None if it is not below the mountpoint.
    own: str | None
    #: This process's own group, as /proc/self/cgroup says it.
    own_group: str
    read_only: bool = False


@attrs.frozen
class UnifiedGroup:
    """This process's own group on cgroup2: what decides where a group of ours may stand."""

    #: The real root, where processes and controllers may stand together.
    is_root: bool
    #: Controllers that a group made below the own one can get.
    available: tuple[str, ...]
    threaded: bool = False
    #: The processes that are execdrv's, wherever they are.
    ours: tuple[int, ...] = ()
    #: Other processes in it (0: one of another pid namespace).
    foreign: tuple[int, ...] = ()
    #: Its own finite limits, as `file=value`.
    finite: tuple[str, ...] = ()


@attrs.frozen
class Layout:
    """All hierarchies that this process sees; empty where there are none."""

    hierarchies: tuple[Hierarchy, ...] = ()
    unified_group: UnifiedGroup | None = None

    @property
    def unified(self) -> Hierarchy | None:
        """The cgroup2 hierarchy."""
        return next((h for h in self.hierarchies if h.version == 2), None)

    def v1(self, controller: str) -> Hierarchy | None:
        """The v1 hierarchy to which a controller is bound."""
        for hierarchy in self.hierarchies:
            if hierarchy.version == 1 and controller in hierarchy.controllers:
                return hierarchy
        return None

    @property
    def mode(self) -> str:
        """none, v1, hybrid or v2 (v1 counts only with a controller: `name=` is none)."""
        bound = any(
            h.version == 1 and not all(c.startswith("name=") for c in h.controllers)
            for h in self.hierarchies
        )
        if self.unified is None:
            return "v1" if bound else "none"
        return "hybrid" if bound else "v2"


def parse_mountinfo(text: str) -> list[Mount]:
    """The mounts of a mountinfo text, in its order (proc(5)); malformed lines are left out."""
    mounts = []
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        head, tail = left.split(" "), right.split(" ")
        if not separator or len(head) < 6 or len(tail) < 3 or not head[0].isdigit():
            continue
        mounts.append(
            Mount(
                mount_id=int(head[0]),
                parent_id=int(head[1]),
                root=_decode_octal(head[3]),
                mountpoint=_decode_octal(head[4]),
                fstype=tail[0],
                options=(*head[5].split(","), *_decode_octal(tail[2]).split(",")),
            )
        )
    return mounts


def _decode_octal(text: str) -> str:
    r"""Undo the kernel's mangling of blank, tab, newline and backslash (``\040``)."""
    if "\\" not in text:
        return text
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def visible_mounts(mounts: list[Mount], fstypes: Collection[str]) -> list[Mount]:
    """The mounts of some types that a path still leads to.

    Follows each mountpoint from the root down, taking at every step what is mounted on top: a
    tmpfs over /sys/fs/cgroup hides all that is mounted below it, though mountinfo lists it.
    """
    ids = {mount.mount_id for mount in mounts}
    # In a chroot, the parents of the outermost mounts are not listed.
    on_top: dict[tuple[int, str], int] = {
        (mount.parent_id if mount.parent_id in ids else 0, mount.mountpoint): mount.mount_id
        for mount in mounts
        if mount.parent_id != mount.mount_id
    }

    def find(path: str) -> int:
        current = 0
        for prefix in path_down("/", path):
            while (top := on_top.get((current, prefix))) is not None:
                current = top
        return current

    wanted = [mount for mount in mounts if mount.fstype in fstypes]
    return [mount for mount in wanted if find(mount.mountpoint) == mount.mount_id]


def parse_own_groups(text: str) -> dict[tuple[str, ...], str]:
    """This process's groups by hierarchy (cgroups(7)); cgroup2 has the key ``()``."""
    groups = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            controllers = tuple(filter(None, parts[1].split(",")))
            groups[controllers] = parts[2].removesuffix(" (deleted)")
    return groups


def own_directory(mountpoint: str, mount_root: str, own_group: str) -> str | None:
    """Where a group stands below a mountpoint, or None if it is not below the mount's root.

    Both names are as this process's cgroup namespace shows them; one outside it begins with
    ``/..`` (cgroup_namespaces(7)), and what stands below such a root can't be told.
    """
    if "/../" in mount_root + "/" or "/../" in own_group + "/":
        return mountpoint if mount_root == own_group else None
    root = mount_root.rstrip("/")
    if own_group.rstrip("/") == root:
        return mountpoint
    if not own_group.startswith(root + "/"):
        return None
    return mountpoint.rstrip("/") + own_group[len(root) :]


def detect_layout(
    *, mountinfo: str | None = None, own: str | None = None, ours: Collection[int] = ()
) -> Layout:
    """Look at the cgroups of this machine; never raises for an absent feature.

    Args:
        mountinfo: text to use in place of /proc/self/mountinfo.
        own: text to use in place of /proc/self/cgroup.
        ours: process ids that are execdrv's besides this one (its parent the command, the fork
            server, other supervisors). Only these are ever moved, on cgroup2, to make room.
    """
    mountinfo = (read_optional("/proc/self/mountinfo") or "") if mountinfo is None else mountinfo
    own = (read_optional("/proc/self/cgroup") or "") if own is None else own
    groups = parse_own_groups(own)
    candidates = [
        hierarchy
        for mount in visible_mounts(parse_mountinfo(mountinfo), ("cgroup", "cgroup2"))
        if (hierarchy := _find_hierarchy(mount, groups)) is not None
    ]
    # One hierarchy may be mounted at several places: take one that shows the own group, and that
    # can be written.
    candidates.sort(key=lambda h: (h.own is None, h.read_only))
    chosen: dict[tuple[str, ...], Hierarchy] = {}
    for hierarchy in candidates:
        chosen.setdefault(() if hierarchy.version == 2 else hierarchy.controllers, hierarchy)
    layout = Layout(hierarchies=tuple(chosen.values()))
    unified = layout.unified
    if unified is None:
        return layout
    top = read_optional(unified.mountpoint + "/cgroup.controllers") or ""
    hierarchies = tuple(
        attrs.evolve(h, controllers=tuple(top.split())) if h is unified else h
        for h in layout.hierarchies
    )
    if unified.own is None:
        return Layout(hierarchies=hierarchies)
    state = _look_at_unified(unified.mountpoint, unified.own, {os.getpid(), *ours})
    return Layout(hierarchies=hierarchies, unified_group=state)


def _find_hierarchy(mount: Mount, groups: Mapping[tuple[str, ...], str]) -> Hierarchy | None:
    if mount.fstype == "cgroup2":
        bound: tuple[str, ...] = ()
    else:
        # Which of the mount's options are controllers, /proc/self/cgroup says.
        found = [names for names in groups if names and set(names) <= set(mount.options)]
        if not found:
            return None
        bound = found[0]
    group = groups.get(bound)
    if group is None:
        return None
    return Hierarchy(
        version=1 if mount.fstype == "cgroup" else 2,
        controllers=bound,
        mountpoint=mount.mountpoint,
        mount_root=mount.root,
        own=own_directory(mount.mountpoint, mount.root, group),
        own_group=group,
        read_only="ro" in mount.options,
    )


def _look_at_unified(mountpoint: str, own: str, ours: set[int]) -> UnifiedGroup:
    # A leaf of ours comes and goes; what counts is the group in which it stands.
    in_leaf = os.path.basename(own) == LEAF_NAME and own != mountpoint
    available = _reachable_controllers(mountpoint, os.path.dirname(own) if in_leaf else own)
    # Only the real root has no cgroup.type; the root of a cgroup namespace has one.
    kind = read_optional(own + "/cgroup.type")
    finite = []
    for name, unlimited in _FINITE_FILES if kind is not None else ():
        text = (read_optional(f"{own}/{name}") or unlimited).strip()
        if (text.split() or [""])[0] != unlimited:
            finite.append(f"{name}={text.splitlines()[0]}")
    listed = [] if kind is None else (read_optional(own + "/cgroup.procs") or "").split()
    return UnifiedGroup(
        is_root=kind is None and own == mountpoint,
        available=available,
        threaded=kind is not None and kind.strip() not in ("domain", ""),
        ours=tuple(sorted(ours)),
        foreign=tuple(int(pid) for pid in listed if pid.isdigit() and int(pid) not in ours),
        finite=tuple(finite),
    )


def _reachable_controllers(mountpoint: str, own: str) -> tuple[str, ...]:
    """Controllers that can be handed down from the mountpoint to a child of `own`.

    Each group on the way either hands a controller on already or lets us switch it on.
    """
    reachable = (read_optional(mountpoint + "/cgroup.controllers") or "").split()
    for path in path_down(mountpoint, own):
        control = path + "/cgroup.subtree_control"
        if not os.access(control, os.W_OK):
            enabled = (read_optional(control) or "").split()
            reachable = [name for name in reachable if name in enabled]
    return tuple(reachable)


def path_down(top: str, bottom: str) -> list[str]:
    """The directories from `top` down to `bottom`, both included."""
    path = top.rstrip("/")
    steps = [path or "/"]
    for part in filter(None, bottom[len(path) :].split("/")):
        path = f"{path}/{part}"
        steps.append(path)
    return steps
