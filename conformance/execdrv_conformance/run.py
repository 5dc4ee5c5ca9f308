"""Runs the selected checks of one driver with several workers, and puts their work together.

Each worker is a thread with a session, and so a stand-in host, of its own; they share one run
directory, where evidence is written once. `merge_report` makes the report from that directory
alone, whoever has filled it: these threads, or the workers of pytest-xdist.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from execdrv.driver import DriverRef
from execdrv_conformance.check import Check
from execdrv_conformance.report.model import make_report
from execdrv_conformance.result import Result
from execdrv_conformance.session import RunEndedError, Session
from execdrv_conformance.store import find_run, read_json
from execdrv_conformance.sweep import find_traces, is_run_name

#: Workers beyond this only wait for each other.
MOST_WORKERS = 4
#: Lines of a session's problems that mean that something is left on the machine.
LEFT_OVER = "left over"
#: Seconds before a time estimate is worth anything.
_ESTIMATE_AFTER_S = 1.0


@attrs.frozen(kw_only=True)
class Step:
    """How far a run is, after one more check."""

    result: Result
    done: int
    total: int
    #: Seconds that the rest takes, roughly; None: nobody knows yet.
    left_s: float | None


Progress = Callable[[Step], None]


def default_workers() -> int:
    """One for each two cpus: a worker and its containers keep about two busy."""
    return max(1, min(MOST_WORKERS, len(os.sched_getaffinity(0)) // 2))


def run_driver(
    driver: DriverRef,
    *,
    ids: Iterable[str],
    seed: int,
    directory: Path,
    workers: int = 1,
    baseline: Mapping[str, Mapping[str, Any]] | None = None,
    control: Path | None = None,
    root: str | None = None,
    progress: Progress | None = None,
    words: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The report of one driver.

    Args:
        ids: the selected guarantees; their order is shuffled by the seed.
        directory: the run directory, empty.
        workers: how many at once.
        control: where evidence of the control arm is kept, to be shared with other drivers.
        root: a root file system with Python; None: the cached one.
        progress: called after each check, by one thread at a time.
        words: how the ids were selected, for the report.
    Raises:
        UnusableDriverError: the driver can't be loaded.
        KeyboardInterrupt: the run was broken off; everything was ended.
    """
    chosen = set(ids)
    sessions = [
        Session(
            driver,
            ids=chosen,
            seed=seed,
            directory=directory,
            baseline=baseline,
            control=control,
            root=root or _make_root(),
        )
        for _ in range(max(1, workers))
    ]
    schedule = Schedule(sessions[0].checks, sessions[0].ids, seed=seed, progress=progress)
    try:
        _work_together(sessions, schedule)
    finally:
        for session in sessions:
            session.close()
    if schedule.error is not None:
        raise schedule.error
    problems = list(dict.fromkeys(line for one in sessions for line in one.problems))
    return merge_report(
        directory,
        baseline=baseline,
        control=control,
        problems=problems,
        left_over=find_traces(name) if is_run_name(name := find_run(directory).name) else (),
        words=words,
    )


def merge_report(
    directory: Path,
    *,
    baseline: Mapping[str, Mapping[str, Any]] | None = None,
    control: Path | None = None,
    problems: Iterable[str] = (),
    left_over: Iterable[str] = (),
    words: Mapping[str, Any] | None = None,
    ids: Iterable[str] | None = None,
) -> dict[str, Any]:
    """The report of what all workers have left in a run directory; every verdict is judged anew.

    Args:
        directory: one driver's.
        baseline, control: as the workers had them.
        problems: what the workers' sessions complained of.
        left_over: what is left on the machine (`sweep.find_traces`, once all workers have ended).
        ids: what was selected; None: what the first session says.
    Raises:
        OSError: no session has ever worked there.
    """
    noted = read_json(directory / "session.json")
    session = Session(
        DriverRef(target=noted["target"], options=noted["options"]),
        ids=noted["ids"] if ids is None else ids,
        seed=noted["seed"],
        directory=directory,
        baseline=baseline,
        control=control,
    )
    try:
        session.read_back()
        session.problems += problems
        left = [line for line in session.problems if line.startswith(LEFT_OVER)]
        session.problems = [line for line in session.problems if line not in left]
        return make_report(session, left_over=[*left, *left_over], words=words)
    finally:
        session.close()


