"""Checks of `fs`: the root file system.

filesystem_escape    the job can't leave it
filesystem_write     what it may write, who else sees it, and how much
filesystem_owner     setuid files, and owners
filesystem_kernel    what it shows of the kernel
"""

from __future__ import annotations

from execdrv_conformance.check import Check
from execdrv_conformance.checks import (
    filesystem_escape,
    filesystem_kernel,
    filesystem_owner,
    filesystem_write,
)

CHECKS: tuple[Check, ...] = (
    *filesystem_escape.CHECKS,
    *filesystem_write.CHECKS,
    *filesystem_owner.CHECKS,
    *filesystem_kernel.CHECKS,
)
