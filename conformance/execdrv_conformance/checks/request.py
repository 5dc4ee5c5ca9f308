"""Checks of bad: requests that can't be right."""

from __future__ import annotations

from execdrv_conformance.check import Check

CHECKS: tuple[Check, ...] = ()
