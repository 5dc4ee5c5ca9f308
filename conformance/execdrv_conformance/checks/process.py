"""Checks of `proc`: the process, its exit and its signals.

What the job is given at its start is gathered once, in one container, for several ids.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from execdrv_conformance import kernel
from execdrv_conformance.agent import AgentError
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check, Gathered
from execdrv_conformance.finding import Arm, Finding, expect, holds, unfinished, violated
from execdrv_conformance.job import explain_answer, hear_or_nothing, provoke_run, start_job
from execdrv_conformance.observe import process
from execdrv_conformance.standin.furnish import CALLER_OOM_SCORE_ADJ, CALLER_UMASK

#: Always tried, for what is special about them; the rest of a run's codes are drawn by the seed.
SPECIAL_CODES = (0, 1, 126, 127, 137, 255)
DRAWN_CODES = 2
SPECIAL_SIGNALS = (signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV)
OTHER_SIGNALS = (1, 2, 3, 6, 8, 10, 12, 13, 14, 15, 34, 40, 64)
#: A signal that the job gets no handler for, or that stops it, can't be waited for.
DELIVERED = tuple(sorted({*range(1, 32), 34, 35, 50, 64} - {signal.SIGKILL, signal.SIGSTOP}))
#: Signals whose default action is the end of the process: 19 to 22 stop it, the rest is ignored.
ENDING = tuple(sorted({*range(1, 32), 34, 37, 64} - {9, 17, 18, 19, 20, 21, 22, 23, 28}))
#: Numbers of descriptors that the job tries.
MOST_DESCRIPTORS = 4096
ORPHAN_PARENTS, ORPHANS_EACH = 10, 20
#: Seconds within which a polite signal must have ended a job.
END_S = 1.0
#: PATH and HOME come with every container (execdrv.driver.Defaults).
ALWAYS_SET = (b"PATH", b"HOME")
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


@attrs.frozen(kw_only=True)
class _Start:
    """What a job was given, told by itself and by the kernel."""

    inside: dict[str, Any]
    outside: dict[str, Any]


@contextlib.contextmanager
def _passed_file(bench: Bench) -> Iterator[int]:
    """A descriptor of the caller's, at a number of this run's own."""
    path = bench.scratch / bench.nonce()
    fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    number = bench.rng.randint(200, 900)
    try:
        os.dup2(fd, number, inheritable=False)
        yield number
    finally:
        os.close(fd)
        os.close(number)
        path.unlink()


@contextlib.contextmanager
def _open_directory(bench: Bench) -> Iterator[Path]:
    """A directory in the root that every user may write to."""
    path = bench.root / "opt" / bench.nonce()
    path.mkdir()
    path.chmod(0o777)
    try:
        yield path
    finally:
        for name in ("file", "folder"):
            with contextlib.suppress(FileNotFoundError):
                one = path / name
                one.rmdir() if one.is_dir() else one.unlink()
        path.rmdir()


def _gather_start(bench: Bench) -> _Start:
    variables = {
        "XDC_EMPTY": b"",
        "XDC_NEWLINE": b"a\nb=c\n",
        "XDC_BYTES": bytes(sorted(bench.rng.sample(range(1, 256), 60))),
        f"xdc.{bench.nonce()}": bench.nonce().encode(),
        "_": b" quoted ' \" $HOME ",
    }
    with _passed_file(bench) as number, _open_directory(bench) as directory:
        passed = os.fstat(number)
        with bench.agent(env=variables, pass_fds=(number,)) as look:
            sent = {os.fsencode(name): value for name, value in variables.items()}
            inside = look.agent.call(
                "process:list_variables", {"names": [name.hex() for name in sent]}
            )
            inside |= look.agent.call("process:list_descriptors", {"most": MOST_DESCRIPTORS})
            outside = {
                "sent": sorted((name + b"=" + value).hex() for name, value in sent.items()),
                "variables": _list_variables(look.pid, set(sent)),
                "descriptors": {str(n): to for n, to in process.read_fds(look.pid).items()},
                # The control gets no descriptor: what it has more is what it must show.
                "passed": number if "pass_fds" in look.fields and look.container else None,
                "passed_file": [passed.st_dev, passed.st_ino],
            }
            if look.container is not None:
                # One that fails, in a root that is not the kit's, has said nothing of the modes.
                with contextlib.suppress(AgentError):
                    inside |= look.agent.call(
                        "process:make_with_umask", {"directory": f"/opt/{directory.name}"}
                    )
                outside |= _look_at_modes(look, directory.name)
    return _Start(inside=inside, outside=outside)


def _list_variables(pid: int, names: set[bytes]) -> list[str]:
    """As the probe of that name: values of others' variables are not for a report."""
    pairs = [word.partition(b"=") for word in process.read_environment(pid)]
    return sorted((n + b"=" + (value if n in names else b"")).hex() for n, _, value in pairs)


