"""Ways to change one thing, for the mutants: of a module, of the walls, of the order, of the init.

Called from a mutant's `__init__`, which runs in a supervisor or a collector: each has one driver
and its own memory, so nothing else sees the change. (One mutant changes its caller, the kit's
worker, which is its own.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import attrs

from execdrv.driver import Box
from execdrv.init import Order
from execdrv.linux.cgroups import Group
from execdrv_native import driver as native
from execdrv_native.child import Walls

ChangeWalls = Callable[[Walls, Box, contextlib.ExitStack], Walls]


def change(owner: object, **values: Any) -> None:
    """Replace attributes of a module or class.

    Raises:
        AttributeError: there is none of that name (the host was rewritten: so must the mutant be).
    """
    for name, value in values.items():
        getattr(owner, name)
        setattr(owner, name, value)


def change_walls(make: ChangeWalls) -> None:
    """Change what the native driver's child will build."""
    prepare = native._prepare_walls

    def prepare_changed(box: Box, group: Group, opened: contextlib.ExitStack) -> Walls:
        return make(prepare(box, group, opened), box, opened)

    change(native, _prepare_walls=prepare_changed)


def with_order(box: Box, **changes: Any) -> Box:
    """A box whose job is told something else."""
    order: Order = attrs.evolve(box.process, **changes)
    return attrs.evolve(box, process=order)


def is_agent(box: Box) -> bool:
    """Whether the command is the kit's agent, which takes its program on standard input."""
    return b"'agent'" in b" ".join(box.process.argv)
