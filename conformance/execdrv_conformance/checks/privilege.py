"""Checks of cap, sec and lsm: capabilities, filters, labels."""

from __future__ import annotations

from execdrv_conformance.check import Check

CHECKS: tuple[Check, ...] = ()
