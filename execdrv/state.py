"""What is kept of a container: its states, their legal order, and its record.

Values only; where they lie on disk, and who may write them, is registry.py's. A record without an
exit whose lock is free is *lost*: that is computed, never written. Used by supervisors,
collectors, and (reading only) the command line.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from typing import Any, Final, Literal

import attrs

from execdrv.driver import DriverRef, Exit
from execdrv.errors import SpecError, StateError
from execdrv.init import Order
from execdrv.limits import Receipt
from execdrv.linux.cgroups import GroupPlan
from execdrv.linux.procfs import ProcessId
from execdrv.spec import NAME_PATTERN, ContainerSpec

State = Literal["creating", "created", "isolated", "ready", "running", "stopped", "destroying"]

#: Operation -> states it is legal in -> state after it. `destroy` is legal in every state.
TRANSITIONS: dict[str, dict[State, State]] = {
    "create": {"creating": "created"},
    "isolate": {"created": "isolated"},
    # Also without any limit: so that none can be forgotten between isolate and start.
    "limit": {"isolated": "ready", "ready": "ready", "running": "running"},
    "start": {"ready": "running"},
    "signal": {"running": "running"},
}

RECORD_VERSION: Final = 1


def next_state(operation: str, state: State, *, container: str) -> State:
    """The state after a legal operation.

    Raises:
        StateError: the operation is not legal in `state`.
    """
    legal = TRANSITIONS[operation]
    if state not in legal:
        allowed = ", ".join(legal)
        raise StateError(
            f"cannot {operation} container {container!r}: it is {state}, not {allowed}",
            container=container,
            operation=operation,
            state=state,
            allowed=list(legal),
        )
    return legal[state]


@attrs.frozen(kw_only=True)
class Root:
    """The root directory of a container, told apart from others of the machine."""

    #: The path as it was opened, for people.
    path: bytes
    device: int
    inode: int


@attrs.frozen(kw_only=True)
class Record:
    """What is kept of one container; each name stands here before the thing is made."""

    version: Literal[1] = RECORD_VERSION
    #: /proc/sys/kernel/random/boot_id: a record of an earlier boot is stale.
    boot_id: str
    id: str
    state: State
    driver: DriverRef
    spec: ContainerSpec
    #: Seconds since 1970.
    created_at: float
    supervisor: ProcessId
    root: Root
    #: What the init runs, every default resolved.
    process: Order
    #: The groups, by their planned paths.
    group: GroupPlan | None = None
    #: The driver's own lines.
    facts: dict[str, Any] = attrs.field(factory=dict)
    #: The process whose end is the container's end.
    init: ProcessId | None = None
    #: The job's first process.
    job: ProcessId | None = None
    receipts: tuple[Receipt, ...] = ()
    exit: Exit | None = None


@attrs.frozen(kw_only=True)
class Entry:
    """One container as `ps` sees it."""

    id: str
    #: None where the record can't be read; `problem` says why.
    record: Record | None
    #: Whether its supervisor lives.
    alive: bool
    problem: str = ""

    @property
    def state(self) -> str:
        """The state for people: that of the record, or lost, or broken."""
        if self.record is None:
            return "creating" if self.alive else "broken"
        if not self.alive and self.record.exit is None:
            return "lost"
        return self.record.state


def kernel_name(root: str, container: str) -> str:
    """A name for kernel objects of a container: short, and another one for each root and id."""
    digest = hashlib.sha256(os.fsencode(f"{root}\0{container}")).hexdigest()
    return f"execdrv-{digest[:16]}"


def read_boot_id() -> str:
    """This boot's random id (random(4))."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def check_name(name: str) -> str:
    """A container id.

    Raises:
        SpecError: it does not match NAME_PATTERN.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise SpecError(
            f"cannot use name {name!r}: must match {NAME_PATTERN}", field="name", value=repr(name)
        )
    return name


def new_id() -> str:
    """A fresh container id: 12 characters of [a-z0-9], by chance."""
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
    # A letter first, so that it can also be a host name anywhere; 36**11 ids are enough.
    return "".join(alphabet[byte % (26 if i == 0 else 36)] for i, byte in enumerate(os.urandom(12)))


def now() -> float:
    """Seconds since 1970, to the millisecond."""
    return round(time.time(), 3)
