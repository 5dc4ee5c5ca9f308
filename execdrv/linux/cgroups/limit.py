"""Limits of a group: applied together, read back from the kernel, one receipt each.

One interface over v1 and v2. All or nothing: when one is refused, every file says again what it
said before. Rounding is towards the stricter side and shows as `clamped`; a kernel that made it
laxer than asked is an error. Runs in the supervisor.
"""

from __future__ import annotations

import errno
import math

from execdrv.errors import LimitError
from execdrv.limits import Limits, Receipt
from execdrv.linux.cgroups import v1, v2
from execdrv.linux.cgroups.control import Journal, RefusedError
from execdrv.linux.cgroups.group import Group
from execdrv.linux.cgroups.plan import BEHIND, GroupDir

#: The kernel's default, and its bounds (kernel/sched/core.c, tg_set_cfs_bandwidth).
_PERIOD_US, _LONGEST_PERIOD_US = 100_000, 1_000_000
_LEAST_QUOTA_US, _MOST_QUOTA_US = 1_000, 2**44 - 1
#: A float that means a whole number of microseconds misses it by less than this.
_TOLERANCE_US = 1e-6


def plan_cpu_quota(cpus: float) -> tuple[int, int]:
    """Quota and period in microseconds for a number of cpus (at least 0.001).

    The period is 100 ms, and longer, up to 1 s, where the quota would be below the kernel's
    minimum of 1 ms. The quota is rounded down, and never above the kernel's largest.
    """
    period_us = _PERIOD_US
    if cpus * period_us + _TOLERANCE_US < _LEAST_QUOTA_US:
        period_us = min(math.ceil(_LEAST_QUOTA_US / cpus), _LONGEST_PERIOD_US)
    return int(min(cpus * period_us + _TOLERANCE_US, _MOST_QUOTA_US)), period_us


def apply_limits(group: Group, limits: Limits) -> list[Receipt]:
    """Put limits in force; again on a running group to change them.

    A limit that is None here is left as it is.

    Args:
        group: a made group, planned for these limits.
        limits: what was asked; with a memory limit and no swap given, no swap may be used.

    Returns:
        One receipt for each limit that was given, in the order memory, memory_swap, cpus, pids.

    Raises:
        LimitError: one was refused, or is laxer than asked; no limit has changed. `receipts`
            are those that had been applied until then.
    """
    journal = Journal()
    receipts: list[Receipt] = []
    if limits.memory_bytes is not None:
        receipts += _apply(group, journal, receipts, "memory", limits)
    if limits.cpus is not None:
        receipts += _apply(group, journal, receipts, "cpus", limits)
    if limits.pids is not None:
        receipts += _apply(group, journal, receipts, "pids", limits)
    return receipts


def _apply(
    group: Group, journal: Journal, before: list[Receipt], name: str, limits: Limits
) -> list[Receipt]:
    """Apply one limit; when it fails, take back all that the journal holds."""
    directory = group.plan.dir_of(BEHIND[name][0])
    steps = {"memory": _apply_memory, "cpus": _apply_cpus, "pids": _apply_pids}
    hint = ""
    try:
        if directory is None:
            hint = "ask for this limit when the container is created"
            raise RefusedError(f"its cgroup was made without the controller {BEHIND[name][0]!r}")
        return steps[name](journal, directory, limits)
    except (OSError, RefusedError) as error:
        lost = journal.roll_back()
        number = error.errno if isinstance(error, OSError) else None
        reason = str(error)
        if isinstance(error, OSError):
            reason = f"{error.strerror} ({error.filename!r})"
            hint = _hint(error.errno, name)
        if lost:
            reason += f"; {lost[0]!r} could not be set back"
        asked = {"memory": limits.memory_bytes, "cpus": limits.cpus, "pids": limits.pids}[name]
        raise LimitError(
            f"cannot limit {name} of cgroup {group.plan.name!r} to {asked}: {reason}",
            hint=hint,
            errno=number,
            receipts=list(before),
        ) from error


def _hint(number: int | None, name: str) -> str:
    if number in (errno.ENOENT, errno.ENODEV):
        return "its cgroup is gone: has something removed it?"
    if name == "memory" and number == errno.EBUSY:
        return "it uses more than that already, and nothing of it can be reclaimed"
    if name == "pids":
        return "the kernel's largest value is 4194303"
    if name == "cpus":
        return "a cgroup above may allow less: see its cpu.cfs_quota_us"
    return ""


def _apply_memory(journal: Journal, directory: GroupDir, limits: Limits) -> list[Receipt]:
    asked, swap_asked = limits.memory_bytes or 0, limits.memory_swap_bytes
    write = v1.write_memory if directory.version == 1 else v2.write_memory
    memory_bytes, swap_bytes = write(
        journal, directory.path, memory_bytes=asked, swap_bytes=swap_asked or 0
    )
    unusable = "this machine has no swap that it could use" if swap_bytes is None else ""
    swap = _round_down("memory_swap", swap_asked or 0, swap_bytes or 0, note=unusable)
    if swap_asked is None:
        return [_round_down("memory", asked, memory_bytes, note="no swap")]
    return [_round_down("memory", asked, memory_bytes), swap]


def _round_down(name: str, asked: int, value: int, *, note: str = "") -> Receipt:
    if value > asked:
        raise RefusedError(f"the kernel says {value} for {name}, which is more")
    status = "applied" if value == asked else "clamped"
    if status == "clamped":
        note = ", ".join(filter(None, (note, "whole pages")))
    return Receipt(
        name=name,
        status="applied" if value == asked else "clamped",
        asked=str(asked),
        value=str(value),
        note=note,
    )


def _apply_cpus(journal: Journal, directory: GroupDir, limits: Limits) -> list[Receipt]:
    cpus = limits.cpus or 0.0
    write = v1.write_cpu if directory.version == 1 else v2.write_cpu
    quota_us, period_us = plan_cpu_quota(cpus)
    quota_us, period_us = write(journal, directory.path, quota_us=quota_us, period_us=period_us)
    asked_us = cpus * period_us
    if quota_us < 0 or quota_us > asked_us + _TOLERANCE_US:
        raise RefusedError(f"the kernel says {quota_us} us in each {period_us} us")
    return [
        Receipt(
            name="cpus",
            status="applied" if asked_us - quota_us <= _TOLERANCE_US else "clamped",
            asked=repr(cpus),
            value=repr(quota_us / period_us),
            note=f"{quota_us} us in each {period_us} us",
        )
    ]


def _apply_pids(journal: Journal, directory: GroupDir, limits: Limits) -> list[Receipt]:
    asked = limits.pids or 0
    # Our init is in the group too, and never forks again once the job runs.
    control = directory.path + "/pids.max"
    text = journal.write(control, str(asked + 1))
    if text != str(asked + 1):
        raise RefusedError(f"the kernel says {text} in {control!r}")
    return [
        Receipt(
            name="pids",
            status="applied",
            asked=str(asked),
            value=str(int(text) - 1),
            note=f"pids.max is {text}: execdrv's init counts as one",
        )
    ]
