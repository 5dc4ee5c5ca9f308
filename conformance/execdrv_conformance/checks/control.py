"""Checks of upd, pause and stat: changes and numbers of a running container."""

from __future__ import annotations

from execdrv_conformance.check import Check

CHECKS: tuple[Check, ...] = ()
