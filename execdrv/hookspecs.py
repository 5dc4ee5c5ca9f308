"""Markers and every hook of execdrv (pluggy).

`execdrv_drivers` is how a plugin brings drivers. Each operation of the contract is one firstresult
hook whose only plain implementation is the host's own dispatcher, which has the selected driver's
method called in the container's supervisor; plugins implement these as wrappers only
(`@hookimpl(wrapper=True)`), to audit, trace or forbid. A wrapper may raise; it may neither replace
a result nor turn a failure into success, and `destroy` can't be forbidden. Hooks run in the
caller's process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

from execdrv.driver import Driver, Isolated
from execdrv.limits import Limits, Receipt
from execdrv.linux.procfs import ProcessId

if TYPE_CHECKING:
    from execdrv.container import Container

PROJECT = "execdrv"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

#: Hooks of operations; only wrappers may be added to them.
OPERATIONS = ("create", "isolate", "limit", "start", "signal", "destroy")


@hookspec
def execdrv_drivers() -> Sequence[type[Driver]]:  # type: ignore[empty-body]
    """The driver classes this plugin brings; each is named as its entry point."""


@hookspec(firstresult=True)
def execdrv_create(container: Container) -> bool:  # type: ignore[empty-body]
    """Identity, record, directory and group exist afterwards; nothing runs, nothing is mounted."""


@hookspec(firstresult=True)
def execdrv_isolate(container: Container) -> Isolated:  # type: ignore[empty-body]
    """The walls exist afterwards and the init waits at its gate."""


@hookspec(firstresult=True)
def execdrv_limit(container: Container, limits: Limits) -> Sequence[Receipt]:  # type: ignore[empty-body]
    """The limits are in force afterwards; one receipt each."""


@hookspec(firstresult=True)
def execdrv_start(container: Container) -> ProcessId:  # type: ignore[empty-body]
    """The command runs afterwards."""


@hookspec(firstresult=True)
def execdrv_signal(container: Container, signum: int) -> bool:  # type: ignore[empty-body]
    """The signal has been sent to the job."""


@hookspec(firstresult=True)
def execdrv_destroy(container: Container) -> bool:  # type: ignore[empty-body]
    """Nothing of the container is left."""
