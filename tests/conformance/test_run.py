"""How checks are handed out to workers, and what becomes of a run that is broken off."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest

from execdrv.driver import DriverRef
from execdrv_conformance import run as module
from execdrv_conformance.check import Case, Check
from execdrv_conformance.result import Result
from execdrv_conformance.run import Schedule, Step, default_workers, run_driver, shuffle

ONE, OTHER = Case(name="one"), Case(name="other")


def check(id: str, *cases: Case) -> Check:
    return Check(id=id, cases=cases, inside=None, outside=None)


def result(id: str) -> Result:
    return Result(id=id, verdict="PROVEN", reason="", scored=True, one_sided=False, measured=())


CHECKS = {one.id: one for one in (check("a", ONE), check("b", ONE), check("c", OTHER))}


def test_the_order_follows_from_the_seed() -> None:
    ids = [str(number) for number in range(50)]
    assert shuffle(ids, seed=1) == shuffle(ids, seed=1) != shuffle(ids, seed=2)
    assert sorted(shuffle(ids, seed=1)) == sorted(ids)


def test_two_workers_never_gather_one_case() -> None:
    schedule = Schedule(CHECKS, CHECKS, seed=0)
    first, second = schedule.take(), schedule.take()
    assert first is not None and second is not None
    assert CHECKS[first].cases != CHECKS[second].cases
    rest = ({"a", "b", "c"} - {first, second}).pop()
    taken: list[str | None] = []
    thread = threading.Thread(target=lambda: taken.append(schedule.take()))
    thread.start()
    schedule.give_back(result("a" if "a" in (first, second) else "b"))
    thread.join(10)
    assert taken == [rest]
    schedule.give_back(result(rest))
    assert schedule.take() is None


def test_each_step_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[Step] = []
    schedule = Schedule(CHECKS, CHECKS, seed=0, progress=steps.append)
    monkeypatch.setattr(module, "_ESTIMATE_AFTER_S", -1.0)
    while (id := schedule.take()) is not None:
        schedule.give_back(result(id))
    assert [(step.done, step.total) for step in steps] == [(1, 3), (2, 3), (3, 3)]
    assert steps[-1].left_s == 0
    assert steps[0].left_s is not None and steps[0].left_s > 0


def test_an_ended_schedule_gives_nothing_more() -> None:
    schedule = Schedule(CHECKS, CHECKS, seed=0)
    schedule.take()
    schedule.fail(ValueError("kit"))
    schedule.fail(ValueError("later"))
    assert schedule.take() is None
    assert str(schedule.error) == "kit"


def test_workers_are_few() -> None:
    assert 1 <= default_workers() <= 4


@attrs.define(eq=False)
class FakeSession:
    """Stands in for sessions: its checks fail, block or pass."""

    behave: Any
    ids: ClassVar[list[str]] = list(CHECKS)
    checks: ClassVar[dict[str, Check]] = CHECKS
    problems: list[str] = attrs.field(factory=list)
    ended: threading.Event = attrs.field(factory=threading.Event)
    closed: bool = False

    def run_check(self, id: str) -> Result:
        self.behave(self)
        return result(id)

    def stop(self) -> None:
        self.ended.set()

    def close(self) -> None:
        self.closed = True


def run_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, behave: Any
) -> tuple[list[FakeSession], Any]:
    made: list[FakeSession] = []

    def make(*_: Any, **__: Any) -> FakeSession:
        made.append(FakeSession(behave))
        return made[-1]

    monkeypatch.setattr(module, "Session", make)
    try:
        run_driver(
            DriverRef(target="d"),
            ids=CHECKS,
            seed=0,
            directory=tmp_path,
            workers=2,
            root="/nowhere",
        )
    except BaseException as error:
        return made, error
    pytest.fail("nothing was raised")


def test_what_a_worker_raises_is_raised_and_all_is_closed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(_: FakeSession) -> None:
        raise ValueError("the kit is broken")

    made, error = run_with(monkeypatch, tmp_path, fail)
    assert isinstance(error, ValueError)
    assert len(made) == 2 and all(session.closed for session in made)


def test_an_interrupt_ends_what_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import _thread

    def hang(session: FakeSession) -> None:
        _thread.interrupt_main()
        assert session.ended.wait(20)
        raise module.RunEndedError

    made, error = run_with(monkeypatch, tmp_path, hang)
    assert isinstance(error, KeyboardInterrupt)
    assert all(session.closed and session.ended.is_set() for session in made)
