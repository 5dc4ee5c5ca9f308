"""Limits in v1 control files (Documentation/admin-guide/cgroup-v1, scheduler/sched-bwc).

Writes through a `Journal` and reads back; what the numbers mean for the receipt, `limit` says.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from execdrv.linux.cgroups.control import (
    Journal,
    RefusedError,
    read_control,
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


def inherit_cpuset(path: str) -> None:
    """Give a new group the processors and memory nodes of the one above, where it has none.

    No process can enter a cpuset group before that (cpusets.rst, 2.1).

    Raises:
        OSError: the kernel refused.
    """
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (read_optional(f"{path}/{name}") or "-").strip() == "":
            above = read_optional(f"{os.path.dirname(path)}/{name}")
            write_control(f"{path}/{name}", above or "")


def include_subgroups(path: str) -> None:
    """Before Linux 5.11 a memory limit binds the groups below only if this says 1.

    It can't be written any more once there are such groups.
    """
    switch = path + "/memory.use_hierarchy"
    if (read_optional(switch) or "1").strip() == "0":
        with contextlib.suppress(OSError):
            write_control(switch, "1")


def list_devices(path: str) -> None:
    """Turn a group that may use every device into one with a list of what it may use: all.

    The kernel makes that change only while there is no group below (devices.rst, 4).

    Raises:
        OSError: EPERM where a group above denies some.
    """
    if "a *:* rwm" in read_control(path + "/devices.list"):
        write_control(path + "/devices.deny", "a")
        _write_rules(path + "/devices.allow", ("c *:* rwm", "b *:* rwm"))


def replace_devices(path: str, job: str, rules: Sequence[str]) -> None:
    """Replace the list of devices that a group, and the one below it, may use.

    Raises:
        OSError: the kernel refused a rule; the list may be shorter than asked, never longer.
    """
    old = read_control(path + "/devices.list").splitlines()
    # What is taken from a group is taken from those below it too; what is given is not.
    _write_rules(path + "/devices.deny", old)
    _write_rules(path + "/devices.allow", rules)
    _write_rules(job + "/devices.allow", rules)


def _write_rules(path: str, rules: Sequence[str]) -> None:
    """One rule a write, as these files take them."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for rule in rules:
            os.write(descriptor, rule.encode())
    finally:
        os.close(descriptor)
