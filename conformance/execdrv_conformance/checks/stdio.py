"""Checks of `io` (streams) and `tty` (terminals)."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import select
import struct
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from execdrv.container import Container
from execdrv_conformance.agent import AgentError
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check, Gathered
from execdrv_conformance.checks.cases import PLAIN
from execdrv_conformance.finding import Arm, Finding, expect, unfinished, violated
from execdrv_conformance.job import (
    Job,
    describe_end,
    hear_or_nothing,
    read_all,
    start_job,
)
from execdrv_conformance.observe import process

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
def _pipe() -> Iterator[list[int]]:
    """Both ends; what is set to -1 is closed already."""
    ends = list(os.pipe())
    try:
        yield ends
    finally:
        for end in ends:
            if end >= 0:
                os.close(end)


def _close(ends: list[int], index: int) -> None:
    os.close(ends[index])
    ends[index] = -1


#: Of scenarios, which make containers of their own: a slow one spoils no other heading's time.
STREAMS = Case(name="streams")


# --- streams -----------------------------------------------------------------------------------

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
        _pipe() as out,
        _pipe() as err,
        bench.start(argv, stdout=out[1], stderr=err[1]) as container,
    ):
        _close(out, 1)
        _close(err, 1)
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
    with _pipe() as out, start_job(bench, argv, stdout=out[1]) as job:
        _close(out, 1)
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
    with _pipe() as feed, start_job(bench, bench.python(_READ_ALL), stdin=feed[0]) as job:
        _close(feed, 0)
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
            _close(feed, 1)
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
        with _pipe() as out:
            streams: dict[str, Any] = (
                {"capture": "1M"} if way == "captured" else {"stdout": out[1], "stderr": None}
            )
            with bench.start(argv, **streams) as container:
                _close(out, 1)
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
EPIPE = 32


def _lose_reader(bench: Bench) -> Gathered:
    with _pipe() as out, start_job(bench, bench.python(_WRITE_ON), stdout=out[1]) as job:
        _close(out, 1)
        with_reader = job.hear() == b"first" and len(os.read(out[0], 8192)) == 4096
        _close(out, 0)
        job.tell(b"gone\n")
        said = job.hear(timeout_s=END_S).decode()
        ended = _wait_end(job.container)
    # One that has no say in the matter: the default action of the signal ends it.
    with _pipe() as out, _zeros(bench, out[1]) as container:
        _close(out, 1)
        os.read(out[0], 4096)
        _close(out, 0)
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
    return expect(said == f"errno {EPIPE}", f"with a reader it was written; without: {said}")


def _judge_writer_end(arm: Arm) -> Finding:
    ended, simple = arm.outside.table("ended"), arm.outside.table("simple")
    # cat has no other reason to end; how an end is reported is for proc.exit-*.
    good = all(
        one["took_s"] <= END_S and one["reason"] in ("exited", "signaled")
        for one in (ended, simple)
    )
    return expect(good, f"the job that handles it: {ended}; cat: {simple}")


# --- terminals ---------------------------------------------------------------------------------


def _look_at_terminals(look: Look) -> dict[str, Any]:
    stat = process.read_stat(look.pid)
    streams = {n: to for n, to in process.read_fds(look.pid).items() if n < 3}
    return {
        "terminals": [n for n, to in streams.items() if to.startswith(("/dev/pts/", "/dev/tty"))],
        "session": int(stat[3]),
        "terminal": int(stat[4]),
        "caller_terminal": int(process.read_stat(os.getpid())[4]),
        "pid": look.pid,
    }


def _judge_streams(terminals: list[Any]) -> Finding:
    if len(terminals) < 3:
        return violated(f"standard streams that are terminals: {terminals or 'none'}")
    # No field asks for a terminal or its size yet: with it comes the way to resize it.
    return unfinished("there are terminals, and no field to ask for their size")


def _judge_session_inside(arm: Arm) -> Finding:
    own, of_terminal = arm.inside.number("session"), arm.inside.number("terminal_session")
    saw = f"session {own}, that of /dev/tty {of_terminal or arm.inside.text('problem')}"
    return expect(bool(of_terminal) and own == of_terminal, saw)


def _judge_session(arm: Arm) -> Finding:
    terminal, caller = arm.outside.number("terminal"), arm.outside.number("caller_terminal")
    saw = f"controlling terminal {terminal or 'none'}, the caller's {caller or 'none'}"
    return expect(terminal not in (0, caller), saw)


def _read_queue(fd: int) -> int:
    """Bytes that were typed and not read."""
    count: int = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0]
    return count


def _inject(bench: Bench) -> Gathered:
    """The job holds a terminal of the caller's, and types into it."""
    character = bench.rng.choice("abcdefghijkmnopq")
    master, slave = pty.openpty()
    try:
        # Raw, so that what is typed stands in the queue, and is not echoed or eaten.
        tty.setraw(slave)
        # For the control; a driver passes what it is asked to pass.
        os.set_inheritable(slave, True)
        with bench.agent(pass_fds=(slave,)) as look:
            inside = look.agent.call("stdio:type_character", {"character": character})
            held = Path(f"/proc/{look.pid}/fd/{slave}").exists()
        return inside, {"typed": _read_queue(slave), "held": held}
    finally:
        os.close(master)
        os.close(slave)


def _judge_typed(arm: Arm) -> Finding:
    typed, held = arm.inside.listed("typed"), arm.inside.listed("held")
    if not held and not typed:
        return unfinished("the job holds no terminal")
    return expect(not typed, f"holds {held}; typed {typed or 'nothing'}, {arm.inside['errors']}")


def _judge_queue(arm: Arm) -> Finding:
    if not arm.outside.flag("held"):
        return unfinished("the job does not hold the terminal")
    count = arm.outside.number("typed")
    return expect(not count, f"{count} bytes in the input queue of the caller's terminal")


CHECKS = (
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
    Check(
        id="tty.alloc",
        cases=(PLAIN,),
        probe="stdio:describe_terminal",
        observe=_look_at_terminals,
        inside=lambda arm: _judge_streams(sorted(arm.inside.table("sizes"))),
        outside=lambda arm: _judge_streams(arm.outside.listed("terminals")),
        likely="no pty is made",
    ),
    Check(
        id="tty.session",
        cases=(PLAIN,),
        probe="stdio:describe_terminal",
        observe=_look_at_terminals,
        inside=_judge_session_inside,
        outside=_judge_session,
        likely="setsid or TIOCSCTTY is missing",
    ),
    Check(
        id="tty.no-inject",
        cases=(STREAMS,),
        scenario=_inject,
        inside=_judge_typed,
        outside=_judge_queue,
        likely="the job has the caller's terminal as its own, or CAP_SYS_ADMIN",
    ),
)
