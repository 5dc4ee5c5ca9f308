"""Checks of `pid`: which processes the job can see, signal and trace."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Check
from execdrv_conformance.checks.cases import CANARY_USER, PLAIN
from execdrv_conformance.finding import Arm, Finding, expect, holds, unfinished, violated
from execdrv_conformance.observe import process, supervisor

#: Numbers that the sweep of signals tries: a stand-in host has few processes.
SWEPT = 4096


def _own_numbers(look: Look) -> dict[str, Any]:
    return {
        "numbers": [int(word) for word in process.read_status(look.pid)["NSpid"].split()],
        "link": process.read_namespaces(look.pid)["pid"],
        "caller": process.read_namespaces("self")["pid"],
    }


def _judge_own_number(arm: Arm) -> Finding:
    chain, link = arm.inside.listed("chain"), arm.inside.text("link")
    saw = f"pid {arm.inside.number('pid')}, chain of parents {chain}, namespace {link or 'unknown'}"
    # Without a /proc the chain ends at the job itself.
    own = link != arm.canaries.table("namespaces")["pid"] and chain[-1] == 1
    return expect(own, saw)


def _judge_namespace(arm: Arm) -> Finding:
    numbers = arm.outside.listed("numbers")
    own = arm.outside.text("link") != arm.outside.text("caller")
    saw = f"NSpid {numbers}, {'own' if own else 'the caller`s'} namespace"
    return expect(own and len(numbers) == 2, saw)


def _canaries(look: Look) -> dict[str, Any]:
    facts = look.canaries.processes.facts()
    return {"pids": [facts["root"], facts["user"]]}


def _judge_hidden(arm: Arm) -> Finding:
    listed, signalled = arm.inside.listed("listed"), arm.inside.listed("signalled")
    if listed:
        return violated(f"the canary is listed as {listed}")
    pids = arm.canaries.table("processes")
    reached = [pid for pid in signalled if pid in (pids["root"], pids["user"])]
    return violated(f"signal 0 finds {reached}") if reached else holds("no canary")


def _judge_signal(arm: Arm) -> Finding:
    reached = arm.inside.listed("reached")
    return violated(f"signal 0 reaches {reached[:5]}") if reached else holds("no process reached")


def _look_at_canaries(look: Look) -> dict[str, Any]:
    return look.canaries.processes.look()


def _judge_trace(arm: Arm) -> Finding:
    traced, read = arm.inside.listed("traced"), arm.inside.listed("read")
    if traced or read:
        return violated(f"seized {traced}, read the environment of {read}")
    return holds(f"refused: {arm.inside.table('errors')}")


def _judge_tracer(arm: Arm) -> Finding:
    tracer = {name: one.get("tracer") for name, one in arm.outside.items() if name != "before"}
    return expect(not any(tracer.values()), f"tracers of the canaries: {tracer}")


def _kill_first(bench: Bench) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pid 1 of the job's namespace is killed; what carries the nonce must end with it.

    Whoever could end it instead of the kernel is stopped meanwhile.
    """
    with bench.agent() as look:
        look.agent.call("process:leave_sleepers", {"count": 3})
        tree = process.find_marked(look.agent.nonce)
        first = _first_of(look.pid)
        numbers = {pid: _numbers_of(pid) for pid in (first, *tree)}
        links = {process.read_namespaces(pid)["pid"] for pid in tree}
        with _stopped(_helpers(first, tree)) as helpers:
            os.kill(first, signal.SIGKILL)
            left = process.wait_ended(tree, timeout_s=2.0)
        return {}, {
            "killed": first,
            "number": numbers[first][-1],
            "links": sorted(links),
            "caller": process.read_namespaces("self")["pid"],
            "helpers": len(helpers),
            "before": len(tree),
            "left": left,
        }


def _numbers_of(pid: int) -> list[int]:
    """Its numbers, that in this pid namespace first (proc_pid_status(5), NSpid)."""
    return [int(word) for word in process.read_status(pid)["NSpid"].split()]


def _first_of(pid: int) -> int:
    """The topmost ancestor in its pid namespace, as far as that is not the caller's."""
    level = len(_numbers_of(pid))
    while level > 1 and (parent := process.parent_of(pid)) and len(_numbers_of(parent)) >= level:
        pid = parent
    return pid


def _helpers(first: int, tree: list[int]) -> list[int]:
    """Processes of execdrv and of the driver on the machine: who started it, and their trees."""
    found = {one for server in supervisor.list_servers() for one in process.list_tree(server)}
    pid = first
    while pid := process.parent_of(pid):
        found.add(pid)
    others = found - {1, os.getpid(), first, *tree}
    return sorted(pid for pid in others if process.is_alive(pid) and len(_numbers_of(pid)) == 1)


@contextlib.contextmanager
def _stopped(pids: list[int]) -> Iterator[list[int]]:
    """Processes that do nothing meanwhile: those of them that did stop."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield [pid for pid in pids if _wait_stopped(pid)]
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _wait_stopped(pid: int) -> bool:
    deadline = time.monotonic() + 1.0
    while process.read_stat(pid)[0] != "T":
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def _judge_death(arm: Arm) -> Finding:
    seen, before = arm.outside, arm.outside.number("before")
    if before < 4:
        return unfinished("the sleepers did not start")
    if not arm.outside.number("helpers"):
        return unfinished("who started the container could not be stopped")
    left, links = seen.listed("left"), seen.listed("links")
    saw = f"{before} processes before, {len(left)} after, with {seen.number('helpers')} stopped"
    if seen.text("caller") in links or len(links) != 1 or seen.number("number") != 1:
        return violated(f"no pid namespace with a pid 1 of its own: {links}; {saw}")
    return expect(not left, saw)


CHECKS = (
    Check(
        id="pid.ns",
        cases=(PLAIN,),
        probe="pid:describe_self",
        observe=_own_numbers,
        inside=_judge_own_number,
        outside=_judge_namespace,
        likely="no pid namespace is made (CLONE_NEWPID)",
    ),
    Check(
        id="pid.hidden",
        cases=(PLAIN,),
        probe="pid:find_processes",
        arguments=lambda look: {
            **_canaries(look),
            "name": look.canaries.processes.facts()["name"],
        },
        inside=_judge_hidden,
        outside=None,
        likely="no pid namespace, or the machine's /proc is in the root",
    ),
    Check(
        id="pid.no-signal",
        cases=(CANARY_USER,),
        probe="pid:signal_all",
        arguments=lambda look: {**_canaries(look), "most": SWEPT},
        inside=_judge_signal,
        # Signal 0 leaves no trace on a process.
        outside=None,
        likely="the job shares a user and a pid namespace with the machine",
    ),
    Check(
        id="pid.no-ptrace",
        cases=(CANARY_USER,),
        probe="pid:trace",
        arguments=_canaries,
        observe=_look_at_canaries,
        inside=_judge_trace,
        outside=_judge_tracer,
        likely="the job shares a user and a pid namespace with the machine",
    ),
    Check(
        id="pid.ns-death",
        cases=(PLAIN,),
        scenario=_kill_first,
        inside=None,
        outside=_judge_death,
        likely="no pid namespace is made",
    ),
)
