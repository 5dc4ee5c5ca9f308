"""Checks of `conc`.

concurrent_job       many containers at once
concurrent_thread    many threads of the caller, and operations that race
"""

from __future__ import annotations

from execdrv_conformance.check import Check
from execdrv_conformance.checks import concurrent_job, concurrent_thread

CHECKS: tuple[Check, ...] = (*concurrent_job.CHECKS, *concurrent_thread.CHECKS)
