"""Judgements of checks that no driver here makes say both: by facts alone."""

from __future__ import annotations

from typing import Any

import pytest

from execdrv_conformance.checks import load_checks
from execdrv_conformance.finding import Arm, Facts, find


def judge(id: str, *, inside: dict[str, Any], outside: dict[str, Any]) -> tuple[str, str]:
    check = load_checks()[id]
    nothing = Facts({})
    arm = Arm(
        name="driver",
        inside=Facts(inside),
        outside=Facts(outside),
        asked=nothing,
        canaries=nothing,
        defaults=nothing,
    )
    return find(check.inside, arm, "").state, find(check.outside, arm, "").state


@pytest.mark.parametrize(
    ("told_s", "done", "alive", "reason", "states"),
    [
        (0.3, False, False, "cpu", ("holds", "holds")),
        # Ended, and the result does not say why.
        (0.3, False, False, "signaled", ("holds", "violated")),
        (0.3, False, False, None, ("holds", "violated")),
        (0.4, True, True, None, ("violated", "violated")),
        # Silent, and alive: nobody has ended it.
        (0.3, False, True, None, ("holds", "violated")),
        (0.0, False, False, "cpu", ("unfinished", "holds")),
    ],
)
def test_a_budget_of_cpu_seconds(
    told_s: float, done: bool, alive: bool, reason: str | None, states: tuple[str, str]
) -> None:
    inside = {"told_s": told_s, "done": done}
    outside = {"spent_s": 0.4, "alive": alive, "reason": reason}
    assert judge("cpu.seconds", inside=inside, outside=outside) == states


DEATH = {"before": 4, "helpers": 2, "number": 1, "links": ["pid:[2]"], "caller": "pid:[1]"}


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({"left": []}, "holds"),
        ({"left": [7]}, "violated"),
        # All gone, but not by the kernel: no pid namespace, or not its pid 1.
        ({"left": [], "links": ["pid:[1]"]}, "violated"),
        ({"left": [], "links": ["pid:[2]", "pid:[3]"]}, "violated"),
        ({"left": [], "number": 5}, "violated"),
        ({"left": [], "before": 1}, "unfinished"),
        # Somebody may have helped.
        ({"left": [], "helpers": 0}, "unfinished"),
    ],
)
def test_the_end_of_pid_1(facts: dict[str, Any], state: str) -> None:
    assert judge("pid.ns-death", inside={}, outside={**DEATH, **facts}) == ("nothing", state)
