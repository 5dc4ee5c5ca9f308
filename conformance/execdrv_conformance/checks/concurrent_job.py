"""Checks of `conc`: many containers at once, each with its own answer, limits and output."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path
from typing import Any

from execdrv.container import Container
from execdrv.errors import ExecdrvError
from execdrv.spec import Rlimit
from execdrv_conformance.bench import Bench
from execdrv_conformance.check import Case, Check
from execdrv_conformance.checks.job import attempt, sweep
from execdrv_conformance.finding import Arm, Finding, expect, unfinished, violated
from execdrv_conformance.observe import group, process

TOGETHER = Case(name="together", budget_s=90.0)

Two = tuple[dict[str, Any], dict[str, Any]]

WAIT_S = 10.0


# --- twenty at once ----------------------------------------------------------------------------

MANY = 20
#: Prints its word, waits for the end of its input, exits with its number.
ANSWER = 'echo "$1"; read -r _; exit "$2"'


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
            argv = ["/bin/sh", "-c", ANSWER, "sh", word, str(number)]
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
                answer.update(wait_for(box))
    finally:
        for fd in (reader, writer):
            if fd >= 0:
                os.close(fd)
        for box in boxes:
            if box is not None:
                attempt(box.destroy)
    return answers


def wait_for(box: Container) -> dict[str, Any]:
    """What a job has said and returned in the end, or the error."""
    try:
        exit = box.wait(timeout_s=WAIT_S)
    except (ExecdrvError, TimeoutError) as error:
        return {"error": [f"{type(error).__name__}: {error}"]}
    return {"said": exit.stdout.decode(errors="replace").strip(), "code": exit.code}


def list_wrong(answers: list[dict[str, Any]]) -> list[str]:
    """The answers that are not what they were to be; those that only follow from others last."""
    wrong = [
        f"{one.get('said')!r}, {one.get('code')} {one['error'] or ''} "
        f"instead of {one['word']!r}, {one['number']}"
        for one in answers
        if one["error"] or one.get("said") != one["word"] or one.get("code") != one["number"]
    ]
    return sorted(wrong, key=lambda line: "BrokenBarrierError" in line)


def _judge_answers(arm: Arm) -> Finding:
    alone = list_wrong(arm.inside.listed("alone"))
    if alone:
        return unfinished(f"one alone: {alone[0]}")
    many = arm.inside.listed("many")
    wrong = list_wrong(many)
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
        directory = group.bounds_of(pids[0], "memory")
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


CHECKS: tuple[Check, ...] = (
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
)
