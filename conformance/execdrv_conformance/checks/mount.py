"""Checks of mnt: mounts, binds and propagation."""

from __future__ import annotations

from execdrv_conformance.check import Check

CHECKS: tuple[Check, ...] = ()
