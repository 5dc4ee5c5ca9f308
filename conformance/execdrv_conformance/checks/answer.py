"""What checks of requests share: whether each was answered rightly, and nothing was left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from execdrv_conformance.bench import Bench
from execdrv_conformance.check import Case
from execdrv_conformance.finding import Finding, expect
from execdrv_conformance.job import explain_answer
from execdrv_conformance.observe import process
from execdrv_conformance.observe.snapshot import Snapshot, wait_for_rest

Answers = dict[str, dict[str, Any]]

#: Of scenarios, which make containers of their own: a slow one spoils no other heading's time.
REQUEST = Case(name="request")


def warm(bench: Bench) -> Snapshot:
    """What there is once a good run is over: the control, and all that is made once."""
    bench.run(["/bin/true"])
    wait_for_rest(bench.snapshot(), bench.snapshot)
    return bench.snapshot()


def find_left(bench: Bench, before: Snapshot) -> list[str]:
    """What has come since and has stayed, a few of each kind."""
    more = wait_for_rest(before, bench.snapshot)
    found = [f"{kind}: {line}" for kind, lines in more.items() for line in lines[:3]]
    pids = [int(line.split()[0]) for line in more.get("process", [])[:3]]
    return [*found, *(_describe_left(pid) for pid in pids)]


def _describe_left(pid: int) -> str:
    """What a process is and does: a driver's that ends late is told from one that stays."""
    state = process.read_stat(pid)[0] if process.is_alive(pid) else "gone by now"
    return f"{process.describe(pid)} (state {state})"


def judge_answers(
    answers: Answers, *, wanted: Callable[[str], tuple[str, ...]], named: Callable[[str], str]
) -> list[str]:
    """What is wrong with each answer.

    Args:
        wanted: classes, one of which the error of a request must be.
        named: the field that it must name; empty: none.
    """
    wrong = []
    for name, answer in answers.items():
        why = explain_answer(answer, wanted=wanted(name))
        field = named(name)
        if not why and field and answer["error"].get("field") != field:
            why = f"it names field {answer['error'].get('field')!r}, not {field!r}"
        if why:
            wrong.append(f"{name}: {why}")
    return wrong


def conclude(wrong: list[str], left: list[Any], good: str) -> Finding:
    wrong = [*wrong, *(f"left: {one}" for one in left[:3])]
    return expect(not wrong, "; ".join(wrong[:6]) or good)
