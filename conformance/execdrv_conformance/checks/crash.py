"""Checks of `crash`: what becomes of containers when their caller and its processes are killed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from execdrv.errors import ExecdrvError
from execdrv.host import Host
from execdrv_conformance.bench import DEADLINE_S, Bench
from execdrv_conformance.check import Case, Check
from execdrv_conformance.checks.job import (
    BEAT,
    Beats,
    attempt,
    kill,
    other_caller,
    state_of,
    sweep,
    warm_up,
)
from execdrv_conformance.checks.rest import look_at_all, rest_of
from execdrv_conformance.finding import Arm, Finding, expect, unfinished, violated
from execdrv_conformance.observe import process, supervisor

CRASHES = Case(name="crashes", budget_s=90.0)

Two = tuple[dict[str, Any], dict[str, Any]]

# --- a caller that dies ------------------------------------------------------------------------

#: A program that makes two containers, detaches one where that can be done, and waits.
_CALLER = """\
import json, sys
given = json.loads(sys.stdin.readline())
sys.path[:] = given["path"]
import os
from execdrv.driver import DriverRef
from execdrv.host import Host
host = Host(root=given["state"], deadline_s=given["deadline_s"])
driver = DriverRef(target=given["target"], options=given["options"])
made = {}
for name, argv in given["jobs"].items():
    out = os.open(given["said"][name], os.O_WRONLY | os.O_APPEND)
    box = host.start(driver, argv, rootfs=given["rootfs"], stdout=out, stderr=None)
    detach = getattr(box, "detach", None)
    if name == "detached" and detach is not None:
        detach()
    made[name] = box.id
