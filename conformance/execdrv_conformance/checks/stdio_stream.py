"""Checks of `io`: what is written into a stream comes out of it, all of it, and nowhere else."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import time
from collections.abc import Iterator
from typing import Any

from execdrv_conformance.agent import AgentError
from execdrv_conformance.bench import Bench
from execdrv_conformance.check import Case, Check, Gathered
from execdrv_conformance.finding import Arm, Finding, expect, unfinished, violated
from execdrv_conformance.job import Job, describe_end, hear_or_nothing, read_all, start_job
from execdrv_conformance.observe import process

#: Of scenarios, which make containers of their own: a slow one spoils no other heading's time.
STREAMS = Case(name="streams")
#: Seconds in which a job that has no reason to wait must have ended.
END_S = 2.0
STREAM_TIMEOUT_S = 15.0
BIG_BYTES = 64 << 20
#: What a supervisor may grow while 64 MiB pass by it; it has its own buffers.
GROWTH_BYTES = 16 << 20
KEPT_BYTES = 1 << 20
_BLOCK = 1 << 16

#: A pattern without end that both sides can make: block N is a hash of the seed and N, repeated.
_PATTERN = """
import hashlib, os, sys
def block(seed, number):
    return hashlib.blake2b(b"%s %d" % (seed.encode(), number)).digest() * 1024
def write(fd, data):
    while data:
        data = data[os.write(fd, data):]
"""


def _block(seed: str, number: int) -> bytes:
    """The same as in `_PATTERN`."""
    return hashlib.blake2b(b"%s %d" % (seed.encode(), number)).digest() * 1024


@contextlib.contextmanager
def open_pipe() -> Iterator[list[int]]:
    """Both ends; what is set to -1 is closed already."""
    ends = list(os.pipe())
    try:
        yield ends
    finally:
        for end in ends:
            if end >= 0:
                os.close(end)


def close_end(ends: list[int], index: int) -> None:
    """Close one end before the other."""
    os.close(ends[index])
    ends[index] = -1


# --- io.split ----------------------------------------------------------------------------------

#: Writes pieces of seeded lengths to both streams in turns, each byte of a stream counted.
_SPLIT = (
    _PATTERN
    + """
seeds, lengths = sys.argv[1].split(","), [int(n) for n in sys.argv[2].split(",")]
for number, length in enumerate(lengths):
    write(1, block(seeds[0], number)[:length])
    write(2, block(seeds[1], number)[: lengths[-1 - number]])
"""
)


def _split(bench: Bench) -> Gathered:
    seeds = [bench.nonce(), bench.nonce()]
    # Less than a pipe holds: what is too much for one is for io.big.
    lengths = [bench.rng.randint(1, 900) for _ in range(100)]
    argv = bench.python(_SPLIT, ",".join(seeds), ",".join(map(str, lengths)))
    pairs = list(enumerate(lengths))
    wanted = {
        "stdout": b"".join(_block(seeds[0], number)[:length] for number, length in pairs),
        "stderr": b"".join(_block(seeds[1], n)[: lengths[-1 - n]] for n, _ in pairs),
    }
    with (
        open_pipe() as out,
        open_pipe() as err,
        bench.start(argv, stdout=out[1], stderr=err[1]) as container,
    ):
        close_end(out, 1)
        close_end(err, 1)
        piped = read_all({"stdout": out[0], "stderr": err[0]}, timeout_s=STREAM_TIMEOUT_S)
        container.wait(timeout_s=END_S)
    exit = bench.run(argv, capture="4M")
    captured = {"stdout": exit.stdout, "stderr": exit.stderr}
    return None, {
        "wanted": _hash_streams(wanted),
        "piped": _hash_streams(piped),
        "captured": _hash_streams(captured),
    }


def _hash_streams(streams: dict[str, bytes]) -> dict[str, str]:
    """Length and hash of each: the evidence need not hold the bytes."""
    return {
        name: f"{len(data)} bytes {hashlib.sha256(data).hexdigest()[:16]}"
        for name, data in streams.items()
    }


def _judge_split(arm: Arm) -> Finding:
    wanted = arm.outside.table("wanted")
    wrong = {way: got for way in ("piped", "captured") if (got := arm.outside.table(way)) != wanted}
    return expect(not wrong, f"wanted {wanted}, got {wrong or 'both, piped and captured'}")


# --- io.big ------------------------------------------------------------------------------------

#: Says on its input, a socket, that it is there, and that all is written; waits for a word then.
_WRITE_BIG = (
    _PATTERN
    + """
