"""Checks of cpu, pids, io (bandwidth) and rlim: the other limits.

limit_cpu            cpu time
limit_task           processes and threads
limit_disk           bandwidth of block devices
limit_resource       resource limits of a process

Each has an arm just under and one just over.
"""

from __future__ import annotations

from execdrv_conformance.check import Check
from execdrv_conformance.checks import limit_cpu, limit_disk, limit_resource, limit_task

CHECKS: tuple[Check, ...] = (
    *limit_cpu.CHECKS,
    *limit_task.CHECKS,
    *limit_disk.CHECKS,
    *limit_resource.CHECKS,
)