def _look_at_modes(look: Look, name: str) -> dict[str, Any]:
    """What the probe has made; of what is not in that process's root nothing is said."""
    directory = Path(f"/proc/{look.pid}/root/opt/{name}")
    facts = {
        "umask": int(process.read_status(look.pid)["Umask"], 8),
        "caller_umask": CALLER_UMASK,
    }
    for made in ("file", "folder"):
        with contextlib.suppress(OSError):
            facts[made] = (directory / made).stat().st_mode & 0o777
    return facts


def _start_facts(bench: Bench) -> Gathered:
    start = bench.share(_gather_start)
    return start.inside, start.outside


def _judge_variables(words: list[Any], arm: Arm) -> Finding:
    got = [bytes.fromhex(word) for word in words]
    sent = [bytes.fromhex(word) for word in arm.outside.listed("sent")]
    names = {word.partition(b"=")[0] for word in sent}
    canary = arm.canaries.listed("variable")[0].encode()
    missing = [word for word in sent if got.count(word) != 1]
    more = [
        name
        for word in got
        if word not in sent and (name := word.partition(b"=")[0]) not in ALWAYS_SET
    ]
    doubled = [name for name in (*names, *ALWAYS_SET) if _count(got, name) != 1]
    if missing or more or doubled:
        caller = "the caller's canary among them" if canary in more else "no canary"
        return violated(
            f"missing {missing[:3]}, more {more[:5]} ({caller}), not once {doubled[:3]}"
        )
    return holds(f"{len(sent)} variables as sent, PATH and HOME, no other")


def _count(words: list[bytes], name: bytes) -> int:
    return sum(word.partition(b"=")[0] == name for word in words)


def _judge_descriptors(numbers: list[int], arm: Arm) -> Finding:
    passed = arm.outside["passed"]
    wanted = {0, 1, 2} if passed is None else {0, 1, 2, passed}
    more, less = sorted(set(numbers) - wanted), sorted(wanted - set(numbers))
    if more or less:
        return violated(f"open beside what was passed: {more}; not open: {less}")
    return holds(f"{sorted(numbers)}")


def _judge_descriptors_inside(arm: Arm) -> Finding:
    table = arm.inside.table("descriptors")
    found = _judge_descriptors([int(number) for number in table], arm)
    passed = arm.outside["passed"]
    if found.state == "holds" and passed is not None:
        same = table[str(passed)] == arm.outside.listed("passed_file")
        return found if same else violated(f"{passed} leads to another file")
    return found


def _judge_modes(facts: Any, arm: Arm) -> Finding:
    # 022 is every driver's (execdrv.driver.Defaults), and there is no field to ask for another.
    file, folder = facts.number("file"), facts.number("folder")
    saw = f"a file got {file:04o}, a directory {folder:04o}"
    return expect((file, folder) == (0o644, 0o755), saw)


def _judge_umask(arm: Arm) -> Finding:
    modes = _judge_modes(arm.outside, arm)
    umask = arm.outside.number("umask")
    saw = f"umask {umask:04o} (the caller's is {arm.outside.number('caller_umask'):04o})"
    return expect(modes.state == "holds" and umask == 0o022, f"{saw}, {modes.saw}")


