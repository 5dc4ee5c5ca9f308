"""Checks of `proc`: the command, from its errors and its arguments to how its end is told."""

from __future__ import annotations

import os
import signal
from typing import Any

from execdrv_conformance.bench import Bench
from execdrv_conformance.check import Case, Check, Gathered
from execdrv_conformance.finding import Arm, Finding, expect, holds, unfinished, violated
from execdrv_conformance.job import explain_answer, hear_or_nothing, provoke_run, start_job
from execdrv_conformance.observe import process

#: Always tried, for what is special about them; the rest of a run's codes are drawn by the seed.
SPECIAL_CODES = (0, 1, 126, 127, 137, 255)
DRAWN_CODES = 2
# SIGPIPE, since interpreters ignore it and hand that on.
SPECIAL_SIGNALS = (signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGPIPE)
OTHER_SIGNALS = (1, 2, 3, 6, 8, 10, 12, 13, 14, 15, 34, 40, 64)
#: Of scenarios, which make containers of their own: a slow one spoils no other heading's time.
PROCESS = Case(name="process")


# --- the end of the job ------------------------------------------------------------------------


def _exit_codes(bench: Bench) -> Gathered:
    rest = sorted(set(range(256)) - set(SPECIAL_CODES))
    codes = [*SPECIAL_CODES, *bench.rng.sample(rest, DRAWN_CODES)]
    got = []
    for code in codes:
        exit = bench.run(["/bin/sh", "-c", f"exit {code}"])
        got.append([code, exit.code, exit.signal, exit.reason])
    return None, {"exits": got}


def _judge_exit_codes(arm: Arm) -> Finding:
    exits = arm.outside.listed("exits")
    wrong = [one for one in exits if one[1:] != [one[0], None, "exited"]]
    return expect(not wrong, f"wrong: {wrong}" if wrong else f"{len(exits)} codes, each exact")


def _exit_signals(bench: Bench) -> Gathered:
    drawn = bench.rng.sample(sorted(set(OTHER_SIGNALS) - set(SPECIAL_SIGNALS)), 2)
    deaths, exits = [], []
    for number in map(int, (*SPECIAL_SIGNALS, *drawn)):
        exit = bench.run(["/bin/sh", "-c", f"kill -{number} $$"])
        deaths.append([number, exit.signal, exit.code, exit.reason])
    for number in (int(signal.SIGKILL), drawn[0]):
        exit = bench.run(["/bin/sh", "-c", f"exit {128 + number}"])
        exits.append([128 + number, exit.code, exit.signal, exit.reason])
    return None, {"deaths": deaths, "exits": exits}


def _judge_exit_signals(arm: Arm) -> Finding:
    deaths, exits = arm.outside.listed("deaths"), arm.outside.listed("exits")
    wrong = [one for one in deaths if one[1:] != [one[0], None, "signaled"]]
    wrong += [one for one in exits if one[1:] != [one[0], None, "exited"]]
    if wrong:
        return violated(f"sent, then what was told: {wrong}")
    return holds(f"signals {[one[0] for one in deaths]}, codes {[one[0] for one in exits]}")


# --- the start of the job ----------------------------------------------------------------------


def _exec_errors(bench: Bench) -> Gathered:
    name = bench.nonce()
    path, command = bench.root / "opt" / name, f"/opt/{name}"
    bench.run(["/bin/true"])
    before = process.list_pids()
    cases: dict[str, tuple[bytes | None, int]] = {
        "missing": (None, 0),
        "not executable": (b"#!/bin/sh\n", 0o644),
        "no known format": (b"\x00\xff" + bench.rng.randbytes(64), 0o755),
        "interpreter missing": (f"#!/opt/{name}.none\n".encode(), 0o755),
        "good": (b"#!/bin/sh\necho ran\n", 0o755),
    }
    answers = {}
    for case, (content, mode) in cases.items():
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
            path.chmod(mode)
        answers[case] = provoke_run(bench, [command])
    path.unlink()
    answers["not in PATH"] = provoke_run(bench, [name])
    answers["a directory"] = provoke_run(bench, ["/opt"])
    more = [pid for pid in process.list_pids() if pid not in before]
    left = process.wait_ended(more, timeout_s=2.0)
    return None, {"answers": answers, "name": name, "left": [process.describe(p) for p in left]}


#: By case: the class of the error.
EXEC_ERRORS = {
    "missing": "CommandNotFoundError",
    "not executable": "CommandNotExecutableError",
    "no known format": "CommandNotExecutableError",
    "interpreter missing": "CommandNotFoundError",
    "not in PATH": "CommandNotFoundError",
    "a directory": "CommandNotExecutableError",
}


