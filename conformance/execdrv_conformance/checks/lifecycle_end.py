"""Checks of a container's ends: how each comes about, and what is gone with it."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from execdrv.errors import ExecdrvError
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check
from execdrv_conformance.checks.job import (
    BEAT,
    KINDS,
    Beats,
    attempt,
    beats_of,
    leave_kinds,
    state_of,
    sweep,
    warm_up,
)
from execdrv_conformance.finding import Arm, Finding, expect, unfinished, violated
from execdrv_conformance.observe import group, process
from execdrv_conformance.observe.snapshot import wait_for_rest

ENDS = Case(name="ends", budget_s=90.0)

Two = tuple[dict[str, Any], dict[str, Any]]

# --- the grace time ----------------------------------------------------------------------------

#: Seconds of grace, and by how much an end may come later.
GRACE_S = 0.5
LATE_S = 1.5
#: Says when it hears SIGTERM; then goes on, or ends.
_POLITE = (
    "import os,signal,sys,time\n"
    "def hear(*_):\n"
    "    os.write(1, b'TERM\\n')\n"
    "    if sys.argv[1] == 'ends': os._exit(0)\n"
    "if sys.argv[1] != 'plain': signal.signal(signal.SIGTERM, hear)\n"
    "os.write(1, b'ready\\n')\n"
    "while True: time.sleep(60)\n"
)
#: What each job does, and how long after the call it may end, at least and at most.
WINDOWS = {"stays": (GRACE_S, GRACE_S + LATE_S), "ends": (0.0, GRACE_S), "plain": (0.0, GRACE_S)}


def _stop_politely(bench: Bench) -> Two:
    """The most polite end that a container has: `stop` where there is one, else `destroy`."""
    heard: dict[str, int] = {}
    took: dict[str, float] = {}
    call = ""
    for kind in WINDOWS:
        nonce = bench.nonce()
        file = bench.directory("stop") / "said"
        with open(file, "wb") as out:
            box = bench.start(bench.python(_POLITE, kind, nonce), stdout=out, stderr=None)
            try:
                beats = Beats(file)
                beats.wait_for(("ready",))
                job = process.find_marked(nonce)
                begun = time.monotonic()
                stop: Callable[[float], Any] | None = getattr(box, "stop", None)
                call = "destroy" if stop is None else "stop"
                attempt(box.destroy if stop is None else functools.partial(stop, GRACE_S))
                process.wait_ended(job, timeout_s=GRACE_S + LATE_S + 1)
                took[kind] = round(time.monotonic() - begun, 3)
                heard[kind] = beats.count().get("TERM", 0)
            finally:
                attempt(box.destroy)
                sweep(nonce)
    return {"call": call, "heard": heard}, {"call": call, "took": took}


def _judge_heard(arm: Arm) -> Finding:
    heard = arm.inside.table("heard")
    saw = f"{arm.inside.text('call')}: SIGTERM heard {heard['stays']} and {heard['ends']} times"
    return expect(heard["stays"] == heard["ends"] == 1, saw)


def _judge_grace(arm: Arm) -> Finding:
    took = arm.outside.table("took")
    wrong = [
        f"{kind} after {took[kind]:g} s"
        for kind, (least, most) in WINDOWS.items()
        if not least <= took[kind] <= most
    ]
    call = arm.outside.text("call")
    return expect(not wrong, f"{call}: ended {', '.join(wrong) or took}; grace was {GRACE_S:g} s")


# --- the whole tree ----------------------------------------------------------------------------


def _kill_tree(bench: Bench) -> Two:
    """Processes of five kinds; the container is destroyed, or its job ends by itself."""
    warm_up(bench)
    ends: dict[str, Callable[[Look], None]] = {
        "destroy": _destroy,
        "exit": _end_leader,
    }
    before: dict[str, dict[str, int]] = {}
    late: dict[str, dict[str, int]] = {}
    trees: dict[str, int] = {}
    left: dict[str, list[str]] = {}
    for name, end in ends.items():
        nonce = ""
        try:
            with bench.agent() as look:
                nonce = look.agent.nonce
                before[name] = leave_kinds(look)
                tree = process.find_marked(nonce)
                groups = _groups_of(look.pid)
                trees[name] = len(tree)
                with contextlib.suppress(ExecdrvError, TimeoutError):
                    end(look)
                remaining = process.wait_ended(tree, timeout_s=1.0)
                marked = {*remaining, *process.find_marked(nonce), *_members(groups)}
                left[name] = [process.describe(pid) for pid in sorted(marked)]
                late[name] = beats_of(look).count_new()
                sweep(nonce)
        except ExecdrvError as error:
            # A destroy that says what it has left has left it.
            left.setdefault(name, []).append(str(error))
        finally:
            if nonce:
                sweep(nonce)
    return {"before": before, "late": late}, {"trees": trees, "left": left}


def _destroy(look: Look) -> None:
    if look.container is not None:
        look.container.destroy()


def _end_leader(look: Look) -> None:
    """The job's first process ends; the container with it."""
    look.agent.close()
    if look.container is not None:
        look.container.wait(timeout_s=3.0)


