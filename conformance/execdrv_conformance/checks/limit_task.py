"""Checks of `pids`: how many tasks the job may have, and a fork bomb."""

from __future__ import annotations

import os
import time
from typing import Any

from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check, Gathered
from execdrv_conformance.checks.job import sweep, wait_until
from execdrv_conformance.finding import Arm, Finding, expect, unfinished
from execdrv_conformance.observe import group, process

#: Tasks that the job may have, and what a probe tries at most: the design's limit + 32.
PIDS = 16
MOST_TRIED = PIDS + 32
BOMB_PIDS = 32

FEW_TASKS = Case(name="few-tasks", fields={"pids": PIDS})
BOMB = Case(name="bomb", exclusive=True)


def _look_at_tasks(look: Look) -> dict[str, Any]:
    """The job's group: its limit, refusals, and who in it is none of the job's."""
    directory = group.bounds_of(look.pid, "pids")
    if directory is None:
        return {"limit": None, "refused": 0, "others": 0}
    seen = group.read_pids(directory)
    job = set(process.list_tree(look.pid))
    others = [pid for pid in group.list_members(directory) if pid not in job]
    return {**seen, "others": len(others)}


def _judge_forks(arm: Arm) -> Finding:
    forked, error = arm.inside.number("forked"), arm.inside.text("error")
    saw = f"itself and {forked} children, then {error or 'the kit`s own bound'}"
    return expect(forked + 1 == PIDS and error == "EAGAIN", saw)


def _judge_threads(arm: Arm) -> Finding:
    threads, refused = arm.inside.number("threads"), arm.inside.flag("refused")
    saw = f"itself and {threads} threads, then {'a refusal' if refused else 'the kit`s own bound'}"
    return expect(refused and threads + 1 == PIDS, saw)


def _judge_tasks(arm: Arm) -> Finding:
    limit, others = arm.outside["limit"], arm.outside.number("others")
    refused = arm.outside.number("refused")
    saw = f"limit {limit} with {others} processes of others in the group, {refused} refusals"
    return expect(limit == PIDS + others and refused > 0, saw)


def _drop_bomb(bench: Bench) -> Gathered:
    """The bomb goes off while this process tries how quickly the machine still starts one.

    A second one is there when the container is ended.
    """
    with bench.agent(pids=BOMB_PIDS) as look:
        nonce, bomb = look.agent.nonce, {"children": BOMB_PIDS, "each": 1}
        look.agent.begin("limit:bomb", {**bomb, "lives_s": 0.5})
        slowest_s, most = 0.0, 0
        begun = time.monotonic()
        while time.monotonic() - begun < 0.5:
            slowest_s = max(slowest_s, _time_start())
            most = max(most, len(process.find_marked(nonce)))
        facts = look.agent.finish(timeout_s=20.0)
        look.agent.begin("limit:bomb", {**bomb, "lives_s": 20.0})
        wait_until(lambda: len(process.find_marked(nonce)) > BOMB_PIDS // 2, timeout_s=2.0)
        ended = process.find_marked(nonce)
    # Of the control nobody but the kit ends those that were made meanwhile.
    patience_s = 0.0 if bench.is_control else 5.0
    left = process.wait_ended(process.find_marked(nonce), timeout_s=patience_s)
    for _ in range(5):
        sweep(nonce)
    return facts, {"slowest_s": slowest_s, "most": most, "ended": len(ended), "left": left}


def _time_start() -> float:
    begun = time.monotonic()
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    return time.monotonic() - begun


def _judge_bomb(arm: Arm) -> Finding:
    made, refused = arm.inside.number("made"), arm.inside.number("refused")
    return expect(refused > 0 and made < BOMB_PIDS, f"{made} made, {refused} refused")


def _judge_bombed(arm: Arm) -> Finding:
    most, slowest_s = arm.outside.number("most"), arm.outside.decimal("slowest_s")
    left, ended = arm.outside.listed("left"), arm.outside.number("ended")
    if ended <= BOMB_PIDS // 2:
        return unfinished(f"the second bomb did not go off: {ended} processes")
    saw = (
        f"at most {most} at once, {slowest_s:.2f} s to start a process, "
        f"{len(left)} left of {ended} that were ended"
    )
    return expect(most <= BOMB_PIDS and slowest_s < 2.0 and not left, saw)


CHECKS = (
    Check(
        id="pids.limit",
        cases=(FEW_TASKS,),
        probe="limit:fork_until_refused",
        arguments=lambda look: {"most": MOST_TRIED},
        observe=_look_at_tasks,
        inside=_judge_forks,
        outside=_judge_tasks,
        request={"pids": PIDS},
        likely="the pids controller is not set, or processes of the driver's own count",
    ),
    Check(
        id="pids.threads",
        cases=(FEW_TASKS,),
        probe="limit:thread_until_refused",
        arguments=lambda look: {"most": MOST_TRIED},
        observe=_look_at_tasks,
        inside=_judge_threads,
        outside=_judge_tasks,
        request={"pids": PIDS},
        likely="processes are counted, not tasks",
    ),
    Check(
        id="pids.bomb",
        cases=(BOMB,),
        scenario=_drop_bomb,
        inside=_judge_bomb,
        outside=_judge_bombed,
        likely="no limit on tasks",
    ),
)
