"""Checks of user, cg and time: users, the job's own group, clocks."""

from __future__ import annotations

from execdrv_conformance.check import Check

CHECKS: tuple[Check, ...] = ()