print(json.dumps({"made": made, "detach": detach is not None}), flush=True)
sys.stdin.read()
"""
ANSWER_S = 10.0


def _recover(bench: Bench) -> Two:
    """A caller and its fork server are killed; a new host looks for what was detached."""
    warm_up(bench)
    state = state_of(bench)
    nonces = {name: bench.nonce() for name in ("detached", "plain")}
    folder = bench.directory("crash")
    files = {name: folder / name for name in nonces}
    for file in files.values():
        file.touch()
    given = {
        "path": [os.path.abspath(entry) for entry in sys.path if entry],
        "state": str(state),
        "deadline_s": DEADLINE_S,
        "target": bench.driver.target,
        "options": dict(bench.driver.options),
        "rootfs": str(bench.root),
        "jobs": {name: bench.python(BEAT, nonce) for name, nonce in nonces.items()},
        "said": {name: str(file) for name, file in files.items()},
    }
    caller = subprocess.Popen(
        [sys.executable, "-I", "-c", _CALLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        if caller.stdin is None or caller.stdout is None:
            return {}, {}
        caller.stdin.write(json.dumps(given).encode() + b"\n")
        caller.stdin.flush()
        answer = json.loads(caller.stdout.readline() or "{}")
        if "made" not in answer:
            raise TimeoutError("the caller made no containers")
        made = answer["made"]
        for file in files.values():
            Beats(file).wait_for(("beat",))
        before = {name: process.find_marked(nonce) for name, nonce in nonces.items()}
        owner = supervisor.find_supervisor(state, made["detached"])
        supervisor.kill_together([caller.pid, process.parent_of(owner)])
        process.wait_ended(before["plain"], timeout_s=2.0)
        beats = {name: Beats(file).count_new().get("beat", 0) for name, file in files.items()}
        outside = _look_again(state, made, before, nonces)
    finally:
        caller.kill()
        caller.wait()
        for stream in (caller.stdin, caller.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        sweep(*nonces.values())
        bench.host.gc()
    return {"beats": beats, "detach": answer["detach"]}, {**outside, "detach": answer["detach"]}


def _look_again(
    state: Path, made: dict[str, str], before: dict[str, list[int]], nonces: dict[str, str]
) -> dict[str, Any]:
    """What a new process can see and do: list, signal, destroy, wait."""
    host = Host(root=str(state), deadline_s=DEADLINE_S)
    try:
        states = {box.id: box.state for box in host.containers()}
        facts: dict[str, Any] = {
            "states": {name: states.get(id, "not listed") for name, id in made.items()},
            "same": process.find_marked(nonces["detached"]) == before["detached"],
            "plain": len(process.find_marked(nonces["plain"])),
            "signal": [],
            "reason": "",
        }
        if made["detached"] in states:
            facts["signal"] = attempt(lambda: host.get(made["detached"]).signal(0))
            waiter = host.get(made["detached"])
            if not attempt(waiter.fileno):
                attempt(lambda: host.get(made["detached"]).destroy())
                with contextlib.suppress(ExecdrvError, TimeoutError):
                    facts["reason"] = waiter.wait(timeout_s=2.0).reason
            facts["after"] = len(process.find_marked(nonces["detached"]))
        return facts
    finally:
        host.close()


def _judge_beats_on(arm: Arm) -> Finding:
    beats, detach = arm.inside.table("beats"), arm.inside.flag("detach")
    if beats["plain"]:
        return unfinished("the container that was not detached goes on beating")
    saw = (
        f"{beats['detached']} beats after the kill; {'detached' if detach else 'no way to detach'}"
    )
    return expect(beats["detached"] > 0, saw)


def _judge_recovered(arm: Arm) -> Finding:
    states = arm.outside.table("states")
    detach = "detached" if arm.outside.flag("detach") else "no way to detach"
    saw = f"{detach}: listed as {states}, the same processes: {arm.outside.flag('same')}"
    if states["detached"] != "running" or not arm.outside.flag("same"):
        return violated(saw)
    if arm.outside.number("plain"):
        return unfinished("the container that was not detached lives on")
    controlled = not arm.outside.listed("signal") and arm.outside.text("reason") == "destroyed"
    return expect(controlled and arm.outside.number("after") == 0, f"{saw}; then destroyed")


# --- everything is killed ----------------------------------------------------------------------

#: Kills at a random moment of the whole way, beside those between two steps.
MOMENTS = 4


def _kill_in_create(bench: Bench) -> Two:
    """Supervisor and fork server die together, between two steps and at random moments."""
    warm_up(bench)
    begun = time.monotonic()
    with bench.start(["/bin/sleep", "60"], stdout=None, stderr=None):
        whole_s = time.monotonic() - begun
    kills = []
    with other_caller(bench) as other:
        for steps in (1, 2, 3):
            kills.append(_kill_after_steps(bench, other, steps))
        for number in range(MOMENTS):
            moment = (number + bench.rng.random()) / MOMENTS
            kills.append(_kill_at_moment(bench, other, moment * whole_s))
    return {}, {"kills": kills}


def _kill_after_steps(bench: Bench, other: Bench, steps: int) -> dict[str, Any]:
    warm_up(other)
    box = other.container(["/bin/sleep", "60"], stdout=None, stderr=None)
    # The server lives through it all; what it leaves when it dies is looked for.
    before = look_at_all(bench)
    taken = (box.create, box.isolate, box.limit)[:steps]
    for step in taken:
        step()
    owner = supervisor.find_supervisor(state_of(bench), box.id)
    server = process.parent_of(owner)
    supervisor.kill_together([owner, server])
    return _collect_rest(bench, before, f"after {taken[-1].__name__}")


def _kill_at_moment(bench: Bench, other: Bench, moment_s: float) -> dict[str, Any]:
    """While another thread takes the steps."""
    known = set(supervisor.list_servers())
    warm_up(other)
    servers = [pid for pid in supervisor.list_servers() if pid not in known]
    box = other.container(["/bin/sleep", "60"], stdout=None, stderr=None)
    before = look_at_all(bench)

    def take_steps() -> None:
        for step in (box.create, box.isolate, box.limit, box.start):
            if attempt(step):
                return

    thread = threading.Thread(target=take_steps)
    thread.start()
    time.sleep(moment_s)
    below = [pid for server in servers for pid in supervisor.list_supervisors(server)]
    supervisor.kill_together([*below, *servers])
    thread.join(DEADLINE_S)
    return _collect_rest(bench, before, f"after {moment_s * 1000:.0f} ms")


def _collect_rest(bench: Bench, before: Any, title: str) -> dict[str, Any]:
    """What is found before the clean-up and after it."""
    found = before.compare(look_at_all(bench))
    errors = [str(error) for error in bench.host.gc().values() if error is not None]
    left = rest_of(bench, before)
    for line in left.get("process", []):
        kill(int(line.split()[0]))
    return {
        "when": title,
        "found": {kind: len(lines) for kind, lines in found.items()},
        "errors": errors,
        "left": left,
    }


def _judge_killed(arm: Arm) -> Finding:
    kills = arm.outside.listed("kills")
    if not any(one["found"].get("file") for one in kills):
        return unfinished("before the clean-up nothing was found after any kill")
    left = [
        f"{one['when']}: {one['left'] or one['errors']}"
        for one in kills
        if one["left"] or one["errors"]
    ]
    whens = ", ".join(one["when"] for one in kills)
    return expect(not left, "; ".join(left[:3]) if left else f"all removed: {whens}")


# --- stale records -----------------------------------------------------------------------------

_LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
TRIES = 20


def _leave_stale(bench: Bench) -> Two:
    """All of a container is killed, and each of its numbers goes to a process of the kit's."""
    warm_up(bench)
    decoys: list[int] = []
    with bench.start(["/bin/sleep", "60"], stdout=None, stderr=None) as sibling:
        try:
            numbers, id = _crash_one(bench)
            decoys = [pid for pid in (_fork_as(number) for number in numbers) if pid]
            listed = [box.id for box in bench.host.containers()]
            answers = bench.host.gc()
            harmed = [pid for pid in decoys if not process.is_alive(pid)]
            outside = {
                "numbers": len(numbers),
                "decoys": len(decoys),
                "listed": id in listed,
                "harmed": harmed,
                "answer": None if answers.get(id) is None else str(answers[id]),
                "dropped": id in answers and id not in {box.id for box in bench.host.containers()},
                "sibling": sibling.state,
                "sibling_collected": sibling.id in answers,
            }
        finally:
            for pid in decoys:
                kill(pid)
                os.waitpid(pid, 0)
    return {}, outside


