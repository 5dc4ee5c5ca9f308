"""Checks of `esc`: known escapes and attacks.

adversarial_knob         by the job once it runs: on settings, release agents, handles
adversarial_namespace    by the job once it runs: on namespaces, on a process that joins
adversarial_state        by the job once it runs: on the state of execdrv
adversarial_reach        by what it may find open or running: descriptors, programs
adversarial_setup        by what is put into the set-up: root, volume, paths
adversarial_end          on the clean-up and on the supervisor
"""

from __future__ import annotations

from execdrv_conformance.check import Check
from execdrv_conformance.checks import (
    adversarial_end,
    adversarial_knob,
    adversarial_namespace,
    adversarial_reach,
    adversarial_setup,
    adversarial_state,
)

CHECKS: tuple[Check, ...] = (
    *adversarial_knob.CHECKS,
    *adversarial_namespace.CHECKS,
    *adversarial_state.CHECKS,
    *adversarial_reach.CHECKS,
    *adversarial_setup.CHECKS,
    *adversarial_end.CHECKS,
)
