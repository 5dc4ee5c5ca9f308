"""Checks of upd and pause: changes of a running container; `control_usage` has those of stat.

Limits are changed and containers paused by the public API, while a probe works; the observer reads
the job's own group, or its processes where it has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from execdrv.container import Container
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check, Gathered
from execdrv_conformance.checks import control_usage
from execdrv_conformance.checks.control_usage import read_cpu_us, read_tree_us
from execdrv_conformance.checks.job import attempt
from execdrv_conformance.checks.memory import LIMIT, MIB, describe_status, read_memory, was_killed
from execdrv_conformance.finding import Arm, Finding, expect, unfinished, violated
from execdrv_conformance.observe import group, process

#: A limit raised, and one lowered; what is taken is over the first and the last, and under the
#: second.
RAISED, LOWERED = 128 * MIB, 40 * MIB
FEW_CPUS, MORE_CPUS = 0.2, 0.5
#: A job sees its share in periods of 0.1 s, one early or late: three steps must be many of them.
STEP_S = 0.4
#: Of a share over one second: a period of the quota's is a tenth of that.
SHARE_TOLERANCE = 0.2
#: More than the kernel lets anybody ask for (Documentation/admin-guide/cgroup-v2, pids).
TOO_MANY = 1 << 40

PAUSED_S = 0.3
TICK_S = 0.6
#: The least gap that a pause makes; a busy machine makes smaller ones.
GAP_S = 0.2

CHANGED = Case(name="changed")
CHANGED_CPUS = Case(name="changed-cpus", exclusive=True)
PAUSED = Case(name="paused")


# --- changes -----------------------------------------------------------------------------------


def _change(look: Look, **limits: Any) -> list[str]:
    """Change limits of a running container: classes of the error, none if there was none."""
    container = look.container
    if container is None:
        return []
    with look.bench.timed("limit", limits):
        return attempt(lambda: container.limit(**limits))


def _change_memory(bench: Bench) -> Gathered:
    """The limit is raised, then lowered; each time the same is tried."""
    rng = bench.rng
    large, small = rng.randrange(76, 90) * MIB, rng.randrange(12, 20) * MIB
    tried, limits = [], []
    with bench.agent(memory=LIMIT, cpus=0.75, pids=16) as look:
        errors, others = [], _read_limits(look)[1:]
        for limit, size in ((None, large), (RAISED, large), (LOWERED, LIMIT), (None, small)):
            if limit is not None:
                errors += _change(look, memory_bytes=limit)
                errors += _say_changed(others, _read_limits(look)[1:])
            tried += look.agent.call("memory:touch", {"sizes": [size]})["statuses"]
            limits.append(read_memory(look)["limit"])
    return {"tried": tried}, {"limits": limits, "errors": errors}


def _judge_tried(arm: Arm) -> Finding:
    at_first, raised, lowered, small = arm.inside.listed("tried")
    saw = (
        f"at first {describe_status(at_first)}, raised {describe_status(raised)}, "
        f"lowered {describe_status(lowered)} and less {describe_status(small)}"
    )
    acts = was_killed(at_first) and raised == 0 and was_killed(lowered) and small == 0
    return expect(acts, saw)


def _judge_new_limits(arm: Arm) -> Finding:
    limits, errors = arm.outside.listed("limits"), arm.outside.listed("errors")
    saw = f"limits {limits}" + (f", {errors[0]}" if errors else "")
    return expect(limits == [LIMIT, RAISED, LOWERED, LOWERED] and not errors, saw)


def _change_cpus(bench: Bench) -> Gathered:
    """The quota is changed in the middle of work: half of the steps before, half after."""
    with bench.agent(cpus=FEW_CPUS, memory=LIMIT, pids=16) as look:
        others = _read_limits(look)[::2]
        begun, first = time.monotonic(), read_cpu_us(look)
        look.agent.begin("control:spin_steps", {"step_s": STEP_S, "count": 9})
        time.sleep(4 * STEP_S)
        middle, middle_s = read_cpu_us(look), time.monotonic()
        errors = _change(look, cpus=MORE_CPUS)
        errors += _say_changed(others, _read_limits(look)[::2])
        # The step in which it changes counts for nothing.
        time.sleep(STEP_S)
        later, later_s = read_cpu_us(look), time.monotonic()
        quota = _read_quota(look)
        inside = look.agent.finish()
        last, last_s = read_cpu_us(look), time.monotonic()
    shares = [
        (middle - first) / (middle_s - begun) / 1e6,
        (last - later) / (last_s - later_s) / 1e6,
    ]
    return inside, {"shares": shares, "quota": quota, "errors": errors}


def _say_changed(before: list[Any], after: list[Any]) -> list[str]:
    """Words for limits that an update did not name, and that are not as they were."""
    return [] if before == after else [f"other limits were {before} and are {after}"]


def _read_quota(look: Look) -> float | None:
    directory = group.bounds_of(look.pid, "cpu")
    return group.read_quota(directory) if directory is not None else None


def _judge_two_shares(before: float, after: float) -> Finding:
    near = [
        abs(share - quota) <= SHARE_TOLERANCE * quota
        for share, quota in ((before, FEW_CPUS), (after, MORE_CPUS))
    ]
    saw = f"{before:.2f} and then {after:.2f} cpus where {FEW_CPUS} and {MORE_CPUS} were asked for"
    return expect(all(near), saw)


def _judge_steps(arm: Arm) -> Finding:
    marks = arm.inside.listed("marks")
    # The first step has more than its share: a group that begins has the quota of two periods.
    before, after = _share_between(marks[1], marks[4]), _share_between(marks[6], marks[9])
    return _judge_two_shares(before, after)


def _share_between(begin: list[float], end: list[float]) -> float:
    return (end[0] - begin[0]) / (end[1] - begin[1])


def _judge_changed_quota(arm: Arm) -> Finding:
    before, after = (float(one) for one in arm.outside.listed("shares"))
    found = _judge_two_shares(before, after)
    quota, errors = arm.outside["quota"], arm.outside.listed("errors")
    if found.state == "holds" and (quota != MORE_CPUS or errors):
        return violated(f"{found.saw}; quota {quota}, {errors}")
    return found


def _change_invalid(bench: Bench) -> Gathered:
    """An update of which one value is refused, by the kernel and by the host; then a valid one."""
    with bench.agent(memory=LIMIT, pids=16, cpus=0.5) as look:
        before = _read_limits(look)
        wrong = (
            {"memory_bytes": RAISED, "cpus": 0.75, "pids": TOO_MANY},
            {"memory_bytes": RAISED, "cpus": -1.0, "pids": 20},
            # Less than it uses: refused, whichever limit comes first.
            {"memory_bytes": 4096, "cpus": 0.75, "pids": 20},
        )
        refusals, seen = [], []
        for limits in wrong:
            refusals.append(_change(look, **limits))
            seen.append(_read_limits(look))
        errors = _change(look, memory_bytes=RAISED, cpus=0.75, pids=20)
        after = _read_limits(look)
    return None, {
        "before": before,
        "seen": seen,
        "after": after,
        "refusals": refusals,
        "errors": errors,
    }


def _read_limits(look: Look) -> list[Any]:
    directory = group.bounds_of(look.pid, "pids")
    pids = group.read_pids(directory)["limit"] if directory is not None else None
    return [read_memory(look)["limit"], _read_quota(look), pids]


def _judge_atomic(arm: Arm) -> Finding:
    before, after = arm.outside.listed("before"), arm.outside.listed("after")
    refusals, errors = arm.outside.listed("refusals"), arm.outside.listed("errors")
    seen = arm.outside.listed("seen")
    if not all(refusals):
        return violated(f"an invalid update was taken: {before} became {seen}")
    odd = [one[0] for one in refusals if one[0] in ("ExecdrvError", "DriverBugError")]
    if odd or any(one != before for one in seen):
        return violated(f"{odd or refusals}: {before} became {seen}")
    changed = not errors and all(a != b for a, b in zip(before, after, strict=True))
    saw = f"{[one[0] for one in refusals]}, limits {before}; a valid one made them {after}"
    return expect(changed, f"{saw} {errors or ''}".strip())


# --- pauses ------------------------------------------------------------------------------------


def _gather_pauses(bench: Bench) -> dict[str, dict[str, Any]]:
    """Pause a container that counts, resume it; pause it again and destroy it."""
    with bench.agent() as look:
        look.agent.begin("control:tick", {"wall_s": TICK_S, "timer_s": TICK_S / 2})
        time.sleep(0.1)
        called = _operate(look.container, "pause")
        stood_us = _read_growth(look, PAUSED_S)
        resumed = _operate(look.container, "resume")
        inside = look.agent.finish()
        look.agent.begin("control:tick", {"wall_s": TICK_S, "timer_s": TICK_S / 2})
        time.sleep(0.1)
        marked = process.find_marked(look.agent.nonce)
        again = _operate(look.container, "pause")
        still_us = _read_growth(look, 0.1)
        begun = time.monotonic()
        if look.container is not None:
            look.container.destroy()
        left = process.wait_ended(marked, timeout_s=2.0)
        took_s = time.monotonic() - begun
    return {
        "inside": inside,
        "outside": {"called": called, "resumed": resumed, "grown_us": stood_us},
        "killed": {
            "called": again,
            "grown_us": still_us,
            "marked": len(marked),
            "left": left,
            "took_s": took_s,
        },
    }


def _operate(container: Container | None, operation: str) -> str:
    """Call an operation that the public API may not have: what became of it."""
    method: Callable[[], Any] | None = getattr(container, operation, None)
    if method is None:
        return f"there is no operation {operation!r}"
    errors = attempt(method)
    return errors[0] if errors else "done"


def _read_growth(look: Look, seconds: float) -> int:
    """Cpu microseconds that the job's processes get in a time."""
    before = read_tree_us(look.pid)
    time.sleep(seconds)
    return read_tree_us(look.pid) - before


