"""Limits in v1 control files (Documentation/admin-guide/cgroup-v1, scheduler/sched-bwc).

Writes through a `Journal` and reads back; what the numbers mean for the receipt, `limit` says.
"""

from __future__ import annotations

import os

from execdrv.linux.cgroups.control import (
    Journal,
    RefusedError,
    read_keyed,
    read_optional,
    swap_in_use,
    write_control,
)


def write_memory(
    journal: Journal, path: str, *, memory_bytes: int, swap_bytes: int
) -> tuple[int, int | None]:
    """Limit memory, and memory and swap together.

    Returns:
        memory and swap in force, read back; swap None where none can be used at all.

    Raises:
        OSError: the kernel refused one.
        RefusedError: swap can be neither limited nor forbidden here.
    """
    limit = path + "/memory.limit_in_bytes"
    both = path + "/memory.memsw.limit_in_bytes"
    if read_keyed(path + "/memory.oom_control").get("oom_kill_disable") == 1:
        # Inherited; the job would hang at its limit in place of being killed. Not for the
        # journal: it is no limit, and its text can't be written back as it is read.
        write_control(path + "/memory.oom_control", "0")
    before = read_optional(both)
    if before is None:
        _forbid_swap(journal, path, swap_bytes)
        return int(journal.write(limit, str(memory_bytes))), None
    # Whole pages of swap, or those that begin in the memory's last page would count as one more.
    total_bytes = memory_bytes + swap_bytes - swap_bytes % os.sysconf("SC_PAGE_SIZE")
    # memsw may never be below the limit, not even between two writes.
    steps = [(limit, memory_bytes), (both, total_bytes)]
    in_force = {
        path: int(journal.write(path, str(value)))
        for path, value in (reversed(steps) if total_bytes >= int(before) else steps)
    }
    return in_force[limit], in_force[both] - in_force[limit]


def _forbid_swap(journal: Journal, path: str, swap_bytes: int) -> None:
    """Without swap accounting: no swap on the machine, or none for this group."""
    if swap_bytes:
        raise RefusedError("this kernel does not count swap (boot with swapaccount=1)")
    if swap_in_use():
        # "0 really prevents from any swapping" by a group's own limit (memory.rst, 5.3).
        said = journal.write(path + "/memory.swappiness", "0")
        if said != "0":
            raise RefusedError(f"memory.swappiness stays at {said}, and there is swap")


def write_cpu(journal: Journal, path: str, *, quota_us: int, period_us: int) -> tuple[int, int]:
    """Limit processor time; returns quota and period read back (quota -1: none)."""
    period = int(journal.write(path + "/cpu.cfs_period_us", str(period_us)))
    quota = int(journal.write(path + "/cpu.cfs_quota_us", str(quota_us)))
    return quota, period
