"""Checks of `conc`: many containers at once, many threads, and operations that race."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from execdrv.container import Container
from execdrv.errors import ExecdrvError
from execdrv.spec import Rlimit
from execdrv_conformance.bench import DEADLINE_S, Bench
from execdrv_conformance.check import Case, Check
from execdrv_conformance.checks.job import attempt, sweep, wait_until, warm_up
from execdrv_conformance.checks.leak import look_at_all, rest_of
from execdrv_conformance.finding import Arm, Finding, expect, unfinished, violated
from execdrv_conformance.observe import group, process

TOGETHER = Case(name="together", budget_s=90.0)

Two = tuple[dict[str, Any], dict[str, Any]]

WAIT_S = 10.0

# --- twenty at once ----------------------------------------------------------------------------

MANY = 20
#: Prints its word, waits for the end of its input, exits with its number.
_ANSWER = 'echo "$1"; read -r _; exit "$2"'


def _answer_all(bench: Bench) -> Two:
    """Twenty jobs that all live before the first may end; one alone before them."""
    alone = _answer_together(bench, 1)
    return {"alone": alone, "many": _answer_together(bench, MANY)}, {}


def _answer_together(bench: Bench, count: int) -> list[dict[str, Any]]:
    """What each was to say and to return, and what it did."""
    wanted = [(bench.nonce(), number) for number in bench.rng.sample(range(256), count)]
    reader, writer = os.pipe()
    boxes: list[Container | None] = []
    answers: list[dict[str, Any]] = []
    try:
        for word, number in wanted:
            argv = ["/bin/sh", "-c", _ANSWER, "sh", word, str(number)]
            errors: list[str] = []
            try:
                boxes.append(bench.start(argv, stdin=reader, capture=1000))
            except ExecdrvError as error:
                boxes.append(None)
                errors = [str(error)]
            answers.append({"word": word, "number": number, "error": errors})
        os.close(writer)
        writer = -1
        for answer, box in zip(answers, boxes, strict=True):
            if box is not None:
                answer.update(_wait_for(box))
    finally:
        for fd in (reader, writer):
            if fd >= 0:
                os.close(fd)
        for box in boxes:
            if box is not None:
                attempt(box.destroy)
    return answers


def _wait_for(box: Container) -> dict[str, Any]:
    try:
        exit = box.wait(timeout_s=WAIT_S)
    except (ExecdrvError, TimeoutError) as error:
        return {"error": [f"{type(error).__name__}: {error}"]}
    return {"said": exit.stdout.decode(errors="replace").strip(), "code": exit.code}


def _list_wrong(answers: list[dict[str, Any]]) -> list[str]:
    return [
        f"{one.get('said')!r}, {one.get('code')} {one['error'] or ''} "
        f"instead of {one['word']!r}, {one['number']}"
        for one in answers
        if one["error"] or one.get("said") != one["word"] or one.get("code") != one["number"]
    ]


def _judge_answers(arm: Arm) -> Finding:
    alone = _list_wrong(arm.inside.listed("alone"))
    if alone:
        return unfinished(f"one alone: {alone[0]}")
    many = arm.inside.listed("many")
    wrong = _list_wrong(many)
    if wrong:
        return violated(f"{len(wrong)} of {len(many)} wrong: {wrong[0]}")
    return expect(len(many) == MANY, f"{len(many)} at once, each its own word and code")


# --- crosstalk ---------------------------------------------------------------------------------

TALKERS = 4
#: Prints what it is and has, leaves a file, says what it finds of others, and waits.
_TALK = (
    "import os,resource,sys\n"
    "word=sys.argv[1]\n"
    "open('/tmp/'+word,'w').close()\n"
    "os.write(1,(word+' '+os.environ['XDC_WORD']+' '"
    "+str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])+'\\n').encode())\n"
    "sys.stdin.read()\n"
    "names=sorted(name for name in os.listdir('/tmp') if name.startswith('xdc'))\n"
    "os.write(1,(' '.join(names)+'\\n').encode())\n"
)
NOFILE_LEAST = 100
MEMORY_LEAST = 48 << 20


def _talk_across(bench: Bench) -> Two:
    """Containers whose steps are interleaved; each has its own word, limits, root and output."""
    reader, writer = os.pipe()
    rows = [_talker(bench, number) for number in range(TALKERS)]
    inside: list[dict[str, Any]] = []
    outside: list[dict[str, Any]] = []
    boxes = []
    try:
        with contextlib.ExitStack() as opened:
            for row in rows:
                out = opened.enter_context(open(row["file"], "wb"))
                box = bench.container(
                    row["argv"], stdin=reader, stdout=out, stderr=None, **row["fields"]
                )
                boxes.append(box)
        for step in ("create", "isolate", "limit", "start"):
            for box in bench.rng.sample(boxes, len(boxes)):
                getattr(box, step)()
        for row in rows:
            _wait_for_lines(row["file"], 1)
        outside = [_read_limits(row) for row in rows]
        # All have left their file: now each looks around.
        os.close(writer)
        writer = -1
        for row in rows:
            _wait_for_lines(row["file"], 2)
            inside.append({"want": _plain(row), "said": row["file"].read_text().splitlines()})
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
        for box in boxes:
            attempt(box.destroy)
        sweep(*(row["word"] for row in rows))
    return {"talkers": inside}, {"talkers": outside}


def _talker(bench: Bench, number: int) -> dict[str, Any]:
    word = bench.nonce()
    nofile = NOFILE_LEAST + 7 * number + bench.rng.randrange(7)
    fields = bench.adapt(
        {
            "env": {"XDC_WORD": word},
            "memory": MEMORY_LEAST + (number << 20),
            "rlimits": (Rlimit(name="nofile", soft=nofile, hard=nofile),),
        }
    )
    root = _link_root(bench)
    return {
        "word": word,
        "nofile": nofile,
        "memory": fields.get("memory"),
        "fields": {**fields, "rootfs": root},
        "argv": bench.python(_TALK, word),
        "file": bench.directory("talk") / "said",
    }


def _link_root(bench: Bench) -> Path:
    """A root of its own with the same files: a job here makes new ones and changes none."""
    top = bench.scratch / f"root-{bench.nonce()}"
    for directory, _, files in os.walk(bench.root):
        copy = top / Path(directory).relative_to(bench.root)
        copy.mkdir()
        copy.chmod(stat.S_IMODE(os.stat(directory).st_mode))
        for name in files:
            os.link(os.path.join(directory, name), copy / name, follow_symlinks=False)
        for name in os.listdir(directory):
            if os.path.islink(os.path.join(directory, name)) and not os.path.lexists(copy / name):
                (copy / name).symlink_to(os.readlink(os.path.join(directory, name)))
    (top / "tmp").chmod(0o1777)
    return top


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("word", "nofile", "memory")}


def _wait_for_lines(file: Path, count: int) -> None:
    deadline = time.monotonic() + 5.0
    while file.read_bytes().count(b"\n") < count and time.monotonic() < deadline:
        time.sleep(0.005)


def _read_limits(row: dict[str, Any]) -> dict[str, Any]:
    """What the kernel says of the process that carries a word."""
    pids = process.find_marked(row["word"])
    found: dict[str, Any] = {"want": _plain(row), "processes": len(pids)}
    if pids:
        found["nofile"] = process.read_limits(pids[0])["Max open files"][0]
        found["output"] = os.readlink(f"/proc/{pids[0]}/fd/1") == str(row["file"])
        directory = group.directory_of(pids[0], "memory")
        if row["memory"] is not None and directory is not None:
            found["memory"] = group.read_memory(directory)["limit"]
    return found


def _judge_talk(arm: Arm) -> Finding:
    wrong = []
    for one in arm.inside.listed("talkers"):
        want = one["want"]
        right = [f"{want['word']} {want['word']} {want['nofile']}", want["word"]]
        if one["said"] != right:
            wrong.append(f"{one['said']} instead of {right}")
    return expect(not wrong, wrong[0] if wrong else f"{TALKERS} jobs, each its own")


def _judge_limits(arm: Arm) -> Finding:
    wrong = []
    for one in arm.outside.listed("talkers"):
        want = one["want"]
        right = (
            one["processes"] == 1
            and one["nofile"] == str(want["nofile"])
            and one["output"]
            and one.get("memory") == want["memory"]
        )
        wrong += [] if right else [str(one)]
    return expect(not wrong, wrong[0] if wrong else f"{TALKERS} processes, each its own limits")


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
        argv = ["/bin/sh", "-c", _ANSWER, "sh", word, str(number)]
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
        answer.update(_wait_for(box))
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

    wait_until(look, timeout_s=1.0)
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
    alone = _list_wrong(arm.outside.listed("alone"))
    if alone:
        return unfinished(f"in one thread: {alone[0]}")
    many, descriptors = arm.outside.listed("many"), arm.outside.listed("descriptors")
    wrong = _list_wrong(many)
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


CHECKS = (
    Check(
        id="conc.many",
        cases=(TOGETHER,),
        scenario=_answer_all,
        inside=_judge_answers,
        outside=None,
        likely="something of one container is kept where all can write",
    ),
    Check(
        id="conc.crosstalk",
        cases=(TOGETHER,),
        scenario=_talk_across,
        inside=_judge_talk,
        outside=_judge_limits,
        likely="something of one container is kept where all can write",
    ),
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
