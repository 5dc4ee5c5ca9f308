"""The checks: one module a heading of the catalogue, as data with small pure judgements.

A module's `CHECKS` are its checks; `cases` has the specs that checks of several modules share.
"""

from __future__ import annotations

import functools
import importlib

from execdrv_conformance.check import Case, Check

#: In the order of the catalogue.
HEADINGS = (
    "lifecycle",
    "process",
    "stdio",
    "filesystem",
    "mount",
    "pid",
    "network",
    "ipc",
    "user",
    "device",
    "privilege",
    "memory",
    "limit",
    "control",
    "cleanup",
    "concurrent",
    "request",
    "adversarial",
)


@functools.cache
def load_checks() -> dict[str, Check]:
    """Every check by its guarantee's id.

    Raises:
        ValueError: two checks have one id, or two cases one name.
    """
    checks: dict[str, Check] = {}
    cases: dict[str, Case] = {}
    for heading in HEADINGS:
        module = importlib.import_module(f"execdrv_conformance.checks.{heading}")
        for check in module.CHECKS:
            if check.id in checks:
                raise ValueError(f"guarantee {check.id!r} has two checks")
            checks[check.id] = check
            for case in check.cases:
                if cases.setdefault(case.name, case) is not case:
                    raise ValueError(f"case {case.name!r} is defined twice")
    return checks
