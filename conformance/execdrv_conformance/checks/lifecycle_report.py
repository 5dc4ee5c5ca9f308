"""Checks of what is said of a container: to those who wait, in the list, and of who joins it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import attrs

from execdrv.errors import ExecdrvError
from execdrv.host import Host
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check
from execdrv_conformance.checks.job import attempt, kill, state_of, sweep, wait_until, warm_up
from execdrv_conformance.finding import Arm, Finding, expect, unfinished, violated
from execdrv_conformance.observe import process, supervisor

REPORTS = Case(name="reports", budget_s=60.0)

Two = tuple[dict[str, Any], dict[str, Any]]

# --- who waits ---------------------------------------------------------------------------------

WAIT_S = 5.0


def _wait_together(bench: Bench) -> Two:
    """Two threads on the maker's handle, handles of others, one that comes late; a second job."""
    word = bench.nonce()
    code, other_code = bench.rng.sample(range(1, 120), 2)
    reader, writer = os.pipe()
    program = f"import sys; sys.stdin.read(); print({word!r}); sys.exit(%d)"
    try:
        with (
            bench.start(bench.python(program % code), stdin=reader, capture=4096) as box,
            bench.start(bench.python(program % other_code), stdin=reader, capture=4096) as second,
        ):
            early = [box, box, bench.host.get(box.id), bench.host.get(box.id)]
            results: list[Any] = [None] * len(early)
            threads = [
                threading.Thread(target=_note_exit, args=(handle, results, number))
                for number, handle in enumerate(early)
            ]
            for thread in threads:
                thread.start()
            os.close(writer)
            writer = -1
            for thread in threads:
                thread.join(WAIT_S + 1)
            late: list[Any] = [None] * 2
            for number, handle in enumerate((bench.host.get(box.id), box)):
                _note_exit(handle, late, number)
            others: list[Any] = [None]
            _note_exit(second, others, 0)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    return {}, {
        "early": results,
        "late": late,
        "other": others[0],
        "codes": [code, other_code],
        "word": word,
    }


def _note_exit(handle: Any, results: list[Any], number: int) -> None:
    try:
        exit = attrs.asdict(handle.wait(timeout_s=WAIT_S))
        results[number] = {**exit, "stdout": exit["stdout"].decode(), "stderr": ""}
    except (ExecdrvError, TimeoutError) as error:
        results[number] = {"error": f"{type(error).__name__}: {error}"}


def _judge_waiters(arm: Arm) -> Finding:
    all_results = [*arm.outside.listed("early"), *arm.outside.listed("late")]
    code, other_code = arm.outside.listed("codes")
    other = arm.outside.table("other")
    if other.get("code") != other_code:
        return violated(f"the second container's waiter: {other}, not code {other_code}")
    wrong = [
        f"waiter {number}: {result}"
        for number, result in enumerate(all_results)
        if result != all_results[0] or result.get("code") != code
    ]
    if wrong or arm.outside.text("word") not in all_results[0].get("stdout", ""):
        return violated((wrong or [f"all: {all_results[0]}"])[-1])
    return expect(True, f"{len(all_results)} waiters, each code {code} and the same numbers")


# --- the list ----------------------------------------------------------------------------------


def _list_after_kills(bench: Bench) -> Two:
    """A job and a supervisor are killed; the list is read here and by another host."""
    warm_up(bench)
    state = state_of(bench)
    nonces = {name: bench.nonce() for name in ("sibling", "job", "supervisor")}
    argv = "import time; time.sleep(60)"
    boxes = {
        name: bench.start(bench.python(argv, nonce), stdout=None, stderr=None)
        for name, nonce in nonces.items()
    }
    try:
        jobs = {name: process.find_marked(nonce) for name, nonce in nonces.items()}
        before = _list_states(bench, boxes)
        for pid in jobs["job"]:
            kill(pid)
        supervisor.kill_together([supervisor.find_supervisor(state, boxes["supervisor"].id)])
        process.wait_ended([*jobs["job"], *jobs["supervisor"]], timeout_s=2.0)
        # The supervisor of a job that was killed hears of it a moment later.
        wait_until(lambda: boxes["job"].state != "running", timeout_s=1.0)
        after = _list_states(bench, boxes)
        alive = {
            name: bool([pid for pid in pids if process.is_alive(pid)])
            for name, pids in jobs.items()
        }
    finally:
        for box in boxes.values():
            attempt(box.destroy)
        sweep(*nonces.values())
    gone = [box.id for box in bench.host.containers() if box.id in {b.id for b in boxes.values()}]
    return {}, {"before": before, "after": after, "alive": alive, "listed": gone}


