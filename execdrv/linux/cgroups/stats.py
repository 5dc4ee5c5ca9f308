"""The numbers that the kernel keeps of a group, on v1 and v2 alike.

Read before the group is removed; a number that this kernel does not keep is None.
"""

from __future__ import annotations

import attrs

from execdrv.linux.cgroups.control import read_keyed, read_number
from execdrv.linux.cgroups.end import sub_groups
from execdrv.linux.cgroups.plan import GroupPlan


@attrs.frozen
class GroupStats:
    """What a group has used so far."""

    #: Processes killed because the group reached its memory limit.
    oom_kills: int = 0
    memory_peak_bytes: int | None = None
    cpu_usage_us: int | None = None
    #: The most processes and threads at one time, execdrv's init included.
    pids_peak: int | None = None


def read_stats(plan: GroupPlan) -> GroupStats:
    """Read a group's numbers; a group that is gone gives zero and None."""
    memory, pids = plan.dir_of("memory"), plan.dir_of("pids")
    oom_kills, peak = 0, None
    if memory is not None and memory.version == 2:
        # Counts the groups below too.
        oom_kills = read_keyed(memory.path + "/memory.events").get("oom_kill", 0)
        peak = read_number(memory.path + "/memory.peak")
    elif memory is not None:
        # v1 counts in the group of the process that was killed, and nowhere above.
        for path in (memory.path, *sub_groups(memory.path)):
            oom_kills += read_keyed(path + "/memory.oom_control").get("oom_kill", 0)
        peak = read_number(memory.path + "/memory.max_usage_in_bytes")
    return GroupStats(
        oom_kills=oom_kills,
        memory_peak_bytes=peak,
        cpu_usage_us=_read_cpu_usage(plan),
        pids_peak=read_number(pids.path + "/pids.peak") if pids is not None else None,
    )


def _read_cpu_usage(plan: GroupPlan) -> int | None:
    if plan.unified is not None:
        usage = read_keyed(plan.unified.path + "/cpu.stat").get("usage_usec")
        if usage is not None:
            return usage
    cpuacct = plan.dir_of("cpuacct")
    if cpuacct is None:
        return None
    usage_ns = read_number(cpuacct.path + "/cpuacct.usage")
    return None if usage_ns is None else usage_ns // 1000
