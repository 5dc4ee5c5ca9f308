"""Checks of mem: memory limits."""

from __future__ import annotations

from execdrv_conformance.check import Check

CHECKS: tuple[Check, ...] = ()