def _list_states(bench: Bench, boxes: dict[str, Any]) -> dict[str, list[str]]:
    """State of each container in the list of this host, and of a new one."""
    found: dict[str, list[str]] = {name: [] for name in boxes}
    other = Host(root=bench.host.registry.root)
    try:
        for host in (bench.host, other):
            states = {box.id: box.state for box in host.containers()}
            for name, box in boxes.items():
                found[name].append(states.get(box.id, "not listed"))
    finally:
        other.close()
    return found


def _judge_list(arm: Arm) -> Finding:
    before, after = arm.outside.table("before"), arm.outside.table("after")
    alive = arm.outside.table("alive")
    if alive != {"sibling": True, "job": False, "supervisor": False}:
        return unfinished(f"alive after the kills: {alive}")
    wanted = {"sibling": "running", "job": "stopped", "supervisor": "lost"}
    wrong = {name: states for name, states in after.items() if set(states) != {wanted[name]}}
    wrong |= {f"{name} before": one for name, one in before.items() if set(one) != {"running"}}
    listed = arm.outside.listed("listed")
    saw = f"wrong: {wrong}; still listed: {listed}" if wrong or listed else f"{wanted}"
    return expect(not wrong and not listed, saw)


# --- who joins ---------------------------------------------------------------------------------

#: What a process says of itself, and then lives on until it has been looked at.
_DESCRIBE = (
    "import json,os,sys,time\n"
    "links={n:os.readlink('/proc/self/ns/'+n) for n in os.listdir('/proc/self/ns')}\n"
    "root=os.stat('/'); caps=[l for l in open('/proc/self/status') if l.startswith('Cap')]\n"
    "print(json.dumps([links,[root.st_dev,root.st_ino],caps,os.getuid(),os.getgid()]),flush=True)\n"
    "time.sleep(2)\n"
)


def _join(bench: Bench) -> Two:
    """A process is added by `exec`, where a container has that; it must be as the job is."""
    with bench.agent() as look:
        operation = getattr(look.container, "exec", None)
        if operation is None:
            return {"operation": False}, {"operation": False}
        nonce = bench.nonce()
        file = bench.directory("join") / "said"
        with open(file, "wb") as out:
            argv = bench.python(_DESCRIBE, nonce)
            call = threading.Thread(target=lambda: attempt(lambda: operation(argv, stdout=out)))
            call.start()
            wait_until(lambda: file.stat().st_size > 0, timeout_s=3.0)
            joined = process.find_marked(nonce)
            outside = {
                "job": _describe(look.pid),
                "joined": [_describe(pid) for pid in joined],
                "beside": _describe(os.getpid()),
            }
            call.join(5.0)
        return {"operation": True, **_own_words(look, file)}, {"operation": True, **outside}


def _own_words(look: Look, file: Path) -> dict[str, Any]:
    return {"job": look.agent.call("lifecycle:describe", {}), "joined": file.read_text()}


def _describe(pid: int) -> dict[str, Any]:
    status = process.read_status(pid)
    return {
        "namespaces": process.read_namespaces(pid),
        "groups": process.read_groups(pid),
        "root": process.identity(f"/proc/{pid}/root"),
        "status": {
            name: status[name]
            for name in ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
        },
    }


def _judge_joined_words(arm: Arm) -> Finding:
    if not arm.inside.flag("operation"):
        return violated("a container has no operation that adds a process")
    job, joined = arm.inside.table("job")["words"], arm.inside.text("joined").strip()
    return expect(job == joined, f"the job: {job}; the other: {joined}")


def _judge_joined(arm: Arm) -> Finding:
    if not arm.outside.flag("operation"):
        return violated("a container has no operation that adds a process")
    job, joined = arm.outside.table("job"), arm.outside.listed("joined")
    if job == arm.outside.table("beside"):
        return unfinished("the job differs in nothing from this process")
    return expect(bool(joined) and all(one == job for one in joined), f"{joined} beside {job}")


CHECKS = (
    Check(
        id="life.wait-many",
        cases=(REPORTS,),
        scenario=_wait_together,
        inside=None,
        outside=_judge_waiters,
        likely="the result is given to the first who asks, and kept by nobody",
    ),
    Check(
        id="life.list-truth",
        cases=(REPORTS,),
        scenario=_list_after_kills,
        inside=None,
        outside=_judge_list,
        likely="the list repeats the record, and nobody looks whether it still holds",
    ),
    Check(
        id="life.exec-join",
        cases=(REPORTS,),
        scenario=_join,
        inside=_judge_joined_words,
        outside=_judge_joined,
        likely="a namespace, a group or a capability set is left out",
    ),
)