def _groups_of(pid: int) -> list[str]:
    """Directories of a process's groups that are not this process's."""
    found = []
    for controller in group.list_hierarchies():
        directory = group.bounds_of(pid, controller)
        if directory is not None and directory != group.directory_of(os.getpid(), controller):
            found.append(directory)
    return found


def _members(groups: list[str]) -> set[int]:
    return {pid for directory in groups for pid in group.list_members(directory)}


def _judge_beats(arm: Arm) -> Finding:
    for name, counts in arm.inside.table("before").items():
        if set(counts) != set(KINDS):
            return unfinished(f"{name}: of {KINDS} only {sorted(counts)} began to beat")
    late = {name: sorted(counts) for name, counts in arm.inside.table("late").items() if counts}
    return expect(not late, f"beating after the end: {late}" if late else "all five fell silent")


def _judge_tree(arm: Arm) -> Finding:
    trees = arm.outside.table("trees")
    if any(count < len(KINDS) + 1 for count in trees.values()):
        return unfinished(f"processes before the end: {trees}")
    left = {name: lines for name, lines in arm.outside.table("left").items() if lines}
    return expect(not left, f"left: {left}" if left else f"{trees} processes, none left")


# --- the deadline ------------------------------------------------------------------------------

TIMEOUT_S = 0.5
WINDOW_S = 1.0
LONGER_S = 20.0


def _run_out(bench: Bench) -> Two:
    """A job that takes longer than its timeout, and one that does not."""
    inside: dict[str, Any] = {}
    nonce = bench.nonce()
    file = bench.directory("deadline") / "said"
    fields = bench.adapt({"timeout": TIMEOUT_S})
    bench.asked = dict(fields)
    with open(file, "wb") as out:
        box = bench.start(bench.python(BEAT, nonce), stdout=out, stderr=None, **fields)
        begun = time.monotonic()
        try:
            beats = Beats(file)
            inside["before"] = beats.wait_for(("beat",)).get("beat", 0)
            job = process.find_marked(nonce)
            left = process.wait_ended(job, timeout_s=TIMEOUT_S + WINDOW_S)
            took = round(time.monotonic() - begun, 3)
            inside["late"] = beats.count_new().get("beat", 0)
            inside["all"] = beats.count().get("beat", 0)
            reason = _reason_of(box) if not left else "none"
        finally:
            attempt(box.destroy)
            sweep(nonce)
    control = bench.run(
        bench.python("import time; time.sleep(0.1)"), **bench.adapt({"timeout": LONGER_S})
    )
    outside = {
        "took": took,
        "left": left,
        "reason": reason,
        "control": [control.reason, control.code],
    }
    inside["reason"] = reason
    return inside, outside


def _reason_of(box: Any) -> str:
    try:
        return str(box.wait(timeout_s=2.0).reason)
    except (ExecdrvError, TimeoutError) as error:
        return type(error).__name__


def _judge_silence(arm: Arm) -> Finding:
    before, late = arm.inside.number("before"), arm.inside.number("late")
    if not before:
        return unfinished("the job never beat")
    saw = f"{arm.inside.number('all')} beats; {late} when its time was up"
    return expect(late == 0 and arm.inside.text("reason") == "timeout", saw)


