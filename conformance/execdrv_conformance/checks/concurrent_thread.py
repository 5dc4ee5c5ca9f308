"""Checks of `conc`: operations from many threads of the caller, on one container or on many."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from execdrv.container import Container
from execdrv.errors import ExecdrvError
from execdrv_conformance.bench import DEADLINE_S, Bench
from execdrv_conformance.check import Check
from execdrv_conformance.checks.concurrent_job import (
    ANSWER,
    TOGETHER,
    WAIT_S,
    Two,
    list_wrong,
    wait_for,
)
from execdrv_conformance.checks.job import attempt, sweep, wait_until, warm_up
from execdrv_conformance.checks.rest import look_at_all, rest_of
from execdrv_conformance.finding import Arm, Finding, expect, unfinished, violated
from execdrv_conformance.observe import process

# --- races -------------------------------------------------------------------------------------

ROUNDS = 8
#: Seconds that any operation of a race may take.
WINDOW_S = DEADLINE_S


def _race(bench: Bench) -> Two:
    """Operations on one container from several threads, by one handle and by others."""
    warm_up(bench)
    before = look_at_all(bench)
    alone = _race_once(bench, ["signal", "wait", "destroy"], together=False)
    rounds = []
    for number in range(ROUNDS):
        names = ["destroy", *bench.rng.choices(_operations(), k=4)]
        bench.rng.shuffle(names)
        rounds.append(_race_once(bench, names, together=True, early=number % 4 == 3))
    return {}, {"alone": alone, "rounds": rounds, "left": rest_of(bench, before)}


def _operations() -> list[str]:
    """Those that a container has, of all that can race."""
    names = ("destroy", "signal", "wait", "limit", "stop", "exec")
    return [name for name in names if hasattr(Container, name)]


def _race_once(
    bench: Bench, names: list[str], *, together: bool, early: bool = False
) -> dict[str, Any]:
    """One container and its operations; how each came out.

    Args:
        together: all at once, else one after the other.
        early: before it is started: start is one of them.
    """
    nonce = bench.nonce()
    box = bench.container(
        bench.python("import time; time.sleep(60)", nonce), stdout=None, stderr=None
    )
    for step in (box.create, box.isolate, box.limit):
        step()
    if early:
        names = ["start", *names]
    else:
        box.start()
    results: dict[int, str] = {}
    delays = [bench.rng.random() * 0.004 for _ in names]
    barrier = threading.Barrier(len(names) if together else 1)
    threads = []
    for number, name in enumerate(names):
        handle = box if bench.rng.random() < 0.5 else bench.host.get(box.id)
        act = _operation(handle, name)
        threads.append(
            threading.Thread(
                target=_take_part, args=(act, barrier, delays[number], results, number), daemon=True
            )
        )
    for thread in threads:
        thread.start()
        if not together:
            thread.join(WINDOW_S + 5)
    for thread in threads:
        thread.join(WINDOW_S + 5)
    hung = [names[number] for number, thread in enumerate(threads) if thread.is_alive()]
    gone = box.state
    attempt(box.destroy)
    sweep(nonce)
    answers = [f"{names[number]}: {result}" for number, result in sorted(results.items())]
    return {"answers": answers, "hung": hung, "state": gone}


def _operation(handle: Container, name: str) -> Callable[[], Any]:
    match name:
        case "signal":
            return lambda: handle.signal(9)
        case "wait":
            return lambda: handle.wait(timeout_s=WINDOW_S)
        case "exec":
            return lambda: getattr(handle, name)(["/bin/true"])
    operation: Callable[[], Any] = getattr(handle, name)
    return operation


def _take_part(
    act: Callable[[], Any],
    barrier: threading.Barrier,
    delay_s: float,
    results: dict[int, str],
    number: int,
) -> None:
    barrier.wait()
    time.sleep(delay_s)
    begun = time.monotonic()
    try:
        act()
        result = "ok"
    except (ExecdrvError, TimeoutError) as error:
        result = type(error).__name__
    except Exception as error:
        result = f"untyped {type(error).__name__}: {error}"
    took_s = time.monotonic() - begun
    results[number] = result if took_s <= WINDOW_S else f"{result} after {took_s:.1f} s"


def _judge_races(arm: Arm) -> Finding:
    alone = arm.outside.table("alone")
    if alone["answers"] != ["signal: ok", "wait: ok", "destroy: ok"]:
        return unfinished(f"one after the other: {alone}")
    wrong = []
    for one in arm.outside.listed("rounds"):
        wrong += [f"{name} hung" for name in one["hung"]]
        wrong += [a for a in one["answers"] if "untyped" in a or " after " in a or "Timeout" in a]
        wrong += [a for a in one["answers"] if a.startswith("destroy:") and not a.endswith("ok")]
        wrong += [f"then {one['state']}"] if one["state"] != "destroyed" else []
    left = arm.outside.table("left")
    if wrong or left:
        return violated(f"{'; '.join(wrong[:4])} {f'left: {left}' if left else ''}".strip())
    return expect(True, f"{ROUNDS} races, each with its results, nothing left")


# --- threads -----------------------------------------------------------------------------------

THREADS = 6
LIVES_A_THREAD = 2
#: What a job has open here.
THREE = ["0 pipe", "1 pipe", "2 pipe"]


def _run_in_threads(bench: Bench) -> Two:
    """Step by step at once in every thread; what each job and a plain child have open."""
    alone = _live_in_threads(bench, 1)
    before = _child_descriptors()
    children = process.list_children(os.getpid())
    results = _live_in_threads(bench, THREADS)
    new = [pid for pid in process.list_children(os.getpid()) if pid not in children]
    return {}, {
        "alone": alone["answers"],
        "many": results["answers"],
        "descriptors": results["descriptors"],
        "child": [before, results["child"]],
        "children": [process.describe(pid) for pid in new],
    }


def _live_in_threads(bench: Bench, count: int) -> dict[str, Any]:
    """Each thread makes containers, with a barrier before each step, and notes their answers."""
    barrier = threading.Barrier(count)
    plans = [
        [(bench.nonce(), bench.rng.randrange(256)) for _ in range(LIVES_A_THREAD)]
        for _ in range(count)
    ]
    answers: list[dict[str, Any]] = []
    descriptors: list[list[str]] = []
    child: list[list[str]] = []

    def work(plan: list[tuple[str, int]]) -> None:
        for word, number in plan:
            answers.append(_live_once(bench, word, number, barrier, descriptors, child))

    threads = [threading.Thread(target=work, args=(plan,), daemon=True) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIVES_A_THREAD * WAIT_S)
    missing = count * LIVES_A_THREAD - len(answers)
    answers += [{"word": "", "number": 0, "error": ["a thread hung"]}] * missing
    sweep(*(word for plan in plans for word, _ in plan))
    return {
        "answers": answers,
        "descriptors": descriptors,
        "child": child[0] if child else [],
    }


def _live_once(
    bench: Bench,
    word: str,
    number: int,
    barrier: threading.Barrier,
    descriptors: list[list[str]],
    child: list[list[str]],
) -> dict[str, Any]:
    answer: dict[str, Any] = {"word": word, "number": number, "error": []}
    reader, writer = os.pipe()
    box = None
    try:
        argv = ["/bin/sh", "-c", ANSWER, "sh", word, str(number)]
        box = bench.container(argv, stdin=reader, capture=1000)
        for step in (box.create, box.isolate, box.limit, box.start):
            barrier.wait(WAIT_S)
            step()
        descriptors += _read_descriptors(word)
        if barrier.wait(WAIT_S) == 0:
            # All run now: what a child of this process gets of all of them.
            child.append(_child_descriptors())
        barrier.wait(WAIT_S)
        os.close(writer)
        writer = -1
        answer.update(wait_for(box))
    except (ExecdrvError, threading.BrokenBarrierError) as error:
        barrier.abort()
        answer["error"] = [f"{type(error).__name__}: {error}"]
    finally:
        for fd in (reader, writer):
            if fd >= 0:
                os.close(fd)
        if box is not None:
            attempt(box.destroy)
    return answer


def _read_descriptors(word: str) -> list[list[str]]:
    """Numbers and kinds of what the job with a word has open, once its libraries are loaded."""
    found: list[list[str]] = []

    def look() -> bool:
        found.clear()
        for pid in process.find_marked(word):
            with contextlib.suppress(OSError):
                fds = process.read_fds(pid)
                found.append([f"{fd} {link.partition(':')[0]}" for fd, link in sorted(fds.items())])
        return bool(found) and all(one == THREE for one in found)

    wait_until(look, timeout_s=5.0)
    return found


def _child_descriptors() -> list[str]:
    """What a plain child of this process inherits, beside its three, that keeps all it can."""
    with subprocess.Popen(
        ["/bin/cat"], close_fds=False, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as child:
        if child.stdin is None or child.stdout is None:
            return []
        # When it has answered, its libraries are loaded.
        child.stdin.write(b"x")
        child.stdout.read(1)
        return sorted(link for fd, link in process.read_fds(child.pid).items() if fd > 2)


def _judge_threads(arm: Arm) -> Finding:
    alone = list_wrong(arm.outside.listed("alone"))
    if alone:
        return unfinished(f"in one thread: {alone[0]}")
    many, descriptors = arm.outside.listed("many"), arm.outside.listed("descriptors")
    wrong = list_wrong(many)
    if wrong:
        return violated(f"{len(wrong)} of {len(many)} wrong: {wrong[0]}")
    if len(descriptors) < len(many):
        return unfinished(f"descriptors of {len(descriptors)} jobs were seen, of {len(many)}")
    odd = [one for one in descriptors if one != THREE]
    before, after = arm.outside.listed("child")
    children = arm.outside.listed("children")
    if odd or before != after or children:
        more = [link for link in after if link not in before]
        saw = f"a job has open {odd[:1]}; a child of the caller inherits {more[:3]}"
        return violated(f"{saw}; new children of the caller: {children}")
    return expect(True, f"{len(many)} right results of {THREADS} threads; each job has its three")


CHECKS: tuple[Check, ...] = (
    Check(
        id="conc.races",
        cases=(TOGETHER,),
        scenario=_race,
        inside=None,
        outside=_judge_races,
        likely="an operation does not expect that another has ended the container meanwhile",
    ),
    Check(
        id="conc.threads",
        cases=(TOGETHER,),
        scenario=_run_in_threads,
        inside=None,
        outside=_judge_threads,
        likely="a descriptor without close-on-exec, or a fork of a process with threads",
    ),
)