def _make_root() -> str:
    from execdrv.rootfs import make_root

    return make_root(["python3"]).path


def _work_together(sessions: Sequence[Session], schedule: Schedule) -> None:
    """A thread for each session, until all have ended; broken off, they are ended first."""
    threads = [threading.Thread(target=_work, args=(one, schedule)) for one in sessions]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        schedule.end()
        for session in sessions:
            session.stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        raise


def _work(session: Session, schedule: Schedule) -> None:
    """A worker: check after check until there is none."""
    try:
        while (id := schedule.take()) is not None:
            schedule.give_back(session.run_check(id))
    except RunEndedError:
        pass
    except BaseException as error:
        schedule.fail(error)


class Schedule:
    """Which check comes next: in shuffled order, but none whose case another worker is gathering.

    Args:
        checks: by id.
        ids: those to be run.
        seed: of the order.
        progress: called after each.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        ids: Iterable[str],
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> None:
        self._cases = {id: tuple(case.name for case in checks[id].cases) for id in ids}
        self._pending = shuffle(self._cases, seed=seed)
        self._total = len(self._pending)
        self._busy: dict[str, tuple[str, ...]] = {}
        self._costs = _estimate_costs(checks, self._pending)
        self._all = sum(self._costs.values())
        self._done = 0
        self._begun = time.monotonic()
        self._progress = progress
        self._change = threading.Condition()
        #: What a worker failed with.
        self.error: BaseException | None = None

    def take(self) -> str | None:
        """The next check, after a wait if need be; None: there is nothing more to do."""
        with self._change:
            while self._pending:
                taken = {case for cases in self._busy.values() for case in cases}
                for id in self._pending:
                    if not taken.intersection(self._cases[id]):
                        self._pending.remove(id)
                        self._busy[id] = self._cases[id]
                        return id
                self._change.wait()
            return None

    def give_back(self, result: Result) -> None:
        """A check has its result."""
        with self._change:
            for case in self._busy.pop(result.id):
                self._costs.pop(case, None)
            self._done += 1
            self._change.notify_all()
            if self._progress is not None:
                step = Step(
                    result=result, done=self._done, total=self._total, left_s=self._estimate()
                )
                self._progress(step)

    def _estimate(self) -> float | None:
        left = sum(self._costs.values())
        elapsed_s = time.monotonic() - self._begun
        if elapsed_s < _ESTIMATE_AFTER_S or left >= self._all:
            return None
        return elapsed_s * left / (self._all - left)

    def fail(self, error: BaseException) -> None:
        """A worker has failed: no other one begins anything new."""
        with self._change:
            self.error = self.error or error
        self.end()

    def end(self) -> None:
        """Nothing more is to be done."""
        with self._change:
            self._pending.clear()
            self._change.notify_all()


def shuffle(ids: Iterable[str], *, seed: int) -> list[str]:
    """The order of a run; the same for the same ids and seed."""
    order = list(ids)
    random.Random(seed).shuffle(order)
    return order


def _estimate_costs(checks: Mapping[str, Check], ids: Iterable[str]) -> dict[str, float]:
    """What each case costs in relation to the others: a container, and its checks."""
    costs: dict[str, float] = {}
    for id in ids:
        for case in checks[id].cases:
            costs.setdefault(case.name, 0.4)
            own = 1.0 if checks[id].scenario is not None else 0.1
            costs[case.name] += own * (2.0 if case.exclusive else 1.0)
    return costs