os.write(0, b"here\\n"); os.read(0, 1)
for number in range(int(sys.argv[2])):
    write(1, block(sys.argv[1], number))
os.write(0, b"written\\n"); os.read(0, 1)
"""
)


def _supervisors(pid: int) -> list[int]:
    """Every process between this one and the job: what a driver may hold output in."""
    found = []
    while (pid := process.parent_of(pid)) not in (0, 1, os.getpid()):
        found.append(pid)
    return found


def _read_peaks(pids: list[int]) -> dict[int, int]:
    """Most resident memory of each process so far, in bytes; those that are gone are left out."""
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError, KeyError):
            found[pid] = int(process.read_status(pid)["VmHWM"].split()[0]) * 1024
    return found


def _read_slowly(fd: int) -> tuple[int, str]:
    """Count and hash of what comes, up to all of it or two silent seconds; with rests."""
    got, count = hashlib.sha256(), 0
    time.sleep(0.2)
    while count < BIG_BYTES and select.select([fd], [], [], END_S)[0]:
        data = os.read(fd, 1 << 20)
        if not data:
            break
        got.update(data)
        if (count + len(data)) >> 22 != count >> 22:
            time.sleep(0.002)
        count += len(data)
    return count, got.hexdigest()[:16]


def _big(bench: Bench) -> Gathered:
    seed, blocks = bench.nonce(), BIG_BYTES // _BLOCK
    argv = bench.python(_WRITE_BIG, seed, str(blocks))
    wanted = hashlib.sha256()
    for number in range(blocks):
        wanted.update(_block(seed, number))
    facts: dict[str, Any] = {"wanted": wanted.hexdigest()[:16]}
    with open_pipe() as out, start_job(bench, argv, stdout=out[1]) as job:
        close_end(out, 1)
        job.hear()
        before = _read_peaks(_supervisors(job.pid))
        job.tell(b"w")
        facts["bytes"], facts["got"] = _read_slowly(out[0])
        facts["grown"] = _finish_big(job, before)
        facts["more"] = len(read_all({"more": out[0]}, timeout_s=END_S)["more"])
    # More than is kept: the rest is dropped, and the job is not held up.
    with start_job(bench, argv, capture=KEPT_BYTES) as job:
        job.hear()
        before = _read_peaks(_supervisors(job.pid))
        job.tell(b"w")
        facts["captured_grown"] = _finish_big(job, before)
        exit = job.container.wait(timeout_s=END_S)
    whole = b"".join(_block(seed, number) for number in range(KEPT_BYTES // _BLOCK))
    facts["kept"] = [len(exit.stdout), exit.stdout == whole, exit.truncated]
    return None, facts | {"captured_end": describe_end(exit)}


def _finish_big(job: Job, before: dict[int, int]) -> list[int]:
    """Wait until all is written, then see what each process above the job has grown by."""
    if hear_or_nothing(job) is None:
        return []
    after = _read_peaks(list(before))
    job.tell(b"e")
    return [after[pid] - before[pid] for pid in before if pid in after]


def _judge_big(arm: Arm) -> Finding:
    facts = arm.outside
    grown = [*facts.listed("grown"), *facts.listed("captured_grown")]
    kept, end = facts.listed("kept"), facts.text("captured_end")
    same = facts.text("wanted") == facts.text("got")
    count = facts.number("bytes") + facts.number("more")
    saw = (
        f"{count} bytes, hash {'equal' if same else 'other'}; processes above the job grew by "
        f"{grown} bytes; captured [bytes, equal, truncated]: {kept}, {end}"
    )
    piped = count == BIG_BYTES and same
    captured = kept == [KEPT_BYTES, True, True] and end == "exited, status 0"
    if not (piped and captured):
        return violated(saw)
    if not facts.listed("grown") or not facts.listed("captured_grown"):
        return unfinished(f"no process above the job was seen: {saw}")
    return expect(max(grown) <= GROWTH_BYTES, saw)


# --- io.stdin ----------------------------------------------------------------------------------

#: Says the bytes it has after each of its reads, then the hash.
_READ_ALL = """
import hashlib, json, os, sys
got, count = hashlib.sha256(), 0
while data := os.read(0, 65536):
    got.update(data)
    count += len(data)
    os.write(1, json.dumps({"bytes": count}).encode() + b"\\n")