def _judge_gaps(arm: Arm) -> Finding:
    gaps = [float(gap) for gap in arm.inside.listed("gaps")]
    saw = f"parent and child stood still for {gaps[0]:.3f} s and {gaps[1]:.3f} s at most"
    return expect(all(gap >= GAP_S for gap in gaps), saw)


def _judge_still(arm: Arm) -> Finding:
    grown_us, called = arm.outside.number("grown_us"), arm.outside.text("called")
    return expect(grown_us == 0, f"{called}; {grown_us} us of cpu time in {PAUSED_S} s")


def _judge_resumed(arm: Arm) -> Finding:
    fired, ticks = arm.inside.number("fired"), arm.inside.listed("ticks")
    stood = _judge_gaps(arm)
    saw = f"{stood.saw}; the timer fired {fired} times, {ticks} ticks"
    return expect(stood.state == "holds" and fired == 1 and min(ticks) > 1000, saw)


def _judge_paused_end(arm: Arm) -> Finding:
    grown_us, left = arm.outside.number("grown_us"), arm.outside.listed("left")
    marked, took_s = arm.outside.number("marked"), arm.outside.decimal("took_s")
    if grown_us:
        return violated(f"it was never paused: {arm.outside.text('called')}")
    if marked < 2:
        return unfinished("parent and child were not there to be ended")
    return expect(not left, f"{marked} processes before, {len(left)} left after {took_s:.2f} s")


