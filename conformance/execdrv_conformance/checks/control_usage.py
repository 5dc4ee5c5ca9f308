"""Checks of stat: what a container has used, by its driver's word and by the observer's.

Numbers are asked for by the public API; the observer reads the job's own group, or its processes
where it has none.
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
from execdrv_conformance.checks.job import kill
from execdrv_conformance.checks.memory import LIMIT, MIB
from execdrv_conformance.finding import Arm, Finding, expect, holds, unfinished, violated
from execdrv_conformance.observe import group, process

#: A limit that no job here meets.
ROOM = 128 * MIB
TICKS = os.sysconf("SC_CLK_TCK")
WORK_S = 1.0
#: Long enough that what the job uses to end, after the last look, is within the tolerance.
FINAL_WORK_S = 0.5
TOLERANCE = 0.05
#: What a job may use before it works and after: starting, ending.
IDLE_US = 250_000

MEASURED = Case(name="measured", fields={"memory": ROOM})
OUT_OF_MEMORY = Case(name="out-of-memory", fields={"memory": LIMIT})


# --- cpu time ----------------------------------------------------------------------------------


def _own_group(pid: int, controllers: tuple[str, ...]) -> str | None:
    """The directory of a process's group if it is none of this process's own."""
    for controller in controllers:
        directory = group.bounds_of(pid, controller)
        if directory is not None and directory != group.directory_of(os.getpid(), controller):
            return directory
    return None


def read_tree_us(pid: int) -> int:
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


def read_cpu_us(look: Look) -> int:
    """Cpu time of the job's own group; of its processes where it has none."""
    directory = _own_group(look.pid, ("cpuacct", ""))
    return group.read_cpu_us(directory) if directory is not None else read_tree_us(look.pid)


# --- numbers -----------------------------------------------------------------------------------


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
    with bench.agent(memory=ROOM) as look:
        container, asked = look.container, dict(bench.asked)
        cpu_group = _own_group(look.pid, ("cpuacct", ""))
        memory_group = _own_group(look.pid, ("memory",))
        first_us = read_cpu_us(look)
        size = bench.rng.randrange(60, 70) * MIB
        look.agent.begin("control:work", {"cpu_s": WORK_S, "size": size})
        for _ in range(4):
            time.sleep(WORK_S / 5)
            samples.append(_running_cpu_us(container) if container is not None else None)
        inside = look.agent.finish()
        last_us = read_cpu_us(look)
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
    with bench.agent(memory=ROOM) as look:
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
    return expect(reported is not None and touched <= reported <= ROOM, saw)


def _judge_peak(arm: Arm) -> Finding:
    found = _judge_near(arm.outside.table("reported").get("peak"), arm.outside["peak"], "bytes")
    idle = arm.outside.table("idle").get("peak")
    if found.state == "holds" and (idle is None or idle > ROOM // 4):
        return violated(f"{found.saw}; of an idle job {idle} bytes")
    return found


def _finish_numbers(bench: Bench) -> Gathered:
    """The same numbers, asked for after the container has been destroyed."""
    with bench.agent(memory=ROOM) as look:
        container = look.container
        look.agent.call("control:work", {"cpu_s": FINAL_WORK_S, "size": 16 * MIB})
        cpu_group, first_us = _own_group(look.pid, ("cpuacct", "")), read_cpu_us(look)
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


CHECKS: tuple[Check, ...] = (
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
