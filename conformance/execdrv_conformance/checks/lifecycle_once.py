"""Checks of what is there once: the start of a job, the owner of a name."""

from __future__ import annotations

import time
from typing import Any

from execdrv_conformance.bench import Bench
from execdrv_conformance.check import Check
from execdrv_conformance.checks.job import (
    attempt,
    kill,
    other_caller,
    state_of,
    sweep,
    wait_until,
    warm_up,
)
from execdrv_conformance.checks.lifecycle_step import EARLY_S, LIVES, Two
from execdrv_conformance.finding import Arm, Finding, expect, unfinished, violated
from execdrv_conformance.observe import process, supervisor
from execdrv_conformance.observe.snapshot import wait_for_rest

# --- once --------------------------------------------------------------------------------------


def _start_again(bench: Bench) -> Two:
    """A second start, of a job that runs and of one that has ended."""
    nonce, word = bench.nonce(), bench.nonce()
    file = bench.directory("once") / "said"
    argv = bench.python(
        "import os,sys,time; os.write(1,sys.argv[1].encode()); time.sleep(60)", word
    )
    with open(file, "wb") as out:
        box = bench.start(argv, stdout=out, stderr=None, env={"XDC_ONCE": nonce})
        try:
            wait_until(lambda: file.stat().st_size > 0, timeout_s=5.0)
            errors = attempt(box.start)
            time.sleep(EARLY_S)
            carrying = len(_list_carrying(nonce))
            for pid in _list_carrying(nonce):
                kill(pid)
            attempt(lambda: box.wait(timeout_s=3.0))
            late = attempt(box.start)
            time.sleep(EARLY_S)
            after = len(_list_carrying(nonce))
        finally:
            box.destroy()
            sweep(nonce, word)
    refused = "StateError" in errors and "StateError" in late
    said = file.read_text().count(word)
    return (
        {"said": said, "refused": refused},
        {"errors": [errors[:1], late[:1]], "carrying": carrying, "after": after},
    )


def _list_carrying(nonce: str) -> list[int]:
    """Processes that have a word in their environment."""
    found = []
    for pid in process.list_pids():
        try:
            words = process.read_environment(pid)
        except OSError:
            continue
        if any(nonce.encode() in word for word in words) and process.is_alive(pid):
            found.append(pid)
    return found


def _judge_said_once(arm: Arm) -> Finding:
    said, refused = arm.inside.number("said"), arm.inside.flag("refused")
    if not said:
        return unfinished("the job said nothing")
    second = "refused" if refused else "taken"
    return expect(said == 1 and refused, f"printed {said} times; a second start was {second}")


def _judge_carried_once(arm: Arm) -> Finding:
    errors = arm.outside.listed("errors")
    carrying, after = arm.outside.number("carrying"), arm.outside.number("after")
    if carrying == 0:
        return unfinished("no process carries the nonce")
    refused = all(one == ["StateError"] for one in errors)
    saw = f"second starts: {errors}; {carrying} processes, {after} after the end"
    return expect(refused and carrying == 1 and after == 0, saw)


# --- alone under a name ------------------------------------------------------------------------


def _take_name(bench: Bench) -> Two:
    """A name in use, asked for by the same caller and by another one."""
    name = f"n{bench.nonce()}"
    warm_up(bench)
    answers: list[bool] = []
    second: list[str] = []
    state = state_of(bench)
    with other_caller(bench) as other, bench.agent(name=name) as look:
        warm_up(other)
        owner = supervisor.find_supervisor(state, name)
        before = bench.snapshot()
        errors = []
        for caller in (bench, other):
            nonce = bench.nonce()
            errors.append(_try_name(caller, name, nonce))
            second += [nonce] if process.find_marked(nonce) else []
            sweep(nonce)
            answers.append(bool(_call_agent(look)))
        made = wait_for_rest(before, bench.snapshot)
        after = supervisor.find_supervisor(state, name)
        listed = [box.id for box in bench.host.containers()].count(name)
        other_name = _try_name(bench, f"{name}-other", bench.nonce())
    outside = {
        "errors": [one[:1] for one in errors],
        "owners": [owner, after],
        "listed": listed,
        "made": made,
        "other": other_name,
    }
    refused = all("ContainerExistsError" in one for one in errors)
    return {"answers": answers, "second": second, "refused": refused}, outside


def _call_agent(look: Any) -> dict[str, Any]:
    """Whether the agent answers, in its own words."""
    found: dict[str, Any] = look.agent.call("pid:describe_self", {})
    return found


def _try_name(bench: Bench, name: str, nonce: str) -> list[str]:
    """Classes of the error when a container of a name is asked for; what is made is destroyed."""

    def act() -> None:
        argv = bench.python("import time; time.sleep(60)", nonce)
        box = bench.start(argv, stdout=None, stderr=None, name=name)
        time.sleep(EARLY_S)
        box.destroy()

    return attempt(act)


def _judge_first(arm: Arm) -> Finding:
    answers, second = arm.inside.listed("answers"), arm.inside.listed("second")
    refused = arm.inside.flag("refused")
    saw = f"the first answers: {answers}; the name was {'refused' if refused else 'given'} again"
    return expect(all(answers) and not second and refused, saw)


def _judge_owner(arm: Arm) -> Finding:
    if arm.outside.listed("other"):
        return unfinished(f"another name can't be had either: {arm.outside.listed('other')[0]}")
    errors, owners = arm.outside.listed("errors"), arm.outside.listed("owners")
    made, listed = arm.outside.table("made"), arm.outside.number("listed")
    refused = all(one == ["ContainerExistsError"] for one in errors)
    if not refused or made or listed != 1:
        return violated(f"answers {errors}, listed {listed} times, new: {made}")
    return expect(owners[0] == owners[1] != 0, f"refused twice, one owner {owners}")


CHECKS = (
    Check(
        id="life.start-once",
        cases=(LIVES,),
        scenario=_start_again,
        inside=_judge_said_once,
        outside=_judge_carried_once,
        likely="start does not look at the state it is called in",
    ),
    Check(
        id="life.id-unique",
        cases=(LIVES,),
        scenario=_take_name,
        inside=_judge_first,
        outside=_judge_owner,
        likely="a name is not claimed, or claimed without a lock",
    ),
)
