"""Checks of upd, pause and stat: changes and numbers of a running container.

Limits are changed, containers paused and numbers asked for by the public API, while a probe works;
the observer reads the job's own group, or its processes where it has none.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from execdrv.container import Container
from execdrv.driver import Exit
from execdrv.errors import ExecdrvError
from execdrv_conformance.agent import AgentError
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check, Gathered
from execdrv_conformance.checks.job import attempt, kill
from execdrv_conformance.checks.memory import (
    LIMIT,
    MIB,
    describe_status,
    read_memory,
    was_killed,
)
from execdrv_conformance.finding import Arm, Finding, expect, holds, unfinished, violated
from execdrv_conformance.observe import group, process

#: A limit raised, and one lowered; what is taken is over the first and the last, and under the
#: second.
RAISED, LOWERED = 128 * MIB, 40 * MIB
FEW_CPUS, MORE_CPUS = 0.2, 0.5
STEP_S = 0.25
#: Of a share over one second: a period of the quota's is a tenth of that.
SHARE_TOLERANCE = 0.2
#: More than the kernel lets anybody ask for (Documentation/admin-guide/cgroup-v2, pids).
TOO_MANY = 1 << 40

PAUSED_S = 0.3
TICK_S = 0.6
#: The least gap that a pause makes; a busy machine makes smaller ones.
GAP_S = 0.2
TICKS = os.sysconf("SC_CLK_TCK")

WORK_S = 1.0
#: Long enough that what the job uses to end, after the last look, is within the tolerance.
FINAL_WORK_S = 0.5
TOLERANCE = 0.05
#: What a job may use before it works and after: starting, ending.
IDLE_US = 250_000

CHANGED = Case(name="changed")
CHANGED_CPUS = Case(name="changed-cpus", exclusive=True)
PAUSED = Case(name="paused")
MEASURED = Case(name="measured", fields={"memory": RAISED})
OUT_OF_MEMORY = Case(name="out-of-memory", fields={"memory": LIMIT})


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
    with bench.agent(memory=LIMIT) as look:
        errors = []
        for limit, size in ((None, large), (RAISED, large), (LOWERED, LIMIT), (None, small)):
            if limit is not None:
                errors += _change(look, memory_bytes=limit)
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
    with bench.agent(cpus=FEW_CPUS) as look:
        begun, first = time.monotonic(), _read_cpu_us(look)
        look.agent.begin("control:spin_steps", {"step_s": STEP_S, "count": 9})
        time.sleep(4 * STEP_S)
        middle, middle_s = _read_cpu_us(look), time.monotonic()
        errors = _change(look, cpus=MORE_CPUS)
        # The step in which it changes counts for nothing.
        time.sleep(STEP_S)
        later, later_s = _read_cpu_us(look), time.monotonic()
        quota = _read_quota(look)
        inside = look.agent.finish()
        last, last_s = _read_cpu_us(look), time.monotonic()
    shares = [
        (middle - first) / (middle_s - begun) / 1e6,
        (last - later) / (last_s - later_s) / 1e6,
    ]
    return inside, {"shares": shares, "quota": quota, "errors": errors}


def _read_quota(look: Look) -> float | None:
    directory = group.directory_of(look.pid, "cpu")
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
    return _judge_two_shares(_share_between(marks[0], marks[4]), _share_between(marks[5], marks[9]))


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
    directory = group.directory_of(look.pid, "pids")
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
    before = _read_tree_us(look.pid)
    time.sleep(seconds)
    return _read_tree_us(look.pid) - before


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


# --- numbers -----------------------------------------------------------------------------------


def _own_group(pid: int, controllers: tuple[str, ...]) -> str | None:
    """The directory of a process's group if it is none of this process's own."""
    for controller in controllers:
        directory = group.directory_of(pid, controller)
        if directory is not None and directory != group.directory_of(os.getpid(), controller):
            return directory
    return None


def _read_tree_us(pid: int) -> int:
    """Cpu time of a process and its descendants, those included that have ended."""
    total_us = 0
    for one in process.list_tree(pid):
        try:
            own = process.read_task_time_us(one)
            user, system, *ended = (int(word) for word in process.read_stat(one)[11:15])
        except OSError:
            # It has ended since: its parent has it now, or will.
            continue
        ticks = sum(ended) if own is not None else user + system + sum(ended)
        total_us += (own or 0) + ticks * 1_000_000 // TICKS
    return total_us


def _read_cpu_us(look: Look) -> int:
    """Cpu time of the job's own group; of its processes where it has none."""
    directory = _own_group(look.pid, ("cpuacct", ""))
    return group.read_cpu_us(directory) if directory is not None else _read_tree_us(look.pid)


@attrs.frozen(kw_only=True)
class Numbers:
    """What a container that worked has used, by its driver's word and by the observer's."""

    inside: dict[str, Any]
    outside: dict[str, Any]
    asked: dict[str, Any]


