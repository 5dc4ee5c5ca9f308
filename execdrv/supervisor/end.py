"""How a container ended: what the job's status, the host's reason and the numbers mean together.

Pure: the supervisor has ended the tree and read everything before it asks here.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

from execdrv.driver import Exit, ExitReason
from execdrv.init.protocol import Exited
from execdrv.linux.cgroups import GroupStats


def make_exit(
    reason: ExitReason | None,
    *,
    status: tuple[int | None, int | None],
    exited: Exited | None,
    stats: GroupStats | None,
    output: Mapping[str, bytes],
    truncated: bool,
    duration_s: float,
) -> Exit:
    """The Exit of a container whose command ran.

    Args:
        reason: why the host ended it; None: it ended by itself.
        status: code and signal of the job; both None: nobody could tell.
        exited: what the init said of the job's end.
        stats: the group's numbers, read before the tree ended.
        output: what was kept of stdout and of stderr.
        truncated: whether more was written than kept.
        duration_s: seconds since the command started.
    """
    oom_kills = stats.oom_kills if stats is not None else 0
    code, signum, reason = judge(reason, exited=status, oom_kills=oom_kills)
    cpu = stats.cpu_usage_us if stats is not None else None
    if cpu is None and exited is not None:
        cpu = exited.utime_us + exited.stime_us
    return Exit(
        code=code,
        signal=signum,
        reason=reason,
        started=True,
        oom_kills=oom_kills,
        memory_peak_bytes=stats.memory_peak_bytes if stats is not None else None,
        cpu_usage_us=cpu,
        stdout=output.get("stdout", b""),
        stderr=output.get("stderr", b""),
        truncated=truncated,
        duration_s=round(duration_s, 6),
    )


def judge(
    reason: ExitReason | None, *, exited: tuple[int | None, int | None], oom_kills: int
) -> tuple[int | None, int | None, ExitReason]:
    """Code, signal and reason of an end.

    Args:
        reason: why the host ended it; None: it ended by itself.
        exited: code and signal of the job; both None: nobody could tell.
        oom_kills: processes killed for memory.
    """
    code, signum = exited
    if reason is not None:
        return None, signal.SIGKILL, reason
    if code is not None:
        return code, None, "exited"
    if oom_kills and signum in (None, signal.SIGKILL):
        # None: the kernel ended the init itself.
        return None, signal.SIGKILL, "oom"
    return (None, signum, "signaled") if signum is not None else (None, None, "lost")


def split_status(status: int) -> tuple[int | None, int | None]:
    """Code and signal of a raw wait status (wait(2))."""
    if os.WIFSIGNALED(status):
        return None, os.WTERMSIG(status)
    return os.WEXITSTATUS(status), None
