"""Checks of `proc`: signals, and children that have ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

from execdrv_conformance import kernel
from execdrv_conformance.bench import Bench
from execdrv_conformance.check import Check, Gathered
from execdrv_conformance.checks.process_command import PROCESS
from execdrv_conformance.finding import Arm, Finding, expect, holds, unfinished, violated
from execdrv_conformance.job import start_job
from execdrv_conformance.observe import process

#: A signal that the job gets no handler for, or that stops it, can't be waited for.
DELIVERED = tuple(sorted({*range(1, 32), 34, 35, 50, 64} - {signal.SIGKILL, signal.SIGSTOP}))
#: Signals whose default action is the end of the process: 19 to 22 stop it, the rest is ignored.
ENDING = tuple(sorted({*range(1, 32), 34, 37, 64} - {9, 17, 18, 19, 20, 21, 22, 23, 28}))
ORPHAN_PARENTS, ORPHANS_EACH = 10, 20
#: Seconds within which a polite signal must have ended a job.
END_S = 1.0


# --- signals -----------------------------------------------------------------------------------


def _end_politely(bench: Bench) -> Gathered:
    with bench.agent() as look:
        numbers = [int(word) for word in process.read_status(look.pid)["NSpid"].split()]
        facts: dict[str, Any] = {"number": numbers[-1], "levels": len(numbers)}
        if look.container is None:
            return None, facts
        begun = time.monotonic()
        look.container.signal(signal.SIGTERM)
        try:
            exit = look.container.wait(timeout_s=3 * END_S)
            facts |= {"reason": exit.reason, "signal": exit.signal}
        except TimeoutError:
            facts |= {"reason": "none", "signal": None}
        facts["took_s"] = time.monotonic() - begun
    return None, facts | {"first_survives": _first_survives()}


def _first_survives() -> bool:
    """The control: whether a process without handlers that is pid 1 outlives SIGTERM."""
    read_end, write_end = os.pipe()
    parent = os.fork()
    if parent == 0:
        try:
            kernel.unshare(kernel.CLONE_NEWPID)
            first = os.fork()
            if first == 0:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
                os.write(write_end, b"1")
                time.sleep(5)
                os._exit(0)
            os.read(read_end, 1)
            os.kill(first, signal.SIGTERM)
            time.sleep(0.05)
            alive = os.waitpid(first, os.WNOHANG)[0] == 0
            os.kill(first, signal.SIGKILL)
            os._exit(0 if alive else 1)
        finally:
            os._exit(2)
    os.close(read_end)
    os.close(write_end)
    return os.waitstatus_to_exitcode(os.waitpid(parent, 0)[1]) == 0


def _judge_polite_end(arm: Arm) -> Finding:
    if not arm.outside.flag("first_survives"):
        return unfinished("a pid 1 without handlers does not outlive SIGTERM here")
    took_s, number = arm.outside.decimal("took_s"), arm.outside["signal"]
    saw = f"{arm.outside.text('reason')} by signal {number} after {took_s:.3f} s"
    own = f"pid {arm.outside.number('number')} at level {arm.outside.number('levels')}"
    quick = number == signal.SIGTERM and took_s <= END_S
    return expect(quick and arm.outside.number("number") != 1, f"{saw}; {own}")


#: The interpreter ignores some signals by itself, but leaves the mask as it was.
_TELL_BLOCKED = (
    "import signal;print(*map(int,signal.pthread_sigmask(signal.SIG_BLOCK,[])),flush=True);input()"
)


def _default_signals(bench: Bench) -> Gathered:
    """Three programs, for none shows all: Python ignores SIGPIPE and handles SIGINT, a shell clears
    its mask once it has waited for a child, and cat does neither but can tell nothing.
    """
    with start_job(bench, ["/bin/cat"]) as job:
        job.tell(b"there\n")
        job.hear()
        status = process.read_status(job.pid)
    caller = process.read_status(os.getpid())
    with start_job(bench, bench.python(_TELL_BLOCKED)) as job:
        blocked = [int(word) for word in job.hear().split()]
    script = (
        f"for n in {' '.join(map(str, ENDING))}; do "
        '/bin/sh -c "kill -$n \\$\\$; exit 99" </dev/null 2>/dev/null; echo $n $?; done; echo end\n'
    )
    ends = {}
    with start_job(bench, ["/bin/sh"]) as job:
        job.tell(script.encode())
        while (said := job.hear()) != b"end":
            number, _, end = said.decode().partition(" ")
            ends[number] = int(end)
    names = ("SigIgn", "SigBlk")
    return {"ends": ends, "blocked": blocked}, {
        "masks": {name: int(status[name], 16) for name in names},
        "caller": {name: int(caller[name], 16) for name in names},
    }


def _judge_ends(arm: Arm) -> Finding:
    ends, blocked = arm.inside.table("ends"), arm.inside.listed("blocked")
    if len(ends) != len(ENDING):
        return unfinished(f"{len(ends)} of {len(ENDING)} signals were tried")
    alive = [int(number) for number, status in ends.items() if status != 128 + int(number)]
    saw = f"{len(ends)} signals sent, outlived: {alive}; blocked: {blocked}"
    return expect(not alive and not blocked, saw)


def _judge_masks(arm: Arm) -> Finding:
    masks, caller = arm.outside.table("masks"), arm.outside.table("caller")
    if not all(caller.values()):
        return unfinished(f"the caller ignores and blocks nothing: {caller}")
    shown = ", ".join(f"{name} {mask:#x}" for name, mask in masks.items())
    return expect(not any(masks.values()), shown)


def _deliver(bench: Bench) -> Gathered:
    numbers = list(DELIVERED)
    bench.rng.shuffle(numbers)
    got: list[int] = []
    with bench.agent() as look:
        if look.container is None:
            return {}, None
        look.agent.begin("process:log_signals", {"numbers": numbers})
        look.agent.next_fact()
        for position, number in enumerate(numbers):
            look.container.signal(number)
            got.append(look.agent.next_fact()[f"signal-{position}"])
            if got[-1] != number:
                break
        more = []
        if got == numbers:
            more = look.agent.finish(seen=1 + len(got))["more"]
    return {"sent": numbers, "got": got, "more": more}, None


def _judge_delivery(arm: Arm) -> Finding:
    sent, got = arm.inside.listed("sent"), arm.inside.listed("got")
    more = arm.inside.listed("more")
    if got != sent or more:
        return violated(f"{len(got)} of {len(sent)}; last {got[-1:]} for {sent[len(got) - 1]}")
    return holds(f"{len(got)} signals in the order sent, no other")


# --- children that have ended ------------------------------------------------------------------


def _zombies() -> set[int]:
    """Every process of the stand-in host that waits for its parent."""
    found = set()
    for pid in process.list_pids():
        with contextlib.suppress(OSError):
            if process.read_stat(pid)[0] == "Z":
                found.add(pid)
    return found


def _reap(bench: Bench) -> Gathered:
    before = _zombies()
    with bench.agent() as look:
        inside = look.agent.call(
            "process:leave_orphans", {"parents": ORPHAN_PARENTS, "each": ORPHANS_EACH}
        )
        left = _zombies() - before
        deadline = time.monotonic() + 1.0
        while left and time.monotonic() < deadline:
            time.sleep(0.01)
            left = _zombies() - before
    return inside, {"zombies": len(left)}


def _judge_orphans(arm: Arm) -> Finding:
    count, left = arm.inside.number("orphans"), arm.inside.number("left")
    if count != ORPHAN_PARENTS * ORPHANS_EACH:
        return unfinished(f"{count} orphans")
    return expect(not left, f"{count} orphans ended, {left} of their numbers are still taken")


def _judge_zombies(arm: Arm) -> Finding:
    zombies = arm.outside.number("zombies")
    return expect(not zombies, f"{zombies} zombies")


CHECKS = (
    Check(
        id="proc.sig-default",
        cases=(PROCESS,),
        scenario=_default_signals,
        inside=_judge_ends,
        outside=_judge_masks,
        likely="ignored and blocked signals survive exec, and nobody resets them",
    ),
    Check(
        id="proc.sig-deliver",
        cases=(PROCESS,),
        scenario=_deliver,
        inside=_judge_delivery,
        outside=None,
        likely="a parent of the job takes the signal and does not pass it on",
    ),
    Check(
        id="proc.pid1-term",
        cases=(PROCESS,),
        scenario=_end_politely,
        inside=None,
        outside=_judge_polite_end,
        likely="the job is pid 1 of its namespace, where default actions do nothing",
    ),
    Check(
        id="proc.reap",
        cases=(PROCESS,),
        scenario=_reap,
        inside=_judge_orphans,
        outside=_judge_zombies,
        likely="pid 1 of the namespace, or the subreaper, does not wait for all",
    ),
)
