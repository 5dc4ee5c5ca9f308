"""Checks of life: the states of a container and the ways to its end."""

from __future__ import annotations

from execdrv_conformance.check import Check
from execdrv_conformance.checks.lifecycle_end import END_CHECKS
from execdrv_conformance.checks.lifecycle_report import REPORT_CHECKS
from execdrv_conformance.checks.lifecycle_step import STEP_CHECKS

CHECKS: tuple[Check, ...] = (*STEP_CHECKS, *REPORT_CHECKS, *END_CHECKS)
