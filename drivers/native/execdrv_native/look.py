"""This look has moved to execdrv.linux.target."""

from __future__ import annotations

from collections.abc import Sequence

from execdrv.driver import Refusal
from execdrv.linux.mounts import MountStep
from execdrv.linux.target import find_problems


def find_refusals(
    steps: Sequence[MountStep], *, root: int, sources: Sequence[int], root_is_own: bool
) -> list[Refusal]:
    problems = find_problems(steps, root=root, sources=sources, root_is_own=root_is_own)
    return [Refusal(message=p.message, hint=p.hint, field=p.field) for p in problems]


__all__ = ["find_refusals"]
