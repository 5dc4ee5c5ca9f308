"""Checks of `life`: the states of a container and the ways to its end.

lifecycle_step          its steps, and the states they are legal in
lifecycle_once          one start, one owner of a name
lifecycle_report        what is said of it
lifecycle_end           its ends
lifecycle_supervisor    its supervisor's death
"""

from __future__ import annotations

from execdrv_conformance.check import Check
from execdrv_conformance.checks import (
    lifecycle_end,
    lifecycle_once,
    lifecycle_report,
    lifecycle_step,
    lifecycle_supervisor,
)

CHECKS: tuple[Check, ...] = (
    *lifecycle_step.CHECKS,
    *lifecycle_once.CHECKS,
    *lifecycle_report.CHECKS,
    *lifecycle_end.CHECKS,
    *lifecycle_supervisor.CHECKS,
)
