"""execdrv: one contract for running isolated commands, many drivers behind it.

Words, the same everywhere (ARCHITECTURE.md has all of them):

    container   the isolated process tree, whatever made it
    driver      a class that makes and runs containers by one mechanism
    spec        what was asked; every field UNSET until somebody asks
    guarantee   a named property that can be proven; an offer is what a driver declares of it
    receipt     what was really applied of what was asked
    supervisor  the process that owns a container and runs its driver's code

This module has names and no logic; they are imported when they are used, so that the command line
loads what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from execdrv.version import VERSION as __version__

if TYPE_CHECKING:
    from execdrv.container import Container
    from execdrv.driver import Driver, DriverRef, Exit, Refusal
    from execdrv.hookspecs import hookimpl
    from execdrv.host import Host
    from execdrv.limits import Limits, Receipt
    from execdrv.spec import UNSET, Bind, ContainerSpec, Rlimit, Tmpfs

_HOMES = {
    "Container": "execdrv.container",
    "Driver": "execdrv.driver",
    "DriverRef": "execdrv.driver",
    "Exit": "execdrv.driver",
    "Refusal": "execdrv.driver",
    "hookimpl": "execdrv.hookspecs",
    "Host": "execdrv.host",
    "Limits": "execdrv.limits",
    "Receipt": "execdrv.limits",
    "UNSET": "execdrv.spec",
    "Bind": "execdrv.spec",
    "ContainerSpec": "execdrv.spec",
    "Rlimit": "execdrv.spec",
    "Tmpfs": "execdrv.spec",
}

__all__ = [
    "UNSET",
    "Bind",
    "Container",
    "ContainerSpec",
    "Driver",
    "DriverRef",
    "Exit",
    "Host",
    "Limits",
    "Receipt",
    "Refusal",
    "Rlimit",
    "Tmpfs",
    "__version__",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'execdrv' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
