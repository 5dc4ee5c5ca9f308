"""Deliberately broken drivers: each has one fault, and the conformance kit must find it.

A module holds the mutants of one part of the table execdrv/guarantees/catalogue/mutant, as
classes to be named MODULE:CLASS. A fault sits where it belongs: in a driver's method, in the plan
of its walls, in the order of its job, in an init built with one change (`init`), or in the host's
classes; the last are changed in the supervisor alone, when the driver is made there (but for
`leak.LeaksSupervisorFd`, whose fault is in its caller). Not for use.
"""

from __future__ import annotations

import importlib
import inspect
import re

from execdrv.driver import Driver

MODULES = (
    "namespace",
    "filesystem",
    "process",
    "lifecycle",
    "privilege",
    "limit",
    "control",
    "leak",
    "liar",
    "more",
    "unlisted",
    "nothing",
)


def driver_name(mutant: str) -> str:
    """The name of the driver class of a mutant of the table."""
    return re.sub(r"[^a-z0-9_-]", "-", mutant.lower())


def find_mutants() -> dict[str, str]:
    """Every mutant's MODULE:CLASS by its driver's name."""
    found: dict[str, str] = {}
    for name in MODULES:
        module = importlib.import_module(f"execdrv_mutants.{name}")
        for cls in vars(module).values():
            if (
                inspect.isclass(cls)
                and issubclass(cls, Driver)
                and cls.__module__ == module.__name__
            ):
                if inspect.isabstract(cls) or cls.__name__.startswith("_"):
                    continue
                found[cls.name] = f"{module.__name__}:{cls.__name__}"
    return found
