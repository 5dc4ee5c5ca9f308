"""Limits in cgroup2 control files (Documentation/admin-guide/cgroup-v2).

Writes through a `Journal` and reads back; what the numbers mean for the receipt, `limit` says.
"""

from __future__ import annotations

import os

from execdrv.linux.cgroups.control import Journal, RefusedError, swap_in_use


def parse_bytes(text: str) -> int:
    """A number of bytes; ``max`` is the most that the kernel can count (PAGE_COUNTER_MAX)."""
    text = text.strip()
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    return (2**63 - 1) // page_bytes * page_bytes if text == "max" else int(text)


def write_memory(
    journal: Journal, path: str, *, memory_bytes: int, swap_bytes: int
) -> tuple[int, int | None]:
    """Limit memory and swap.

    Returns:
        memory and swap in force, read back; swap None where none can be used at all.

    Raises:
        OSError: the kernel refused one.
        RefusedError: swap can be neither limited nor forbidden here.
    """
    limit, swap = path + "/memory.max", path + "/memory.swap.max"
    swap_in_force = None
    if os.path.exists(swap):
        swap_in_force = parse_bytes(journal.write(swap, str(swap_bytes)))
    elif swap_bytes or swap_in_use():
        raise RefusedError("this kernel does not count swap (boot with swapaccount=1)")
    return parse_bytes(journal.write(limit, str(memory_bytes))), swap_in_force


def write_cpu(journal: Journal, path: str, *, quota_us: int, period_us: int) -> tuple[int, int]:
    """Limit processor time; returns quota and period read back (quota -1: none)."""
    quota, period = journal.write(path + "/cpu.max", f"{quota_us} {period_us}").split()
    return -1 if quota == "max" else int(quota), int(period)
