"""Checks of `esc`: known escapes and attacks.

adversarial_job      by the job once it runs
adversarial_reach    by what it may find open or running: descriptors, programs
adversarial_setup    by what is put into the set-up: root, volume, paths
adversarial_end      on the clean-up and on the supervisor
"""

from __future__ import annotations

from execdrv_conformance.check import Check
from execdrv_conformance.checks import (
    adversarial_end,
    adversarial_job,
    adversarial_reach,
    adversarial_setup,
)

CHECKS: tuple[Check, ...] = (
    *adversarial_job.CHECKS,
    *adversarial_reach.CHECKS,
    *adversarial_setup.CHECKS,
    *adversarial_end.CHECKS,
)
