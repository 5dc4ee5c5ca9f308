"""Checks of ipc and uts: objects of the kernel, host names."""

from __future__ import annotations

from execdrv_conformance.check import Check

CHECKS: tuple[Check, ...] = ()
