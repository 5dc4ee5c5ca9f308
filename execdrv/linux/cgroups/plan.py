"""Where a container's group stands, decided as data before anything is made.

Pure: it takes a `Layout` and says which directories are needed in which hierarchy, so that the
names can be written into the record first. The rules (below the caller's own group, and what
cgroup2's "no internal processes" makes of that) stand in `_place_unified`. What the plan can't
know without looking, `check` finds.
"""

from __future__ import annotations

import os

import attrs

from execdrv.errors import SpecError, UnsupportedError
from execdrv.limits import Limits
from execdrv.linux.cgroups.layout import LEAF_NAME, Hierarchy, Layout, path_down

#: The controller behind each limit, and the guarantee that the limit asks for.
BEHIND = {
    "memory": ("memory", "mem.limit-oom"),
    "memory_swap": ("memory", "mem.swap"),
    "cpus": ("cpu", "cpu.quota"),
    "pids": ("pids", "pids.limit"),
}
DEVICE_GUARANTEE = "dev.no-disk"
#: The group below a container's own in which its processes are.
JOB_NAME = "job"
WAY_OUT = "run it in a group of its own: systemd-run --scope -p Delegate=yes COMMAND"


@attrs.frozen
class GroupDir:
    """One directory of a group, which has the limits; the processes are in one below it.

    The root of a cgroup namespace is the group of the process that made it, and what stands in a
    root can be written from inside: a job that is the machine's root needs only a user namespace
    of its own to mount the hierarchy. So the limits stand one level above all that it can see.
    """

    path: str
    #: 1 or 2.
    version: int
    #: What is used in it; for v2 these are switched on in the groups above.
    controllers: tuple[str, ...] = ()

    @property
    def job(self) -> str:
        """The directory of the group that the processes join."""
        return f"{self.path}/{JOB_NAME}"


@attrs.frozen
class GroupPlan:
    """All names of one group: enough to make it, to open it again and to remove it."""

    name: str
    #: The unified directory first; empty where the machine has no usable hierarchy.
    dirs: tuple[GroupDir, ...] = ()
    #: cgroup2 groups, top down, whose cgroup.subtree_control must name the controllers.
    enable: tuple[str, ...] = ()
    #: cgroup2 group into which our own processes move first; empty if none has to.
    leaf: str = ""
    #: The processes that may be moved there.
    own_pids: tuple[int, ...] = ()

    @property
    def unified(self) -> GroupDir | None:
        """The cgroup2 directory."""
        return next((d for d in self.dirs if d.version == 2), None)

    def dir_of(self, controller: str) -> GroupDir | None:
        """The directory in which a controller is used."""
        return next((d for d in self.dirs if controller in d.controllers), None)


def plan_group(
    layout: Layout,
    name: str,
    *,
    parent: str | None = None,
    limits: Limits,
    devices: bool,
    everywhere: bool = False,
) -> GroupPlan:
    """Decide the directories of a new group.

    Args:
        layout: what `detect_layout` saw.
        name: the new directory's name in each hierarchy (one path component).
        parent: an existing group below each hierarchy's mountpoint to stand in, in place of the
            caller's own.
        limits: what was asked; each names a controller that must be there.
        devices: whether `allow_devices` will be called.
        everywhere: a directory in every v1 hierarchy, needed for a limit or not. Where a job has
            none, the root of its cgroup namespace is the caller's own group, which a job that is
            the machine's root could then change.

    Raises:
        SpecError: `name` or `parent` is no path below the mountpoint.
        UnsupportedError: a controller is missing, or no place is allowed; the first of what
            `check_limits` lists.
    """
    check_component(name)
    if parent is not None:
        check_parent_name(parent)
    problems = planned_obstacles(layout, limits, parent=parent, devices=devices)
    if problems:
        raise problems[0]
    v1, v2 = _needed_controllers(layout, limits, parent=parent, devices=devices)
    dirs: list[GroupDir] = []
    enable: tuple[str, ...] = ()
    leaf = ""
    own_pids: tuple[int, ...] = ()
    unified = layout.unified
    if unified is not None and _unusable(unified, parent) is None:
        place = _place_unified(layout, unified, v2, parent=parent)
        # Without a controller in it this directory is for exact killing only, and a run that
        # asked for no limit does not fail for want of it.
        if not isinstance(place, str):
            base, leaf, own_pids = place
            dirs.append(GroupDir(path=f"{base}/{name}", version=2, controllers=v2))
            enable = tuple(path_down(unified.mountpoint, base)) if v2 else ()
    for hierarchy, controllers in v1:
        base = _base_v1(hierarchy, parent)
        dirs.append(GroupDir(path=f"{base}/{name}", version=1, controllers=controllers))
    if everywhere:
        # The parent need not be there: nothing is counted or limited in these.
        used = [hierarchy for hierarchy, _ in v1]
        dirs += [
            GroupDir(path=f"{_base_v1(hierarchy, None)}/{name}", version=1)
            for hierarchy in layout.hierarchies
            if hierarchy.version == 1 and hierarchy not in used and not _unusable(hierarchy, None)
        ]
    return GroupPlan(name=name, dirs=tuple(dirs), enable=enable, leaf=leaf, own_pids=own_pids)


