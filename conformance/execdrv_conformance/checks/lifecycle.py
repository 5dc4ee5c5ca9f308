"""Checks of life: the states of a container and the ways to its end."""

from __future__ import annotations

from execdrv_conformance.check import Check

CHECKS: tuple[Check, ...] = ()
