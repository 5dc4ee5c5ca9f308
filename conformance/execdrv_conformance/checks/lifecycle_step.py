"""Checks of a container's steps: what runs when, what is legal when, who may have a name.

Scenarios; the model of legal steps is the kit's own, written from the contract.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from execdrv.container import Container
from execdrv_conformance.bench import Bench
from execdrv_conformance.check import Case, Check
from execdrv_conformance.checks.job import (
    attempt,
    kill,
    other_caller,
    state_of,
    sweep,
    wait_until,
    warm_up,
)
from execdrv_conformance.finding import Arm, Finding, expect, unfinished, violated
from execdrv_conformance.observe import process, supervisor
from execdrv_conformance.observe.snapshot import wait_for_rest

LIVES = Case(name="lives", budget_s=90.0)

Two = tuple[dict[str, Any], dict[str, Any]]

# --- nothing before start ----------------------------------------------------------------------

#: Seconds in which a command that runs too early would have said so.
EARLY_S = 0.06


def _wait_before_start(bench: Bench) -> Two:
    """Step by step: what the job has written, and who runs its command."""
    nonce = bench.nonce()
    canary = bench.directory("inert") / "touched"
    argv = bench.python(f"import os,time; os.write(1,b'{nonce}'); time.sleep(60)")
    said: dict[str, str] = {}
    running: dict[str, int] = {}
    touched: dict[str, int] = {}
    with open(canary, "wb") as out:
        box = bench.container(argv, stdout=out, stderr=None)
        try:
            for step in (box.create, box.isolate, box.limit):
                step()
                time.sleep(EARLY_S)
                _look_for_job(step.__name__, canary, argv, said, running, touched)
            box.start()
            wait_until(lambda: canary.stat().st_size > 0, timeout_s=5.0)
            _look_for_job("start", canary, argv, said, running, touched)
        finally:
            box.destroy()
            sweep(nonce)
    return {"nonce": nonce, "said": said}, {"running": running, "touched": touched}


def _look_for_job(
    step: str,
    canary: Path,
    argv: list[str],
    said: dict[str, str],
    running: dict[str, int],
    touched: dict[str, int],
) -> None:
    said[step] = canary.read_text()
    touched[step] = canary.stat().st_size
    running[step] = len(_list_running(argv))


def _list_running(argv: list[str]) -> list[int]:
    """Processes whose command is exactly this."""
    words = [word.encode() for word in argv]
    found = []
    for pid in process.list_pids():
        try:
            if process.read_words(pid) == words and process.is_alive(pid):
                found.append(pid)
        except OSError:
            continue
    return found


def _judge_said(arm: Arm) -> Finding:
    said = arm.inside.table("said")
    early = [step for step, words in said.items() if step != "start" and words]
    if said["start"] != arm.inside.text("nonce"):
        return unfinished(f"after start the job said {said['start']!r}")
    return expect(not early, f"the job spoke after {early or 'start only'}")


def _judge_running(arm: Arm) -> Finding:
    running, touched = arm.outside.table("running"), arm.outside.table("touched")
    early = [step for step, count in running.items() if step != "start" and count]
    early += [f"{step} (canary)" for step, size in touched.items() if step != "start" and size]
    if running["start"] != 1:
        return unfinished(f"after start {running['start']} processes run the command")
    return expect(not early, f"the command ran after {early or 'start only'}")


# --- states ------------------------------------------------------------------------------------

#: Operation -> states it is legal in -> state after it.
MODEL: dict[str, dict[str, str]] = {
    "create": {"creating": "created"},
    "isolate": {"created": "isolated"},
    "limit": {"isolated": "ready", "ready": "ready", "running": "running"},
    "start": {"ready": "running"},
    "signal": {"running": "running"},
}
#: One life in which every operation is tried in every state; `end`: the job ends by itself.
WALK = ("create", "isolate", "limit", "limit", "start", "signal", "limit", "end")
SEQUENCES = 3
STEPS = 9
#: Seconds for what a refused operation needs for a moment.
REST_S = 0.5


def _compare_states(bench: Bench) -> Two:
    """Sequences of operations against the model."""
    warm_up(bench)
    wrong: list[str] = []
    counts = {"legal": 0, "illegal": 0}
    _walk(bench, wrong, counts)
    for _ in range(SEQUENCES):
        _wander(bench, wrong, counts)
    return {}, {"wrong": wrong[:8], **counts}


def _walk(bench: Bench, wrong: list[str], counts: dict[str, int]) -> None:
    """Every illegal operation in every state on the way through a life."""
    with _Traveller(bench, wrong, counts) as one:
        for step in WALK:
            illegal = [name for name, legal in MODEL.items() if one.model not in legal]
            bench.rng.shuffle(illegal)
            for name in illegal:
                one.take(name, looks=True)
            one.take(step)
        for name in bench.rng.sample(list(MODEL), len(MODEL)):
            one.take(name, looks=True)


def _wander(bench: Bench, wrong: list[str], counts: dict[str, int]) -> None:
    with _Traveller(bench, wrong, counts) as one:
        for _ in range(STEPS):
            legal = [name for name, states in MODEL.items() if one.model in states]
            # Half of the steps go on, so that late states are reached.
            goes_on = legal and bench.rng.random() < 0.5
            one.take(bench.rng.choice(legal if goes_on else list(MODEL)))


class _Traveller:
    """A container and the model of it."""

    def __init__(self, bench: Bench, wrong: list[str], counts: dict[str, int]) -> None:
        self.model = "creating"
        self._asked = False
        self._bench = bench
        self._wrong = wrong
        self._counts = counts
        self._nonce = bench.nonce()
        self._box = bench.container(
            bench.python("import time; time.sleep(60)", self._nonce), stdout=None, stderr=None
        )

    def __enter__(self) -> _Traveller:
        return self

    def __exit__(self, *_: object) -> None:
        errors = attempt(self._box.destroy)
        sweep(self._nonce)
        state = self._box.state
        # What is never created is never destroyed either.
        if errors or state not in ("destroyed", "creating"):
            self._wrong.append(f"destroy in {self.model}: {errors or state}")

    def take(self, name: str, *, looks: bool = False) -> None:
        """One operation: it must do what the model says.

        Args:
            looks: whether a refused one is looked at for changes on the machine.
        """
        if name == "end":
            self._end_job()
            return
        # Its supervisor may still be on its way when the first request is made.
        before = self._bench.snapshot() if looks and self._asked else None
        self._asked = True
        errors = attempt(self._operation(name))
        expected = MODEL[name].get(self.model)
        self._counts["illegal" if expected is None else "legal"] += 1
        if expected is None:
            if "StateError" not in errors:
                self._wrong.append(f"{name} in {self.model}: {errors[:1] or 'no error'}")
        elif errors:
            self._wrong.append(f"{name} in {self.model}: {errors[0]}")
        else:
            self.model = expected
        if before is not None and expected is None:
            changed = wait_for_rest(before, self._bench.snapshot, timeout_s=REST_S)
            if changed:
                self._wrong.append(f"{name} in {self.model} made {changed}")
        if self._box.state != self.model:
            self._wrong.append(f"{name}: state {self._box.state}, not {self.model}")

    def _operation(self, name: str) -> Callable[[], Any]:
        box: Container = self._box
        # 0 is no signal and reaches nobody.
        return (lambda: box.signal(0)) if name == "signal" else getattr(box, name)

    def _end_job(self) -> None:
        for pid in process.find_marked(self._nonce):
            kill(pid)
        if not wait_until(lambda: self._box.state == "stopped", timeout_s=3.0):
            self._wrong.append(f"the job was killed: state {self._box.state}, not stopped")
        self.model = "stopped"


def _judge_states(arm: Arm) -> Finding:
    wrong = arm.outside.listed("wrong")
    legal, illegal = arm.outside.number("legal"), arm.outside.number("illegal")
    if not legal or not illegal:
        return unfinished(f"{legal} legal and {illegal} illegal operations were tried")
    return expect(not wrong, "; ".join(wrong) if wrong else f"{legal} taken, {illegal} refused")


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
            answers.append(bool(attempt_call(look)))
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


def attempt_call(look: Any) -> dict[str, Any]:
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


STEP_CHECKS = (
    Check(
        id="life.create-inert",
        cases=(LIVES,),
        scenario=_wait_before_start,
        inside=_judge_said,
        outside=_judge_running,
        likely="the command is executed before the gate is opened",
    ),
    Check(
        id="life.states",
        cases=(LIVES,),
        scenario=_compare_states,
        inside=None,
        outside=_judge_states,
        likely="an operation does not look at the state it is called in",
    ),
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