def _gather_numbers(bench: Bench) -> Numbers:
    """One container works, and its numbers are read until it is gone; another one is idle."""
    idle = _end_idle(bench)
    samples: list[int | None] = []
    with bench.agent(memory=RAISED) as look:
        container, asked = look.container, dict(bench.asked)
        cpu_group = _own_group(look.pid, ("cpuacct", ""))
        memory_group = _own_group(look.pid, ("memory",))
        first_us = _read_cpu_us(look)
        size = bench.rng.randrange(60, 70) * MIB
        look.agent.begin("control:work", {"cpu_s": WORK_S, "size": size})
        for _ in range(4):
            time.sleep(WORK_S / 5)
            samples.append(_running_cpu_us(container) if container is not None else None)
        inside = look.agent.finish()
        last_us = _read_cpu_us(look)
        look.agent.close()
        reported = _end(bench, container)
        # The groups are there until destroy: what they say now is final.
        if cpu_group is not None:
            last_us = group.read_cpu_us(cpu_group)
        peak = group.read_memory(memory_group)["peak"] if memory_group is not None else None
    seen = {"first_us": first_us, "cpu_us": last_us, "peak": peak}
    return Numbers(
        inside=inside,
        outside={**seen, **reported, "idle": idle, "samples": samples},
        asked=asked,
    )


def _end_idle(bench: Bench) -> dict[str, Any]:
    with bench.agent(memory=RAISED) as look:
        time.sleep(0.1)
        look.agent.close()
        return _end(bench, look.container)["reported"] or {}


def _end(bench: Bench, container: Container | None) -> dict[str, Any]:
    """Numbers of an end: as waited for, as others see it, and after destroy."""
    if container is None:
        return {"reported": None}
    reported = _numbers(container.wait(timeout_s=5.0))
    other = _numbers(bench.host.get(container.id).exit)
    return {"reported": reported, "other": other}


def _numbers(end: Exit | None) -> dict[str, Any]:
    if end is None:
        return {}
    return {
        "reason": end.reason,
        "code": end.code,
        "signal": end.signal,
        "oom_kills": end.oom_kills,
        "cpu_us": end.cpu_usage_us,
        "peak": end.memory_peak_bytes,
        "duration_s": end.duration_s,
    }


def _running_cpu_us(container: Container) -> int | None:
    """The cpu time that is reported of a running container, wherever it may stand; or None."""
    method: Callable[[], Any] | None = getattr(container, "stats", None)
    if method is not None:
        try:
            number = getattr(method(), "cpu_usage_us", None)
        except ExecdrvError:
            number = None
        return number if isinstance(number, int) else None
    return _find_number(container.inspect(), "cpu_usage_us")


def _find_number(plain: Any, name: str) -> int | None:
    """The first number of that name in plain data."""
    if isinstance(plain, Mapping):
        if isinstance(plain.get(name), int):
            number: int = plain[name]
            return number
        plain = list(plain.values())
    if isinstance(plain, list):
        for item in plain:
            if (found := _find_number(item, name)) is not None:
                return found
    return None


def _numbers_of(bench: Bench) -> Gathered:
    numbers = bench.share(_gather_numbers)
    bench.asked = dict(numbers.asked)
    return numbers.inside, numbers.outside


def _judge_near(reported: Any, seen: Any, unit: str) -> Finding:
    """Whether a reported number is one that was seen, within the tolerance."""
    if not isinstance(reported, int) or not isinstance(seen, int):
        return violated(f"reported {reported}, seen {seen} {unit}")
    saw = f"reported {reported}, seen {seen} {unit}"
    return expect(abs(reported - seen) <= TOLERANCE * seen, saw)


def _judge_cpu_inside(arm: Arm) -> Finding:
    worked_us = int(arm.inside.decimal("cpu_s") * 1e6)
    if worked_us < WORK_S * 0.9e6:
        return unfinished(f"the job got {worked_us} us only")
    return _judge_near(arm.outside.table("reported").get("cpu_us"), worked_us, "us")


def _judge_cpu(arm: Arm) -> Finding:
    found = _judge_near(
        arm.outside.table("reported").get("cpu_us"), arm.outside.number("cpu_us"), "us"
    )
    idle = arm.outside.table("idle").get("cpu_us")
    if found.state == "holds" and (idle is None or idle > IDLE_US):
        return violated(f"{found.saw}; of an idle job {idle} us")
    return found


def _judge_peak_inside(arm: Arm) -> Finding:
    touched, reported = arm.inside.number("touched"), arm.outside.table("reported").get("peak")
    saw = f"reported {reported} bytes, touched {touched}"
    # The job is not all that is counted; it can't say what else is.
    return expect(reported is not None and touched <= reported <= RAISED, saw)


