"""Checks of `leak`: what is left of a container, whatever its end was.

All of them but `leak.fd` read one and the same row of lives: before each and after it the machine
is looked at. `leak_failure` has what is left of one that never ran.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

from execdrv.errors import ExecdrvError
from execdrv.spec import Bind, Tmpfs
from execdrv_conformance.agent import AgentError
from execdrv_conformance.bench import Bench
from execdrv_conformance.check import Case, Check
from execdrv_conformance.checks.job import (
    attempt,
    leave_kinds,
    state_of,
    sweep,
    wait_until,
    warm_up,
)
from execdrv_conformance.checks.rest import look_at_all, look_at_decoys, rest_of, sweep_rest
from execdrv_conformance.finding import Arm, Finding, Judgement, expect, unfinished, violated
from execdrv_conformance.observe import process, supervisor

LEAKS = Case(name="leaks", budget_s=110.0)

Two = tuple[dict[str, Any], dict[str, Any]]

MEMORY_BYTES = 64 << 20


# --- a row of lives ----------------------------------------------------------------------------


def busy_fields(bench: Bench) -> dict[str, Any]:
    """All that makes a driver make things: limits, mounts."""
    source = bench.directory("bound")
    return bench.adapt(
        {
            "memory": MEMORY_BYTES,
            "pids": 64,
            "tmpfs": (Tmpfs(target=b"/mnt", size=1 << 20),),
            "binds": (Bind(source=os.fsencode(source), target=b"/srv"),),
        }
    )


def _live(bench: Bench) -> dict[str, Any]:
    """One container for each way of ending: what is left of it, and what was there before."""
    warm_up(bench)
    seen = look_at_decoys(bench)
    fields = busy_fields(bench)
    bench.asked = dict(fields)
    lives: list[dict[str, Any]] = []
    during: dict[str, int] = {}
    ways: dict[str, Callable[[], Any]] = {
        "exit": lambda: bench.run(["/bin/sh", "-c", "exit 3"], **fields),
        "signal": lambda: bench.run(["/bin/sh", "-c", "kill -9 $$"], **fields),
        "timeout": lambda: bench.run(
            ["/bin/sleep", "5"], **fields, **bench.adapt({"timeout": 0.2})
        ),
        "destroyed": lambda: _destroy_busy(bench, fields, during),
        "lost": lambda: _lose(bench, fields),
    }
    if "timeout" not in bench.adapt({"timeout": 0.2}):
        del ways["timeout"]
    for way, act in ways.items():
        before = look_at_all(bench)
        error = ""
        try:
            act()
        except (ExecdrvError, AgentError, TimeoutError) as problem:
            error = f"{type(problem).__name__}: {problem}"
        left = rest_of(bench, before)
        sweep_rest(left)
        lives.append({"way": way, "error": error, "left": left})
    return {"lives": lives, "during": during, "seen": seen}


def _destroy_busy(bench: Bench, fields: dict[str, Any], during: dict[str, int]) -> None:
    """Destroyed while processes of five kinds run, and one is busy in a mount."""
    before = look_at_all(bench)
    nonce = ""
    try:
        with bench.agent(**fields) as look:
            nonce = look.agent.nonce
            leave_kinds(look)
            if "tmpfs" in fields:
                look.agent.call("lifecycle:hold", {"path": "/mnt"})
            found = before.compare(look_at_all(bench))
            during.update({kind: len(lines) for kind, lines in found.items()})
            during["marked"] = len(process.find_marked(nonce))
    finally:
        left = process.wait_ended(process.find_marked(nonce), timeout_s=1.0) if nonce else []
        during["left"] = len(left)
        sweep(*([nonce] if left else []))


def _lose(bench: Bench, fields: dict[str, Any]) -> None:
    """The supervisor is killed; what it left is collected."""
    error: ExecdrvError | None = None
    with contextlib.suppress(ExecdrvError), bench.agent(**fields) as look:
        if look.container is not None:
            id = look.container.id
            supervisor.kill_together([supervisor.find_supervisor(state_of(bench), id)])
            answers = bench.host.gc()
            error = answers.get(id, ExecdrvError(f"gc did not find {id}"))
    if error is not None:
        raise error


def _gather_lives(bench: Bench) -> Two:
    return {}, bench.share(_live)


def _judge_kinds(*kinds: str, control: str, marked: bool = False) -> Judgement:
    """A judgement of lives by some kinds of things.

    Args:
        kinds: of the snapshot.
        control: the kind of which the kit's look must have found its own or the container's thing.
        marked: whether a process that carried the nonce counts too.
    """

    def judge(arm: Arm) -> Finding:
        seen, during = arm.outside.table("seen"), arm.outside.table("during")
        number = during.get(control, 0) + seen.get(control, 0)
        if not number:
            return unfinished(f"the look finds no {control} where there is one")
        left = [
            f"{life['way']}: {kind} {life['left'][kind][0]}"
            for life in arm.outside.listed("lives")
            for kind in kinds
            if kind in life["left"]
        ]
        if marked:
            count = during.get("left", 0)
            left += [f"destroyed: {count} processes with the nonce"] if count else []
        if left:
            return violated("; ".join(left[:4]))
        odd = [
            f"{life['way']}: {life['error']}"
            for life in arm.outside.listed("lives")
            if life["error"]
        ]
        if odd:
            return unfinished(odd[0])
        ways = [life["way"] for life in arm.outside.listed("lives")]
        return expect(True, f"nothing after {', '.join(ways)}; before, {number} were found")

    return judge


# --- descriptors -------------------------------------------------------------------------------

ROUNDS = 4
#: Lives in each round: see `_live_round`.
LIVES_A_ROUND = 6


def _count_descriptors(bench: Bench) -> Two:
    """Descriptors and threads of this process and of the fork server, round after round."""
    with bench.start(["/bin/sleep", "60"], stdout=None, stderr=None) as box:
        owner = supervisor.find_supervisor(state_of(bench), box.id)
        server = process.parent_of(owner)
        _live_round(bench)
        counts: list[dict[str, int]] = []
        for _ in range(ROUNDS + 1):
            wait_until(lambda: supervisor.list_supervisors(server) == [owner], timeout_s=2.0)
            counts.append(_settled_count(server, counts))
            _live_round(bench)
    held = os.open("/dev/null", os.O_RDONLY)
    step = [_count(server)["caller"], 0]
    os.close(held)
    step[1] = _count(server)["caller"]
    return {}, {"counts": counts, "step": step, "kinds": _kinds_of_descriptors()}


def _live_round(bench: Bench) -> None:
    """Lives that end by themselves, one captured, one destroyed, one failed, one lost."""
    for _ in range(2):
        bench.run(["/bin/true"])
    bench.run(["/bin/true"], capture=1000)
    with bench.start(["/bin/sleep", "60"], stdout=None, stderr=None):
        pass
    attempt(lambda: bench.run(["/no/such/command"]))
    with bench.start(["/bin/sleep", "60"], stdout=None, stderr=None) as box:
        supervisor.kill_together([supervisor.find_supervisor(state_of(bench), box.id)])


def _settled_count(server: int, before: list[dict[str, int]]) -> dict[str, int]:
    """The numbers when what is on its way out has gone, if that is so: a leak stays."""

    def has_settled() -> bool:
        now = _count(server)
        return not before or all(now[name] <= before[0][name] for name in now)

    wait_until(has_settled, timeout_s=0.5)
    return _count(server)


def _count(server: int) -> dict[str, int]:
    return {
        "caller": len(process.read_fds(os.getpid())),
        "caller threads": len(os.listdir("/proc/self/task")),
        "server": len(process.read_fds(server)),
        "server threads": len(os.listdir(f"/proc/{server}/task")),
    }


def _kinds_of_descriptors() -> list[str]:
    return sorted({link.partition(":")[0] for link in process.read_fds(os.getpid()).values()})


def _judge_descriptors(arm: Arm) -> Finding:
    counts, step = arm.outside.listed("counts"), arm.outside.listed("step")
    if step[0] != step[1] + 1:
        return unfinished(f"a descriptor held open on purpose does not show: {step}")
    first, last = counts[0], counts[-1]
    grown = {name: [one[name] for one in counts] for name in first if last[name] > first[name]}
    lives = ROUNDS * LIVES_A_ROUND
    return expect(not grown, f"over {lives} lives: {grown or first}")


CHECKS = (
    Check(
        id="leak.proc",
        cases=(LEAKS,),
        scenario=_gather_lives,
        inside=None,
        outside=_judge_kinds("process", control="process", marked=True),
        likely="destroy ends the first process and forgets the rest",
    ),
    Check(
        id="leak.mount",
        cases=(LEAKS,),
        scenario=_gather_lives,
        inside=None,
        outside=_judge_kinds("mount", control="mount"),
        likely="a mount is made in the machine's namespace, or is busy when it is removed",
    ),
    Check(
        id="leak.cgroup",
        cases=(LEAKS,),
        scenario=_gather_lives,
        inside=None,
        outside=_judge_kinds("group", control="group"),
        likely="a group is not empty when it is removed, or one hierarchy is forgotten",
    ),
    Check(
        id="leak.net",
        cases=(LEAKS,),
        scenario=_gather_lives,
        inside=None,
        outside=_judge_kinds("link", "netns", "rule", control="netns"),
        likely="a link, a name or a rule is made and nobody removes it",
    ),
    Check(
        id="leak.fd",
        cases=(LEAKS,),
        scenario=_count_descriptors,
        inside=None,
        outside=_judge_descriptors,
        likely="a descriptor that travels with an answer, or a connection, is not closed",
    ),
    Check(
        id="leak.files",
        cases=(LEAKS,),
        scenario=_gather_lives,
        inside=None,
        outside=_judge_kinds("file", "ipc", control="file"),
        likely="a file is made under a name that no record has",
    ),
)