def check_component(name: str, *, field: str = "name") -> None:
    """Refuse what is not one component of a path.

    Raises:
        SpecError: it is empty, ``.`` or ``..``, too long, or has a slash, NUL or newline.
    """
    try:
        size = len(os.fsencode(name))
    except UnicodeEncodeError:
        size = 0
    if name in (".", "..") or set(name) & {"/", "\0", "\n"} or not 1 <= size <= 255:
        raise SpecError(
            f"cannot use {name!r} in a cgroup path: it is not a directory name",
            hint="name groups below the mountpoint, such as 'jobs/mine'",
            field=field,
            value=name,
        )


def check_parent_name(parent: str) -> None:
    """Refuse a parent that is no relative path of plain components.

    Raises:
        SpecError: with field cgroup_parent.
    """
    for part in parent.split("/"):
        try:
            check_component(part, field="cgroup_parent")
        except SpecError as error:
            raise SpecError(
                f"cannot use cgroup parent {parent!r}: {part!r} is not a directory name",
                hint=error.hint,
                field="cgroup_parent",
                value=parent,
            ) from None


def unsupported(limit: str, reason: str, *, hint: str = "") -> UnsupportedError:
    guarantee = BEHIND[limit][1] if limit in BEHIND else DEVICE_GUARANTEE
    what = f"limit {limit}" if limit in BEHIND else "control devices"
    return UnsupportedError(
        f"cannot {what}: {reason}", hint=hint, guarantee=guarantee, reason=reason
    )


def planned_obstacles(
    layout: Layout, limits: Limits, *, parent: str | None, devices: bool
) -> list[UnsupportedError]:
    wanted = [(name, BEHIND[name][0]) for name in limits.names()]
    found = [
        problem
        for name, controller in wanted
        if (problem := _obstacle(layout, name, controller, parent=parent)) is not None
    ]
    if devices and _unified_place(layout, (), parent) is None:
        hierarchy = layout.v1("devices")
        if hierarchy is None:
            reason = "this machine has neither the v1 controller 'devices' nor a usable cgroup2"
            found.append(unsupported("devices", reason))
        elif (reading := _unusable(hierarchy, parent)) is not None:
            found.append(unsupported("devices", reading))
    return found


def _obstacle(
    layout: Layout, limit: str, controller: str, *, parent: str | None
) -> UnsupportedError | None:
    """What stands between a limit and its controller, naming controller and cgroup."""
    hierarchy = layout.v1(controller)
    if hierarchy is not None:
        problem = _unusable(hierarchy, parent)
        return None if problem is None else unsupported(limit, problem)
    unified = layout.unified
    if unified is None:
        seen = ", ".join(repr(h.mountpoint) for h in layout.hierarchies) or "none at all"
        return unsupported(
            limit,
            f"no cgroup hierarchy has the controller {controller!r} (mounted here: {seen})",
            hint="mount one below /sys/fs/cgroup, or ask for no limit",
        )
    problem = _unusable(unified, parent)
    if problem is not None:
        return unsupported(limit, problem)
    state = layout.unified_group
    available = unified.controllers if parent is not None or state is None else state.available
    if controller not in available:
        where = unified.own if parent is None else f"{unified.mountpoint}/{parent}"
        return unsupported(
            limit,
            f"cgroup {where!r} can't get the controller {controller!r} "
            f"(it can get: {' '.join(available) or 'none'})",
            hint=WAY_OUT,
        )
    place = _place_unified(layout, unified, (controller,), parent=parent)
    return unsupported(limit, place, hint=WAY_OUT) if isinstance(place, str) else None