def _judge_exec_errors(arm: Arm) -> Finding:
    answers, name = arm.outside.table("answers"), arm.outside.text("name")
    wrong = []
    for case, wanted in EXEC_ERRORS.items():
        why = explain_answer(answers[case], wanted=(wanted,))
        if (
            not why
            and (name if case != "a directory" else "/opt")
            not in (answers[case]["error"]["message"])
        ):
            why = f"the command is not named: {answers[case]['error']['message']}"
        if why:
            wrong.append(f"{case}: {why}")
    good = answers["good"]
    if good["error"] is not None or not good["ran"]:
        wrong.append(f"a good one: {good}")
    if left := arm.outside.listed("left"):
        wrong.append(f"left: {left}")
    return expect(not wrong, "; ".join(wrong) or f"{len(EXEC_ERRORS)} typed start errors")


#: Says its arguments, and waits; no character in it means anything to a shell in double quotes.
_TELL_ARGUMENTS = (
    "import os,sys;"
    "print(','.join(os.fsencode(word).hex() for word in sys.argv[1:]),flush=True);"
    "sys.stdin.read()"
)
#: What shells, option parsers and formatters take for more than it is; quotes stand in pairs, so
#: that a driver with a shell runs something, and the difference is seen.
SPECIAL_WORDS = (
    b"",
    b" ",
    b"two  words ",
    b"new\nline\n",
    b"tab\tand\rreturn",
    b"$HOME ${PATH} $$ $1",
    b"`true`$(true)",
    b'"quoted" and "again"',
    b"it's, isn't it",
    b"back\\\\slash",
    b"* ? [a-z] ~ {a,b}",
    b"; true & true | true > /dev/null",
    b"#comment",
    b"--",
    b"-c",
    b"%s %n {0} %(name)s",
    "caf\u00e9 \u2603".encode(),
    b"\xff\xfe not utf-8 \x80",
    b"\x01\x7f\x1b[0m",
    b"",
)


def _arguments(bench: Bench) -> Gathered:
    words = list(SPECIAL_WORDS)
    bench.rng.shuffle(words)
    every = list(range(1, 256))
    bench.rng.shuffle(every)
    runs = [
        # The first word must not be empty or like an option of the interpreter's: it follows -c.
        [bench.nonce().encode(), *words],
        [bytes(every), bench.rng.randbytes(bench.rng.randint(20_000, 40_000)).replace(b"\0", b"")],
        [b"%d" % n for n in range(bench.rng.randint(500, 1000))],
    ]
    inside, outside = [], []
    for sent in runs:
        argv: list[str | bytes] = [*bench.python(_TELL_ARGUMENTS), *sent]
        with start_job(bench, argv) as job:
            said = hear_or_nothing(job)
            found = process.read_words(job.pid) if said is not None else None
        inside.append(_compare([word.hex() for word in sent], _split(said)))
        wanted = [os.fsencode(word).hex() for word in argv]
        outside.append(_compare(wanted, None if found is None else [w.hex() for w in found]))
    return {"runs": inside}, {"runs": outside}


def _split(said: bytes | None) -> list[str] | None:
    return None if said is None else said.decode().split(",")


def _compare(sent: list[str], got: list[str] | None) -> dict[str, Any]:
    """The difference of two lists, short: the words themselves are long."""
    if got is None:
        return {"sent": len(sent), "got": None, "differs": []}
    pairs = [(s[:60], g[:60]) for s, g in zip(sent, got, strict=False) if s != g]
    return {"sent": len(sent), "got": len(got), "differs": [list(pair) for pair in pairs[:3]]}


def _judge_runs(runs: list[Any]) -> Finding:
    wrong = [one for one in runs if one["got"] is not None]
    wrong = [one for one in wrong if one["differs"] or one["got"] != one["sent"]]
    if wrong:
        return violated(f"{wrong[0]['sent']} words sent, {wrong[0]['got']} got, in hex {wrong[0]}")
    if any(one["got"] is None for one in runs):
        return unfinished("a job did not tell its arguments")
    return holds(f"{sum(one['sent'] for one in runs)} words, each exact")


CHECKS = (
    Check(
        id="proc.exit-code",
        cases=(PROCESS,),
        scenario=_exit_codes,
        inside=None,
        outside=_judge_exit_codes,
        likely="the status of the wrong process is reported, or it is mapped",
    ),
    Check(
        id="proc.exit-signal",
        cases=(PROCESS,),
        scenario=_exit_signals,
        inside=None,
        outside=_judge_exit_signals,
        likely="a wait status is read as an exit code, or a shell stands between",
    ),
    Check(
        id="proc.exec-error",
        cases=(PROCESS,),
        scenario=_exec_errors,
        inside=None,
        outside=_judge_exec_errors,
        likely="the error of execve is told by an exit code of the child",
    ),
    Check(
        id="proc.argv-exact",
        cases=(PROCESS,),
        scenario=_arguments,
        inside=lambda arm: _judge_runs(arm.inside.listed("runs")),
        outside=lambda arm: _judge_runs(arm.outside.listed("runs")),
        likely="the command goes through a shell, or through a text encoding",
    ),
)