os.write(1, json.dumps({"end": True, "bytes": count, "hash": got.hexdigest()}).encode() + b"\\n")
"""


def _stdin(bench: Bench) -> Gathered:
    first, rest = bench.rng.randbytes(4000), bench.rng.randbytes(bench.rng.randint(10**5, 10**6))
    facts: dict[str, Any] = {"sent": len(first) + len(rest)}
    facts["sent_hash"] = hashlib.sha256(first + rest).hexdigest()
    with open_pipe() as feed, start_job(bench, bench.python(_READ_ALL), stdin=feed[0]) as job:
        close_end(feed, 0)
        _write_all(feed[1], first)
        said: dict[str, Any] = {"bytes": 0}
        while said["bytes"] < len(first) and "end" not in said:
            said = json.loads(job.hear())
        facts["streamed"] = "end" not in said
        # The control: held open, it is not at its end.
        with contextlib.suppress(AgentError):
            said = json.loads(job.hear(timeout_s=0.1))
        facts["early_end"] = "end" in said
        if not facts["early_end"]:
            _write_all(feed[1], rest)
            close_end(feed, 1)
            while "end" not in said:
                said = json.loads(job.hear())
        facts |= {"got": said["bytes"], "got_hash": said["hash"]}
    with start_job(bench, bench.python(_READ_ALL), stdin=None) as job:
        said = json.loads(job.hear())
        facts["default"] = [said.get("end", False), said["bytes"]]
    return facts, None


def _write_all(fd: int, data: bytes) -> None:
    """All of it; a job that reads no more fails this by EPIPE, since the caller ignores SIGPIPE."""
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(fd, data) :]


def _judge_stdin(arm: Arm) -> Finding:
    facts = arm.inside
    whole = facts.text("sent_hash") == facts.text("got_hash")
    saw = (
        f"{facts.number('got')} of {facts.number('sent')} bytes, "
        f"hash {'equal' if whole else 'other'}; "
        f"streamed: {facts.flag('streamed')}, ended early: {facts.flag('early_end')}; "
        f"by default [ended, bytes] {facts.listed('default')}"
    )
    kept = facts.flag("streamed") and not facts.flag("early_end")
    return expect(whole and kept and facts.listed("default") == [True, 0], saw)


CHECKS: tuple[Check, ...] = (
    Check(
        id="io.split",
        cases=(STREAMS,),
        scenario=_split,
        inside=None,
        outside=_judge_split,
        likely="one stream is sent to the other, or text is decoded on its way",
    ),
    Check(
        id="io.big",
        cases=(STREAMS,),
        scenario=_big,
        inside=None,
        outside=_judge_big,
        likely="output is cut, or held in memory, where nobody reads fast enough",
    ),
    Check(
        id="io.stdin",
        cases=(STREAMS,),
        scenario=_stdin,
        inside=_judge_stdin,
        outside=None,
        likely="another process holds the write end, or the caller's own input is inherited",
    ),
)
