"""Control groups, v1, hybrid and v2 behind one interface.

    layout = detect_layout()                      what this process sees
    problems = check_limits(layout, limits)       everything that is missing, nothing changed
    plan = plan_group(layout, name, limits=...)   all names, as data for the record
    group = make_group(plan)                      or open_group(plan) after a crash
    allow_devices(group), apply_limits(group, limits), group.procs_fds(), group.kill(), ...
    leftovers = group.remove()

A group is one directory in each hierarchy that is needed, below the caller's own. Nothing here
knows of containers, records or drivers.
"""

from execdrv.limits import Limits, Receipt
from execdrv.linux.cgroups.check import check_limits
from execdrv.linux.cgroups.devices import (
    DEFAULT_DEVICES,
    DeviceRule,
    allow_devices,
    devices_supported,
)
from execdrv.linux.cgroups.group import Group, make_group, open_group
from execdrv.linux.cgroups.layout import (
    LEAF_NAME,
    Hierarchy,
    Layout,
    UnifiedGroup,
    detect_layout,
)
from execdrv.linux.cgroups.limit import apply_limits
from execdrv.linux.cgroups.plan import GroupDir, GroupPlan, plan_group
from execdrv.linux.cgroups.stats import GroupStats

__all__ = [
    "DEFAULT_DEVICES",
    "LEAF_NAME",
    "DeviceRule",
    "Group",
    "GroupDir",
    "GroupPlan",
    "GroupStats",
    "Hierarchy",
    "Layout",
    "Limits",
    "Receipt",
    "UnifiedGroup",
    "allow_devices",
    "apply_limits",
    "check_limits",
    "detect_layout",
    "devices_supported",
    "make_group",
    "open_group",
    "plan_group",
]
