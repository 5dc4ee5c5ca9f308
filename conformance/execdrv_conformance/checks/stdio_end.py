"""Checks of `io`: an end of a pipe that outlives the job, and one that goes before it."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from execdrv.container import Container
from execdrv_conformance.agent import AgentError
from execdrv_conformance.bench import Bench
from execdrv_conformance.check import Check, Gathered
from execdrv_conformance.checks.stdio_stream import END_S, STREAMS, close_end, open_pipe
from execdrv_conformance.finding import Arm, Finding, expect, unfinished
from execdrv_conformance.job import describe_end, read_all, start_job
from execdrv_conformance.observe import process

EPIPE = 32


# --- io.eof-daemon -----------------------------------------------------------------------------

#: A grandchild in a session of its own writes to the pipe it will hold, then the job ends.
_LEAVE_HOLDER = """
import os, sys, time
ready = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(1, sys.argv[1].encode())
        os.close(ready[0]); os.close(ready[1])
        time.sleep(60)
    os._exit(0)
os.close(ready[1])
os.read(ready[0], 1)
os._exit(0)
"""


def _leave_holder(bench: Bench) -> Gathered:
    facts: dict[str, Any] = {}
    for way in ("captured", "piped"):
        nonce = bench.nonce()
        argv = bench.python(_LEAVE_HOLDER, nonce)
        with open_pipe() as out:
            streams: dict[str, Any] = (
                {"capture": "1M"} if way == "captured" else {"stdout": out[1], "stderr": None}
            )
            with bench.start(argv, **streams) as container:
                close_end(out, 1)
                begun = time.monotonic()
                try:
                    exit = container.wait(timeout_s=3 * END_S)
                    end = describe_end(exit)
                    said = exit.stdout
                except TimeoutError:
                    end, said = "none", b""
                took_s = time.monotonic() - begun
            if way == "piped":
                with contextlib.suppress(TimeoutError):
                    said = read_all({"stdout": out[0]}, timeout_s=END_S)["stdout"]
        left = process.wait_ended(process.find_marked(nonce), timeout_s=END_S)
        facts[way] = {
            "held": said == nonce.encode(),
            "end": end,
            "took_s": round(took_s, 3),
            "left": len(left),
        }
    return None, facts


def _judge_holder(arm: Arm) -> Finding:
    ways = {way: arm.outside.table(way) for way in ("captured", "piped")}
    if all(one["end"] == "exited, status 0" and not one["held"] for one in ways.values()):
        return unfinished("no grandchild took the pipe")
    good = all(
        one["held"]
        and one["end"] == "exited, status 0"
        and one["took_s"] <= END_S
        and not one["left"]
        for one in ways.values()
    )
    return expect(good, f"{ways}")


# --- io.closed-reader --------------------------------------------------------------------------

#: Writes once, then waits for a word (the reader has gone), then writes until it can't.
_WRITE_ON = """
import os
line, block = os.fdopen(0, "rb", 0), b"x" * 4096
os.write(1, block)
os.write(0, b"first\\n")
line.readline()
for _ in range(100):
    try:
        os.write(1, block)
    except OSError as error:
        os.write(0, b"errno %d\\n" % error.errno)
        os._exit(3)
os.write(0, b"written\\n")
"""


def _lose_reader(bench: Bench) -> Gathered:
    with open_pipe() as out, start_job(bench, bench.python(_WRITE_ON), stdout=out[1]) as job:
        close_end(out, 1)
        with_reader = job.hear() == b"first" and len(os.read(out[0], 8192)) == 4096
        close_end(out, 0)
        job.tell(b"gone\n")
        # To hang is what it must not do, so silence is an answer.
        said = ""
        with contextlib.suppress(AgentError):
            said = job.hear(timeout_s=END_S).decode()
        ended = _wait_end(job.container)
    # One that has no say in the matter: the default action of the signal ends it.
    with open_pipe() as out, _zeros(bench, out[1]) as container:
        close_end(out, 1)
        os.read(out[0], 4096)
        close_end(out, 0)
        simple = _wait_end(container)
    return (
        {"with_reader": with_reader, "said": said},
        {"ended": ended, "simple": simple},
    )


def _zeros(bench: Bench, out: int) -> Container:
    return bench.start(["/bin/cat", "/dev/zero"], stdout=out, stderr=None)


def _wait_end(container: Container) -> dict[str, Any]:
    begun = time.monotonic()
    try:
        exit = container.wait(timeout_s=2 * END_S)
    except TimeoutError:
        return {"reason": "none", "code": None, "signal": None, "took_s": 2 * END_S}
    return {
        "reason": exit.reason,
        "code": exit.code,
        "signal": exit.signal,
        "took_s": round(time.monotonic() - begun, 3),
    }


def _judge_writer(arm: Arm) -> Finding:
    if not arm.inside.flag("with_reader"):
        return unfinished("the write with a reader failed")
    said = arm.inside.text("said")
    saw = f"with a reader it was written; without: {said or 'it hangs'}"
    return expect(said == f"errno {EPIPE}", saw)


def _judge_writer_end(arm: Arm) -> Finding:
    ended, simple = arm.outside.table("ended"), arm.outside.table("simple")
    # cat has no other reason to end; how an end is reported is for proc.exit-*.
    good = all(
        one["took_s"] <= END_S and one["reason"] in ("exited", "signaled")
        for one in (ended, simple)
    )
    return expect(good, f"the job that handles it: {ended}; cat: {simple}")


CHECKS: tuple[Check, ...] = (
    Check(
        id="io.eof-daemon",
        cases=(STREAMS,),
        scenario=_leave_holder,
        inside=None,
        outside=_judge_holder,
        likely="the end of the output is waited for, not the end of the job",
    ),
    Check(
        id="io.closed-reader",
        cases=(STREAMS,),
        scenario=_lose_reader,
        inside=_judge_writer,
        outside=_judge_writer_end,
        likely="a process of the driver's holds the read end of the pipe",
    ),
)
