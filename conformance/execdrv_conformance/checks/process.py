"""Checks of `proc`: the process, its exit and its signals.

process_command      the command: its errors, its arguments, its exit
process_given        what the job is given: variables, directory, umask
process_signal       signals, and children that have ended
process_inherited    what must not be inherited: descriptors, the caller's oom_score_adj
"""

from __future__ import annotations

from execdrv_conformance.check import Check
from execdrv_conformance.checks import (
    process_command,
    process_given,
    process_inherited,
    process_signal,
)

CHECKS: tuple[Check, ...] = (
    *process_command.CHECKS,
    *process_given.CHECKS,
    *process_signal.CHECKS,
    *process_inherited.CHECKS,
)
