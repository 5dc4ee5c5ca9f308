"""Checks of what is left: after the end (`leak`), and after a crash (`crash`)."""

from __future__ import annotations

from execdrv_conformance.check import Check
from execdrv_conformance.checks import crash, leak, leak_failure

CHECKS: tuple[Check, ...] = (
    *leak.CHECKS,
    *leak_failure.CHECKS,
    *crash.CHECKS,
)
