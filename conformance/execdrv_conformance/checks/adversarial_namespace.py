"""Attacks by the job on namespaces of the machine, and on a process that joins its own."""

from __future__ import annotations

import errno
import os
import time
from typing import Any

from execdrv_conformance import kernel
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Check
from execdrv_conformance.checks.adversarial_knob import HOSTILE
from execdrv_conformance.finding import Arm, Finding, expect, holds, unfinished, violated
from execdrv_conformance.observe import process

# --- namespaces --------------------------------------------------------------------------------


def _start_neighbour(bench: Bench) -> dict[str, Any]:
    """A process of the machine in namespaces of its own."""
    word = bench.nonce()
    ready, said = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.closerange(3, said)
            os.closerange(said + 1, 4096)
            kernel.unshare(
                kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWNET | kernel.CLONE_NEWNS
            )
            kernel.sethostname(word)
            os.write(said, b".")
            os.execve("/bin/sleep", [word, "60"], {})
        finally:
            os._exit(127)
    os.close(said)
    with open(ready, "rb") as file:
        if not file.read(1):
            raise OSError(errno.ECHILD, "the neighbour did not start")
    links = process.read_namespaces(pid)
    own = process.read_namespaces("self")
    return {
        "pid": pid,
        "word": word,
        "links": [link for name, link in links.items() if link != own.get(name)],
    }


def _foreign_links(look: Look) -> set[str]:
    """Namespaces of the neighbour, and of the machine's processes where the job has its own."""
    own = set(process.read_namespaces(look.pid).values())
    level = process.read_namespaces("self")["pid"]
    tree = process.list_tree(look.pid)
    found = set(look.bench.share(_start_neighbour)["links"])
    for pid in process.list_pids():
        try:
            links = process.read_namespaces(pid)
        except OSError:
            continue
        # Those in a pid namespace of their own belong to a container.
        if pid not in tree and links.get("pid") == level:
            found |= set(links.values())
    return found - own


def _namespace_arguments(look: Look) -> dict[str, Any]:
    neighbour = look.bench.share(_start_neighbour)
    links = sorted(_foreign_links(look))
    return {"pid": neighbour["pid"], "word": neighbour["word"], "links": links}


def _look_at_namespaces(look: Look) -> dict[str, Any]:
    neighbour = look.bench.share(_start_neighbour)
    foreign = _foreign_links(look)
    entered: list[str] = []
    for pid in process.list_tree(look.pid):
        links = [*process.read_namespaces(pid).values(), _link_for_children(pid)]
        entered += [link for link in links if link in foreign]
    os.kill(neighbour["pid"], 9)
    os.waitpid(neighbour["pid"], 0)
    return {
        "entered": sorted(set(entered)),
        "offered": len(neighbour["links"]),
        "foreign": len(foreign),
    }


def _link_for_children(pid: int) -> str:
    # Who enters a pid namespace is not in it; the children are.
    try:
        return os.readlink(f"/proc/{pid}/ns/pid_for_children")
    except OSError:
        return ""


def _judge_entered(arm: Arm) -> Finding:
    entered, tried = arm.inside.listed("entered"), arm.inside.number("tried")
    if entered:
        return violated(f"setns succeeds on {entered[:3]}")
    return holds(f"{tried} descriptors tried, none entered {arm.inside.text('problem')}".strip())


def _judge_links(arm: Arm) -> Finding:
    entered = arm.outside.listed("entered")
    if not arm.outside.number("offered"):
        return unfinished("the neighbour has no namespace of its own")
    foreign = arm.outside.number("foreign")
    return expect(not entered, f"of {foreign} namespaces of the machine the job is in {entered}")


# --- processes that join -----------------------------------------------------------------------

CATCH_S = 0.3


def _join(bench: Bench) -> tuple[dict[str, Any], dict[str, Any]]:
    """The job lies in wait; a process joins, by the driver if it can."""
    with bench.agent(user="0") as look:
        look.agent.begin("adversarial_namespace:catch_joining", {"seconds": CATCH_S, "first": True})
        look.agent.next_fact()
        joining, how = _start_joining(bench, look)
        tracer = 0
        try:
            inside = look.agent.finish(seen=1)
            if joining:
                tracer = int(process.read_status(joining)["TracerPid"])
        finally:
            if joining:
                os.kill(joining, 9)
        return inside, {"joined": bool(joining), "how": how, "tracer": tracer}


def _start_joining(bench: Bench, look: Look) -> tuple[int, str]:
    """The process that joins, as the observer finds it, and how it came; 0: none."""
    if look.container is None:
        word = bench.nonce()
        pid = os.fork()
        if pid == 0:
            try:
                os.closerange(3, 4096)
                os.execve("/bin/sleep", [word, "5"], {})
            finally:
                os._exit(127)
        return pid, "a plain process"
    join: Any = getattr(look.container, "exec", None)
    if join is None:
        return 0, "a container has no operation `exec`"
    word = bench.nonce()
    join([*bench.python("import time; time.sleep(5)"), word])
    deadline = time.monotonic() + CATCH_S
    while time.monotonic() < deadline:
        if marked := process.find_marked(word):
            return marked[-1], "exec"
        time.sleep(0.002)
    return 0, "exec started nothing"


def _judge_caught(arm: Arm) -> Finding:
    seen = arm.inside.listed("seen")
    if not seen:
        return violated("no process has joined")
    caught = [*arm.inside.listed("traced"), *arm.inside.listed("opened")]
    return expect(not caught, f"{len(seen)} processes appeared, got hold of {caught[:3] or 'none'}")


def _judge_joining(arm: Arm) -> Finding:
    if not arm.outside.flag("joined"):
        return violated(f"no process has joined: {arm.outside.text('how')}")
    tracer = arm.outside.number("tracer")
    return expect(not tracer, f"the joining process's tracer is {tracer}")


CHECKS = (
    Check(
        id="esc.setns",
        cases=(HOSTILE,),
        probe="adversarial_namespace:enter_namespaces",
        arguments=_namespace_arguments,
        observe=_look_at_namespaces,
        inside=_judge_entered,
        outside=_judge_links,
        likely="the machine's processes or a descriptor of theirs are in reach of CAP_SYS_ADMIN",
    ),
    Check(
        id="esc.exec-ptrace",
        cases=(HOSTILE,),
        scenario=_join,
        inside=_judge_caught,
        outside=_judge_joining,
        likely="a joining process can be traced before it has the job's walls",
    ),
)
