"""Checks of a container's end by its supervisor's death."""

from __future__ import annotations

import contextlib
from typing import Any

from execdrv.errors import ExecdrvError
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Check
from execdrv_conformance.checks.job import (
    KINDS,
    beats_of,
    leave_kinds,
    other_caller,
    state_of,
    sweep,
)
from execdrv_conformance.checks.lifecycle_end import ENDS, Two
from execdrv_conformance.finding import Arm, Finding, holds, unfinished, violated
from execdrv_conformance.observe import process, supervisor

#: Seconds in which everything of the job must be gone.
GONE_S = 1.0


def _kill_supervisors(bench: Bench) -> Two:
    """The supervisor is killed, and then another one together with the fork server above it."""
    inside: dict[str, Any] = {}
    outside: dict[str, Any] = {}
    with bench.agent() as sibling:
        beats = leave_kinds(sibling)
        inside["supervisor"], outside["supervisor"] = _kill_above(bench, both=False)
        with other_caller(bench) as other:
            inside["both"], outside["both"] = _kill_above(other, both=True)
        now = beats_of(sibling).count()
        inside["sibling"] = all(now[kind] > beats.get(kind, 0) for kind in KINDS)
        outside["sibling"] = len(process.find_marked(sibling.agent.nonce))
        sweep(sibling.agent.nonce)
    return inside, outside


def _kill_above(bench: Bench, *, both: bool) -> Two:
    """Kill a container's supervisor (and its parent); what is left after a second, what is said."""
    look = None
    nonce = ""
    try:
        with contextlib.suppress(ExecdrvError), bench.agent() as look:
            nonce = look.agent.nonce
            inside: dict[str, Any] = {"before": leave_kinds(look)}
            tree = process.find_marked(nonce)
            owner = supervisor.find_supervisor(state_of(bench), _id_of(look))
            above = [process.parent_of(owner)] if both else []
            supervisor.kill_together([owner, *above])
            left = process.wait_ended(tree, timeout_s=GONE_S)
            marked = sorted({*left, *process.find_marked(nonce)})
            outside: dict[str, Any] = {
                "tree": len(tree),
                "left": [process.describe(pid) for pid in marked],
                "state": bench.host.get(_id_of(look)).state,
            }
            inside["late"] = beats_of(look).count_new()
            outside["removed"] = bench.host.gc().get(_id_of(look), "not found") is None
            outside["after_gc"] = len(process.find_marked(nonce))
    finally:
        if nonce:
            sweep(nonce)
    return inside, outside


def _id_of(look: Look) -> str:
    return look.container.id if look.container is not None else ""


def _judge_stopped_beats(arm: Arm) -> Finding:
    if not arm.inside.flag("sibling"):
        return unfinished("the sibling's processes fell silent too")
    open_parts = []
    for part in ("supervisor", "both"):
        facts = arm.inside.table(part)
        if set(facts["before"]) != set(KINDS):
            return unfinished(f"of {KINDS} only {sorted(facts['before'])} began to beat")
        open_parts += [part] if facts["late"] else []
    if open_parts:
        return violated(f"beats go on after the death of: {open_parts}", parts=tuple(open_parts))
    return holds("the beats stop; the sibling's go on")


def _judge_gone(arm: Arm) -> Finding:
    if arm.outside.number("sibling") < len(KINDS) + 1:
        return unfinished("the sibling's processes are gone too")
    said, open_parts = [], []
    for part in ("supervisor", "both"):
        facts = arm.outside.table(part)
        if facts["tree"] < len(KINDS) + 1:
            return unfinished(f"{part}: {facts['tree']} processes before")
        said.append(f"{part}: {len(facts['left'])} of {facts['tree']} left, {facts['state']}")
        if facts["state"] != "lost" or facts["after_gc"] or not facts["removed"]:
            return violated(f"{said[-1]}; gc left {facts['after_gc']}")
        if facts["left"]:
            open_parts.append(part)
    if open_parts:
        return violated("; ".join(said), parts=tuple(open_parts))
    return holds("; ".join(said))


CHECKS = (
    Check(
        id="life.parent-death",
        cases=(ENDS,),
        scenario=_kill_supervisors,
        inside=_judge_stopped_beats,
        outside=_judge_gone,
        likely="nothing ties the job's processes to the supervisor",
    ),
)