def _judge_peak(arm: Arm) -> Finding:
    found = _judge_near(arm.outside.table("reported").get("peak"), arm.outside["peak"], "bytes")
    idle = arm.outside.table("idle").get("peak")
    if found.state == "holds" and (idle is None or idle > RAISED // 4):
        return violated(f"{found.saw}; of an idle job {idle} bytes")
    return found


def _finish_numbers(bench: Bench) -> Gathered:
    """The same numbers, asked for after the container has been destroyed."""
    with bench.agent(memory=RAISED) as look:
        container = look.container
        look.agent.call("control:work", {"cpu_s": FINAL_WORK_S, "size": 16 * MIB})
        cpu_group, first_us = _own_group(look.pid, ("cpuacct", "")), _read_cpu_us(look)
        look.agent.close()
        running = container.exit is not None if container is not None else False
        ended = _end(bench, container)
        last_us = group.read_cpu_us(cpu_group) if cpu_group is not None else first_us
        if container is not None:
            container.destroy()
            ended["after"] = _numbers(container.exit)
            ended["waited"] = _numbers(container.wait(timeout_s=0))
    return None, {**ended, "running": running, "first_us": first_us, "cpu_us": last_us}


def _judge_final(arm: Arm) -> Finding:
    reported, seen = arm.outside.table("reported"), arm.outside.number("cpu_us")
    others = {name: arm.outside.table(name) for name in ("other", "after", "waited")}
    unlike = [name for name, numbers in others.items() if numbers != reported]
    if unlike:
        return violated(f"after wait {reported}, and other numbers by {unlike}: {others}")
    if reported.get("duration_s") is None:
        return violated(f"no duration: {reported}")
    if "memory" in arm.asked and reported.get("peak") is None:
        return violated(f"no memory peak: {reported}")
    near = _judge_near(reported.get("cpu_us"), seen, "us")
    return near if near.state != "holds" else holds(f"{near.saw}, after destroy too")


def _judge_monotone(arm: Arm) -> Finding:
    samples = arm.outside.listed("samples")
    counted = [one for one in samples if one is not None]
    final = arm.outside.table("reported").get("cpu_us")
    if len(counted) < len(samples) or final is None:
        return violated(f"while it ran {samples} us, at the end {final}")
    line = [*counted, final]
    grows = all(one < other for one, other in itertools.pairwise(line))
    return expect(grows, f"reported {line} us")


def _run_out(bench: Bench) -> Gathered:
    """One job goes over its limit, another is killed by hand: how each end is reported."""
    with bench.agent(memory=LIMIT) as look:
        kill(look.pid)
        killed = _end(bench, look.container)["reported"]
    with bench.agent(memory=LIMIT) as look:
        directory = _own_group(look.pid, ("memory",))
        try:
            look.agent.call("memory:touch_itself", {"size": 90 * MIB})
            answers = True
        except AgentError:
            answers = False
        look.agent.close()
        reported = _end(bench, look.container)["reported"]
        kills = group.read_memory(directory)["kills"] if directory is not None else 0
    return {"answers": answers}, {"reported": reported, "killed": killed, "kills": kills}


def _judge_reason(arm: Arm, saw: str) -> Finding:
    reported = arm.outside.table("reported")
    said = f"reason {reported.get('reason')}, {reported.get('oom_kills')} killed"
    right = reported.get("reason") == "oom" and reported.get("oom_kills", 0) > 0
    return expect(right, f"{saw}; reported: {said}")


def _judge_oom_inside(arm: Arm) -> Finding:
    if arm.inside.flag("answers"):
        return violated("the job went over the limit, and answers")
    return _judge_reason(arm, "the job was ended")


def _judge_oom(arm: Arm) -> Finding:
    kills, killed = arm.outside.number("kills"), arm.outside.table("killed")
    if not kills:
        return violated("the group counts nobody killed for memory")
    if killed.get("reason") != "signaled" or killed.get("signal") != 9:
        return violated(f"a job killed by SIGKILL is reported as {killed}")
    return _judge_reason(arm, f"{kills} killed for memory")


CHECKS = (
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
    Check(
        id="stat.cpu",
        cases=(MEASURED,),
        scenario=_numbers_of,
        inside=_judge_cpu_inside,
        outside=_judge_cpu,
        likely="the numbers are those of one process, or none are read",
    ),
    Check(
        id="stat.mem-peak",
        cases=(MEASURED,),
        scenario=_numbers_of,
        inside=_judge_peak_inside,
        outside=_judge_peak,
        likely="the peak is not read before the group goes",
    ),
    Check(
        id="stat.oom",
        cases=(OUT_OF_MEMORY,),
        scenario=_run_out,
        inside=_judge_oom_inside,
        outside=_judge_oom,
        likely="oom_kill of the group is not read, or is read of the wrong one",
    ),
    Check(
        id="stat.final",
        cases=(MEASURED,),
        scenario=_finish_numbers,
        inside=None,
        outside=_judge_final,
        likely="the numbers are not kept in the record, or not read before the group goes",
    ),
    Check(
        id="stat.monotone",
        cases=(MEASURED,),
        scenario=lambda bench: (None, _numbers_of(bench)[1]),
        inside=None,
        outside=_judge_monotone,
        likely="there are no numbers of a running container",
    ),
)