def _directories(bench: Bench) -> Gathered:
    wanted = bench.rng.choice(["/usr/lib", "/var", "/etc", "/usr/bin"])
    closed = bench.root / "opt" / bench.nonce()
    closed.mkdir()
    closed.chmod(0o700)
    try:
        with bench.agent(workdir=wanted) as look:
            inside = look.agent.call("process:describe_directory", {"path": wanted})
            here = process.identity(f"/proc/{look.pid}/cwd")
            there = process.identity(f"/proc/{look.pid}/root{wanted}")
        answers = {
            "missing": provoke_run(bench, workdir=f"/opt/{bench.nonce()}"),
            "a file": provoke_run(bench, workdir="/bin/true"),
            "closed to the user": provoke_run(
                bench, workdir=f"/opt/{closed.name}", user="54321:54321"
            ),
        }
    finally:
        closed.rmdir()
    inside |= {"wanted": wanted, "ran": [case for case, one in answers.items() if one["ran"]]}
    errors = {case: one["error"] and one["error"]["classes"][0] for case, one in answers.items()}
    return inside, {"same": here == there, "wanted": wanted, "errors": errors}


def _judge_directory_inside(arm: Arm) -> Finding:
    found, wanted = arm.inside.text("directory"), arm.inside.text("wanted")
    ran = arm.inside.listed("ran")
    saw = f"{found}, asked was {wanted}; ran though its directory is {ran or 'wrong: never'}"
    return expect(arm.inside.flag("same") and found == wanted and not ran, saw)


def _judge_directory(arm: Arm) -> Finding:
    # Of what class an error is, is for bad.typed.
    errors, same = arm.outside.table("errors"), arm.outside.flag("same")
    saw = f"{'the' if same else 'not the'} root's {arm.outside.text('wanted')}; errors {errors}"
    return expect(same and all(errors.values()), saw)


# --- signals -----------------------------------------------------------------------------------


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


# --- processes of the job ----------------------------------------------------------------------


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


def _oom_score(bench: Bench) -> Gathered:
    with bench.agent() as look:
        path = Path(f"/proc/{look.pid}/oom_score_adj")
        began = int(path.read_text())
        with contextlib.suppress(AgentError):
            look.agent.call("process:lower_oom_score", {"value": began - 10})
        return None, {"began": began, "lowered": int(path.read_text()) < began}


def _judge_oom_score(arm: Arm) -> Finding:
    # No field asks for a value yet, so all that can be told is whether it is the caller's.
    began, lowered = arm.outside.number("began"), arm.outside.flag("lowered")
    kept = began == CALLER_OOM_SCORE_ADJ
    saw = f"{began}, {'the caller`s' if kept else 'its own'}, lowered: {lowered}"
    return expect(not kept and not lowered, saw)


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
    Check(
        id="proc.env-exact",
        cases=(PROCESS,),
        scenario=_start_facts,
        inside=lambda arm: _judge_variables(arm.inside.listed("variables"), arm),
        outside=lambda arm: _judge_variables(arm.outside.listed("variables"), arm),
        likely="the environment of the caller is passed on",
    ),
    Check(
        id="proc.cwd",
        cases=(PROCESS,),
        scenario=_directories,
        inside=_judge_directory_inside,
        outside=_judge_directory,
        likely="the directory is entered before the root is changed, or its error is dropped",
    ),
    Check(
        id="proc.umask",
        cases=(PROCESS,),
        scenario=_start_facts,
        inside=lambda arm: _judge_modes(arm.inside, arm),
        outside=_judge_umask,
        likely="the umask of the caller is inherited",
    ),
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
    Check(
        id="proc.fds-closed",
        cases=(PROCESS,),
        scenario=_start_facts,
        inside=_judge_descriptors_inside,
        outside=lambda arm: _judge_descriptors(
            [int(number) for number in arm.outside.table("descriptors")], arm
        ),
        likely="descriptors are inherited; close_range is missing before exec",
    ),
    Check(
        id="proc.oom-adj",
        cases=(PROCESS,),
        scenario=_oom_score,
        inside=None,
        outside=_judge_oom_score,
        likely="the value of the caller is inherited",
    ),
)
