"""Everything this machine lacks for the limits that were asked, in one list.

The look that goes with `plan`: it reads the kernel and changes nothing, and what it lets pass,
`make_group` and `apply_limits` should find possible. Runs in any process, before `create`.
"""

from __future__ import annotations

import os

from execdrv.errors import ExecdrvError, SpecError
from execdrv.limits import Limits
from execdrv.linux import bpf
from execdrv.linux.cgroups.control import read_number, swap_in_use
from execdrv.linux.cgroups.layout import Layout, path_down
from execdrv.linux.cgroups.plan import (
    BEHIND,
    GroupPlan,
    check_parent_name,
    plan_group,
    planned_obstacles,
    unsupported,
)


def check_limits(
    layout: Layout, limits: Limits, *, parent: str | None = None, devices: bool = False
) -> list[ExecdrvError]:
    """Everything this machine lacks for what was asked; a pure look.

    Args:
        layout: what `detect_layout` saw.
        limits: what was asked.
        parent: as for `plan_group`.
        devices: whether `allow_devices` will be called.

    Returns:
        UnsupportedError values (SpecError for a parent that can't be used), not raised.
    """
    if parent is not None:
        try:
            check_parent_name(parent)
        except SpecError as error:
            return [error]
    obstacles = planned_obstacles(layout, limits, parent=parent, devices=devices)
    if obstacles:
        return list(obstacles)
    # The name does not matter: only the directories above are looked at.
    plan = plan_group(layout, "execdrv", parent=parent, limits=limits, devices=devices)
    missing = [above for above in _above(plan) if not os.path.isdir(above)]
    if missing and parent is not None:
        # Made by us, it would have none of the limits that it was named for.
        return [
            SpecError(
                f"cannot use cgroup parent {parent!r}: {missing[0]!r} does not exist",
                hint=f"make it first: mkdir -p {' '.join(missing)}",
                field="cgroup_parent",
                value=parent,
            )
        ]
    return [
        *_no_device_programs(plan, devices=devices),
        *_unwritable(plan, limits),
        *_above_outer_quota(layout, plan, limits),
        *_no_swap_accounting(plan, limits),
    ]


def _above(plan: GroupPlan) -> list[str]:
    return [os.path.dirname(directory.path) for directory in plan.dirs]


def _no_device_programs(plan: GroupPlan, *, devices: bool) -> list[ExecdrvError]:
    if not devices or plan.dir_of("devices") is not None or bpf.detect_device_programs():
        return []
    reason = "there is no v1 controller 'devices', and this process may load no device program"
    return [unsupported("devices", reason)]


def _unwritable(plan: GroupPlan, limits: Limits) -> list[ExecdrvError]:
    found: list[ExecdrvError] = []
    for directory, above in zip(plan.dirs, _above(plan), strict=True):
        if os.access(above, os.W_OK | os.X_OK):
            continue
        for name in limits.names():
            controller = BEHIND[name][0]
            if controller in directory.controllers:
                reason = f"cgroup {above!r} ({controller}) can't be written by this user"
                found.append(unsupported(name, reason))
    return found


def _above_outer_quota(layout: Layout, plan: GroupPlan, limits: Limits) -> list[ExecdrvError]:
    """v1 refuses a quota above the one that binds the parent (sched-bwc.rst); v2 does not."""
    directory, hierarchy = plan.dir_of("cpu"), layout.v1("cpu")
    if limits.cpus is None or directory is None or hierarchy is None:
        return []
    for step in reversed(path_down(hierarchy.mountpoint, os.path.dirname(directory.path))):
        quota = read_number(step + "/cpu.cfs_quota_us")
        period = read_number(step + "/cpu.cfs_period_us")
        if quota is None or not period or quota < 0:
            continue
        if limits.cpus * period <= quota:
            return []
        reason = f"cgroup {step!r} (cpu) gives all below it only {quota / period:g} cpus"
        return [unsupported("cpus", reason, hint="ask for no more than that")]
    return []


def _no_swap_accounting(plan: GroupPlan, limits: Limits) -> list[ExecdrvError]:
    directory = plan.dir_of("memory")
    if limits.memory_bytes is None or directory is None:
        return []
    above = os.path.dirname(directory.path)
    v1 = directory.version == 1
    accounting = above + ("/memory.memsw.limit_in_bytes" if v1 else "/memory.swap.max")
    # The root of cgroup2 has no memory.max either: there nothing can be told before the try.
    limited = above + ("/memory.limit_in_bytes" if v1 else "/memory.max")
    if os.path.exists(accounting) or not os.path.exists(limited):
        return []
    reason = f"cgroup {above!r} (memory) has no {os.path.basename(accounting)!r}"
    hint = "boot with swapaccount=1, or switch the swap off"
    if limits.memory_swap_bytes:
        return [unsupported("memory_swap", reason, hint=hint)]
    # Without swap on the machine there is nothing to forbid; v1 can forbid it by swappiness.
    if not v1 and swap_in_use():
        return [unsupported("memory", reason, hint=hint)]
    return []