def _judge_deadline(arm: Arm) -> Finding:
    if arm.outside.listed("control") != ["exited", 0]:
        return unfinished(f"with a long timeout: {arm.outside.listed('control')}")
    took, reason = arm.outside.decimal("took"), arm.outside.text("reason")
    saw = f"ended after {took:g} s of {TIMEOUT_S:g} s: {reason}"
    on_time = TIMEOUT_S - 0.1 <= took <= TIMEOUT_S + WINDOW_S
    return expect(on_time and not arm.outside.listed("left") and reason == "timeout", saw)


# --- again and again ---------------------------------------------------------------------------


def _destroy_twice(bench: Bench) -> Two:
    """A running container is destroyed twice, by two handles; others in every state before."""
    warm_up(bench)
    state = state_of(bench)
    errors: list[str] = []
    with bench.agent() as look:
        box = look.container
        if box is None:
            return {}, {}
        nonce, id = look.agent.nonce, box.id
        other, waiter = bench.host.get(id), bench.host.get(id)
        waiter.fileno()
        look.agent.call("process:leave_sleepers", {"count": 2})
        groups = _groups_of(look.pid)
        before = _objects(state, id, nonce, groups)
        errors += attempt(box.destroy)
        first = _objects(state, id, nonce, groups)
        snapshot = bench.snapshot()
        for again in (box.destroy, other.destroy, box.destroy):
            errors += attempt(again)
        changed = wait_for_rest(snapshot, bench.snapshot, timeout_s=1.0)
        reason = _reason_of(waiter)
        after = [bool(attempt(lambda: bench.host.get(id))), other.state]
        sweep(nonce)
    for steps in range(4):
        errors += _destroy_early(bench, steps)
    return {}, {
        "before": before,
        "first": first,
        "errors": errors,
        "changed": changed,
        "reason": reason,
        "after": after,
    }


def _objects(state: Path, id: str, nonce: str, groups: list[str]) -> dict[str, list[str]]:
    """What there is of a container: processes, groups, files."""
    return {
        "processes": [process.describe(pid) for pid in process.find_marked(nonce)],
        "groups": [path for path in groups if os.path.isdir(path)],
        "files": [str(path) for path in state.glob(f"containers/{id}*")],
    }


def _destroy_early(bench: Bench, steps: int) -> list[str]:
    """Twice, after some of a container's first steps; classes of errors."""
    box = bench.container(bench.python("import time; time.sleep(60)"), stdout=None, stderr=None)
    for step in (box.create, box.isolate, box.limit)[:steps]:
        step()
    errors = attempt(box.destroy) + attempt(box.destroy)
    return [
        *errors,
        *([f"{box.id}: {box.state}"] if box.state not in ("destroyed", "creating") else []),
    ]


def _judge_destroyed(arm: Arm) -> Finding:
    before, first = arm.outside.table("before"), arm.outside.table("first")
    if not before["processes"] or not before["files"]:
        return unfinished(f"while it ran there was only {before}")
    left = {kind: lines for kind, lines in first.items() if lines}
    errors, changed = arm.outside.listed("errors"), arm.outside.table("changed")
    reason, after = arm.outside.text("reason"), arm.outside.listed("after")
    if left or errors or changed:
        return violated(f"left by the first call: {left}; errors {errors}; then new: {changed}")
    return expect(reason == "destroyed" and after == [True, "destroyed"], f"{reason}, then {after}")


CHECKS = (
    Check(
        id="life.stop-grace",
        cases=(ENDS,),
        scenario=_stop_politely,
        inside=_judge_heard,
        outside=_judge_grace,
        likely="SIGKILL is sent at once, or only to the first process",
    ),
    Check(
        id="life.kill-tree",
        cases=(ENDS,),
        scenario=_kill_tree,
        inside=_judge_beats,
        outside=_judge_tree,
        likely="only the first process, or its process group, is killed",
    ),
    Check(
        id="life.deadline",
        cases=(ENDS,),
        scenario=_run_out,
        inside=_judge_silence,
        outside=_judge_deadline,
        request={"timeout": TIMEOUT_S},
        likely="the clock is not looked at, or an end by it is reported as another",
    ),
    Check(
        id="life.destroy-idem",
        cases=(ENDS,),
        scenario=_destroy_twice,
        inside=None,
        outside=_judge_destroyed,
        likely="destroy fails where something is gone already, or ends before all is",
    ),
)