def _unusable(hierarchy: Hierarchy, parent: str | None) -> str | None:
    """Why no group can be made in a hierarchy at all."""
    names = " ".join(hierarchy.controllers) or "cgroup2"
    if hierarchy.read_only:
        return f"cgroup {hierarchy.mountpoint!r} ({names}) is mounted read-only"
    if hierarchy.own is None and parent is None:
        return (
            f"own cgroup {hierarchy.own_group!r} ({names}) is not below what is mounted on "
            f"{hierarchy.mountpoint!r} ({hierarchy.mount_root!r})"
        )
    return None


def _base_v1(hierarchy: Hierarchy, parent: str | None) -> str:
    base = hierarchy.own if parent is None else f"{hierarchy.mountpoint}/{parent}"
    return (base or hierarchy.mountpoint).rstrip("/")


def _unified_place(
    layout: Layout, controllers: tuple[str, ...], parent: str | None
) -> tuple[str, str, tuple[int, ...]] | None:
    unified = layout.unified
    if unified is None or _unusable(unified, parent) is not None:
        return None
    place = _place_unified(layout, unified, controllers, parent=parent)
    return None if isinstance(place, str) else place


def _place_unified(
    layout: Layout, unified: Hierarchy, controllers: tuple[str, ...], *, parent: str | None
) -> tuple[str, str, tuple[int, ...]] | str:
    """Where a cgroup2 group may stand: (base, leaf, processes to move), or why nowhere.

    In this order:
    1. `parent` if one was named;
    2. below the own group, moving nobody: no controller is needed there, or it is the real root
       (both may have processes beside groups), or a Host of ours has emptied it already;
    3. below the own group, our processes moved to a leaf: when nobody else is in it;
    4. beside the own group: only if that has no finite limit, or the container would escape it.
    """
    if parent is not None:
        return f"{unified.mountpoint.rstrip('/')}/{parent}", "", ()
    own, state = unified.own, layout.unified_group
    if own is None or state is None:
        return f"own cgroup {unified.own_group!r} can't be seen"
    base = own.rstrip("/")
    in_leaf = os.path.basename(base) == LEAF_NAME and own != unified.mountpoint
    if in_leaf:
        return os.path.dirname(base), base, state.ours
    if not controllers or state.is_root:
        return base, "", ()
    if state.threaded:
        return f"own cgroup {own!r} is threaded, which has no {' '.join(controllers)}"
    if not state.foreign:
        return base, f"{base}/{LEAF_NAME}", state.ours
    if own == unified.mountpoint:
        return f"own cgroup {own!r} holds other processes, and nothing above it is visible"
    if state.finite:
        return (
            f"own cgroup {own!r} holds other processes, and beside it the container would escape "
            f"its {state.finite[0]!r}"
        )
    return os.path.dirname(base), "", ()


def _needed_controllers(
    layout: Layout, limits: Limits, *, parent: str | None, devices: bool
) -> tuple[list[tuple[Hierarchy, tuple[str, ...]]], tuple[str, ...]]:
    """The v1 hierarchies with what is used in each, and the v2 controllers."""
    wanted = list(dict.fromkeys(BEHIND[name][0] for name in limits.names()))
    v2 = tuple(name for name in wanted if layout.v1(name) is None)
    unified = _unified_place(layout, v2, parent) is not None
    if devices:
        wanted.append("devices")
    if limits.cpus is not None and not unified:
        # cgroup2 counts processor time in every group, with no controller.
        wanted.append("cpuacct")
    if not unified:
        # Without cgroup.kill and cgroup.freeze, freezing makes the killing of a fork storm end.
        wanted.append("freezer")
    v1: list[tuple[Hierarchy, tuple[str, ...]]] = []
    for hierarchy in layout.hierarchies:
        if hierarchy.version == 1 and _unusable(hierarchy, parent) is None:
            used = tuple(name for name in wanted if name in hierarchy.controllers)
            if used:
                v1.append((hierarchy, used))
    return v1, v2
