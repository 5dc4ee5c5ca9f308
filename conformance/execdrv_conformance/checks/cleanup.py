"""Checks of what is left: after the end (`leak`), and after a crash (`crash`)."""

from __future__ import annotations

from execdrv_conformance.check import Check
from execdrv_conformance.checks.crash import CRASH_CHECKS
from execdrv_conformance.checks.leak import LEAK_CHECKS

CHECKS: tuple[Check, ...] = (*LEAK_CHECKS, *CRASH_CHECKS)