CHECKS: tuple[Check, ...] = (
    Check(
        id="upd.mem",
        cases=(CHANGED,),
        scenario=_change_memory,
        inside=_judge_tried,
        outside=_judge_new_limits,
        likely="an update is answered and not written",
    ),
    Check(
        id="upd.cpu",
        cases=(CHANGED_CPUS,),
        scenario=_change_cpus,
        inside=_judge_steps,
        outside=_judge_changed_quota,
        likely="an update is answered and not written",
    ),
    Check(
        id="upd.atomic",
        cases=(CHANGED,),
        scenario=_change_invalid,
        inside=None,
        outside=_judge_atomic,
        likely="what was written before the refusal is not taken back",
    ),
    Check(
        id="pause.tree",
        cases=(PAUSED,),
        scenario=lambda bench: (
            bench.share(_gather_pauses)["inside"],
            bench.share(_gather_pauses)["outside"],
        ),
        inside=_judge_gaps,
        outside=_judge_still,
        likely="only the first process is stopped, not the group",
    ),
    Check(
        id="pause.resume",
        cases=(PAUSED,),
        scenario=lambda bench: (bench.share(_gather_pauses)["inside"], None),
        inside=_judge_resumed,
        outside=None,
        likely="what was paused does not go on",
    ),
    Check(
        id="pause.kill",
        cases=(PAUSED,),
        scenario=lambda bench: (None, bench.share(_gather_pauses)["killed"]),
        inside=None,
        outside=_judge_paused_end,
        likely="a frozen process does not take its SIGKILL (v1 freezer)",
    ),
    *control_usage.CHECKS,
)
