"""Checks of `proc`: what the caller has and the job must not get by inheritance."""

from __future__ import annotations

import contextlib
from pathlib import Path

from execdrv_conformance.agent import AgentError
from execdrv_conformance.bench import Bench
from execdrv_conformance.check import Check, Gathered
from execdrv_conformance.checks.process_command import PROCESS
from execdrv_conformance.checks.process_given import start_facts
from execdrv_conformance.finding import Arm, Finding, expect, holds, violated
from execdrv_conformance.standin.furnish import CALLER_OOM_SCORE_ADJ


def _judge_descriptors(numbers: list[int], arm: Arm) -> Finding:
    passed = arm.outside["passed"]
    wanted = {0, 1, 2} if passed is None else {0, 1, 2, passed}
    more, less = sorted(set(numbers) - wanted), sorted(wanted - set(numbers))
    if more or less:
        return violated(f"open beside what was passed: {more}; not open: {less}")
    return holds(f"{sorted(numbers)}")


def _judge_descriptors_inside(arm: Arm) -> Finding:
    table = arm.inside.table("descriptors")
    found = _judge_descriptors([int(number) for number in table], arm)
    passed = arm.outside["passed"]
    if found.state == "holds" and passed is not None:
        same = table[str(passed)] == arm.outside.listed("passed_file")
        return found if same else violated(f"{passed} leads to another file")
    return found


def _oom_score(bench: Bench) -> Gathered:
    with bench.agent() as look:
        path = Path(f"/proc/{look.pid}/oom_score_adj")
        began = int(path.read_text())
        with contextlib.suppress(AgentError):
            look.agent.call("process:lower_oom_score", {"value": began - 10})
        return None, {"began": began, "lowered": int(path.read_text()) < began}


def _judge_oom_score(arm: Arm) -> Finding:
    # No field asks for a value yet, so all that can be told is whether it is the caller's.
    began, lowered = arm.outside.number("began"), arm.outside.flag("lowered")
    kept = began == CALLER_OOM_SCORE_ADJ
    saw = f"{began}, {'the caller`s' if kept else 'its own'}, lowered: {lowered}"
    return expect(not kept and not lowered, saw)


CHECKS = (
    Check(
        id="proc.fds-closed",
        cases=(PROCESS,),
        scenario=start_facts,
        inside=_judge_descriptors_inside,
        outside=lambda arm: _judge_descriptors(
            [int(number) for number in arm.outside.table("descriptors")], arm
        ),
        likely="descriptors are inherited; close_range is missing before exec",
    ),
    Check(
        id="proc.oom-adj",
        cases=(PROCESS,),
        scenario=_oom_score,
        inside=None,
        outside=_judge_oom_score,
        likely="the value of the caller is inherited",
    ),
)
