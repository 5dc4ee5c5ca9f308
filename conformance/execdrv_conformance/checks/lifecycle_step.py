"""Checks of a container's steps: what runs when, and what is legal when.

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
    sweep,
    wait_until,
    warm_up,
)
from execdrv_conformance.finding import Arm, Finding, expect, unfinished
from execdrv_conformance.observe import process
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


CHECKS = (
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
)
