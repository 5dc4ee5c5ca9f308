"""Checks of cpu, pids, io (bandwidth) and rlim: the other limits."""

from __future__ import annotations

from execdrv_conformance.check import Check

CHECKS: tuple[Check, ...] = ()
