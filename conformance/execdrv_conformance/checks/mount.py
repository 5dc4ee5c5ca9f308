"""Checks of `mnt`: what the job sees mounted, and what it can change of it.

mount_namespace    the namespace, and what passes between it and the machine
mount_guarded      flags, masks and the old root
mount_asked        binds and tmpfs
"""

from __future__ import annotations

from execdrv_conformance.check import Check
from execdrv_conformance.checks import mount_asked, mount_guarded, mount_namespace

CHECKS: tuple[Check, ...] = (
    *mount_namespace.CHECKS,
    *mount_guarded.CHECKS,
    *mount_asked.CHECKS,
)