def _crash_one(bench: Bench) -> tuple[list[int], str]:
    """Kill everything of a container and above it; its processes' numbers, now free, and its id."""
    with other_caller(bench) as other, contextlib.suppress(ExecdrvError), other.agent() as look:
        if look.container is None:
            return [], ""
        id = look.container.id
        owner = supervisor.find_supervisor(state_of(bench), id)
        tree = [pid for pid in process.list_tree(owner) if pid > 1]
        marked = process.find_marked(look.agent.nonce)
        supervisor.kill_together([process.parent_of(owner), *tree, *marked])
        deadline = time.monotonic() + 2.0
        numbers = sorted({*tree, *marked})
        while time.monotonic() < deadline and any(map(_is_taken, numbers)):
            time.sleep(0.005)
        # Its host would collect it at its end.
        other.host.forget(look.container)
        look.container.release()
    return numbers, id


def _is_taken(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def _fork_as(number: int) -> int:
    """A sleeping child that has a number (proc_sys_kernel(5), ns_last_pid); 0: it can't be had."""
    for _ in range(TRIES):
        try:
            _LAST_PID.write_text(str(number - 1))
        except OSError:
            return 0
        pid = os.fork()
        if pid == 0:
            try:
                os.execve("/bin/sleep", ["sleep", "600"], {})
            finally:
                os._exit(127)
        if pid == number:
            return pid
        kill(pid)
        os.waitpid(pid, 0)
    return 0


def _judge_stale(arm: Arm) -> Finding:
    numbers, decoys = arm.outside.number("numbers"), arm.outside.number("decoys")
    if decoys < 2 or not arm.outside.flag("listed"):
        return unfinished(
            f"of {numbers} numbers {decoys} were taken again; listed: {arm.outside['listed']}"
        )
    harmed, dropped = arm.outside.listed("harmed"), arm.outside.flag("dropped")
    honoured = arm.outside.text("sibling") == "running" and not arm.outside.flag(
        "sibling_collected"
    )
    saw = (
        f"{decoys} of {numbers} numbers taken again, harmed {harmed or 'none'}; "
        f"{'dropped' if dropped else arm.outside['answer'] or 'not dropped'}; "
        f"the sibling is {arm.outside.text('sibling')}"
    )
    return expect(not harmed and dropped and honoured, saw)


CHECKS = (
    Check(
        id="crash.recover",
        cases=(CRASHES,),
        scenario=_recover,
        inside=_judge_beats_on,
        outside=_judge_recovered,
        likely="what is needed to find a container again is kept in memory",
    ),
    Check(
        id="crash.mid-create",
        cases=(CRASHES,),
        scenario=_kill_in_create,
        inside=None,
        outside=_judge_killed,
        likely="a thing is made before its name stands in the record",
    ),
    Check(
        id="crash.stale",
        cases=(CRASHES,),
        scenario=_leave_stale,
        inside=None,
        outside=_judge_stale,
        likely="a process is taken for its own by the number alone",
    ),
)
