"""What can be limited, and what the kernel made of it.

`Limits` is what was asked (part of the spec, and the argument of an update); `Receipt` is what
was really applied for one of its values, read back from the kernel. Pure data that validates
itself: it knows no cgroup, no file and no driver, and is used in every process.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import attrs

from execdrv.errors import SpecError

#: The largest signed 64 bit number: what the kernel's control files can take.
MAX_BYTES = 2**63 - 1
#: 1000 us (the kernel's smallest quota) in each 1 s (its longest period).
MIN_CPUS = 0.001


def _check_integer(field: str, value: object, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise SpecError(
            f"cannot limit {field} to {value!r}: it is not a whole number", field=field, value=value
        )
    if not least <= value <= MAX_BYTES:
        raise SpecError(
            f"cannot limit {field} to {value!r}: it must be between {least} and {MAX_BYTES}",
            hint=f"leave {field} out for no limit",
            field=field,
            value=value,
        )


def _check_memory(_self: Limits, _attribute: Any, value: object) -> None:
    if value is not None:
        _check_integer("memory", value, least=1)


def _check_swap(self: Limits, _attribute: Any, value: object) -> None:
    if value is None:
        return
    _check_integer("memory_swap", value, least=0)
    if self.memory_bytes is None:
        raise SpecError(
            f"cannot limit memory_swap to {value!r}: there is no memory limit",
            hint="give a memory limit too",
            field="memory_swap",
            value=value,
        )


def _check_cpus(_self: Limits, _attribute: Any, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise SpecError(
            f"cannot limit cpus to {value!r}: it is not a finite number", field="cpus", value=value
        )
    if value < MIN_CPUS:
        raise SpecError(
            f"cannot limit cpus to {value!r}: the kernel's minimum is {MIN_CPUS}",
            hint=f"ask for at least {MIN_CPUS}, or leave cpus out for no limit",
            field="cpus",
            value=value,
        )


def _check_pids(_self: Limits, _attribute: Any, value: object) -> None:
    if value is not None:
        _check_integer("pids", value, least=1)


@attrs.frozen
class Limits:
    """The resource limits of a container; None means that no limit was asked.

    Raises:
        SpecError: a value is outside its range; nothing has changed.
    """

    #: Memory of all processes together, 1 to 2**63-1; the kernel rounds it down to pages.
    memory_bytes: int | None = attrs.field(default=None, validator=_check_memory)
    #: Swap on top of `memory_bytes`, 0 to 2**63-1; None with a memory limit means no swap.
    memory_swap_bytes: int | None = attrs.field(default=None, validator=_check_swap)
    #: Processor time of all processes together, in cpus (0.5 = half of one); at least 0.001.
    cpus: float | None = attrs.field(default=None, validator=_check_cpus)
    #: Processes and threads of the job, execdrv's init not counted; at least 1.
    pids: int | None = attrs.field(default=None, validator=_check_pids)

    def names(self) -> tuple[str, ...]:
        """The names of the limits that were asked, in a fixed order."""
        values = {
            "memory": self.memory_bytes,
            "memory_swap": self.memory_swap_bytes,
            "cpus": self.cpus,
            "pids": self.pids,
        }
        return tuple(name for name, value in values.items() if value is not None)


@attrs.frozen
class Receipt:
    """What was really applied for one thing that was asked."""

    #: The limit's name: memory, memory_swap, cpus or pids.
    name: str
    #: clamped: rounded to the kernel's own unit, towards the stricter side.
    status: Literal["applied", "clamped"]
    #: What was asked, as text.
    asked: str
    #: What the kernel says now, in the unit of `asked`.
    value: str
    #: One line: the control file's own words where they differ from `value`.
    note: str = ""
