"""Checks of `tty`: a terminal of the job's own, and one of the caller's in its hands."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
import tty
from pathlib import Path
from typing import Any

from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Check, Gathered
from execdrv_conformance.checks.cases import PLAIN
from execdrv_conformance.checks.stdio_stream import STREAMS
from execdrv_conformance.finding import Arm, Finding, expect, unfinished, violated
from execdrv_conformance.observe import process


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


CHECKS: tuple[Check, ...] = (
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
