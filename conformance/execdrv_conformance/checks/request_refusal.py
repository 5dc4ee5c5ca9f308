"""Checks of `bad`: what a driver lacks is refused, and each failure is of its kind."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from execdrv.container import Container
from execdrv.driver import DriverRef
from execdrv.errors import UnsupportedError
from execdrv.spec import Bind, Rlimit, Tmpfs
from execdrv_conformance.bench import Bench, describe_error
from execdrv_conformance.check import Check, Gathered
from execdrv_conformance.checks.answer import (
    REQUEST,
    Answers,
    conclude,
    find_left,
    judge_answers,
    warm,
)
from execdrv_conformance.finding import Arm, Finding, unfinished
from execdrv_conformance.job import provoke, provoke_run

#: Absent ids that are required one by one; all of them are required together too.
REQUIRED_ALONE = 4
MEMORY_BYTES = 48 << 20
TMPFS_BYTES = 1 << 20
#: Number of CAP_CHOWN (capabilities(7)), and the user of the jobs that ask for much at once.
CHOWN = 0
USER, GROUP, OTHER_GROUP = 54321, 54322, 54323


# --- what the driver does not have -------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Wish:
    """Fields that ask for something, and what the job must see if they are taken."""

    fields: dict[str, Any]
    #: The argument of the look at its effect; None: the job can't see it.
    look: Any = None


def _wishes(bench: Bench, place: Path) -> dict[str, Wish]:
    """One of each kind that costs little to look at, with values of this run's own."""
    word, rng = bench.nonce(), bench.rng
    for name in ("one", "two"):
        (place / name).mkdir()
        (place / name).chmod(0o777)
        (place / name / "word").write_text(word)
        (place / name / "word").chmod(0o644)
    number, pids = rng.randint(100, 400), rng.randint(12, 20)
    rlimit = Rlimit(name="nofile", soft=number, hard=number + 7)
    binds = [
        Bind(source=os.fsencode(place / name), target=target, read_only=read_only)
        for name, target, read_only in (("one", b"/mnt", False), ("two", b"/media", True))
    ]
    open_directory = f"/opt/{place.name}"
    return {
        "hostname": Wish(fields={"hostname": word}, look=word),
        "root_mode": Wish(fields={"root_mode": "read-only"}, look=open_directory),
        "tmpfs": Wish(
            fields={"tmpfs": (Tmpfs(target=b"/srv", size=TMPFS_BYTES),)},
            look={"target": "/srv", "size": TMPFS_BYTES},
        ),
        "bind": Wish(fields={"binds": (binds[0],)}, look={"target": "/mnt", "word": word}),
        "bind-read-only": Wish(
            fields={"binds": (binds[1],)}, look={"target": "/media", "word": word}
        ),
        "net": Wish(fields={"net": "none"}, look={}),
        "memory": Wish(fields={"memory": MEMORY_BYTES}, look=MEMORY_BYTES),
        "cpus": Wish(fields={"cpus": 0.5}, look=0.5),
        "pids": Wish(fields={"pids": pids}, look=pids),
        "rlimits": Wish(
            fields={"rlimits": (rlimit,)},
            look={"name": "nofile", "soft": number, "hard": number + 7},
        ),
        "cap_drop": Wish(fields={"cap_drop": ("CHOWN",)}, look=CHOWN),
        "user": Wish(fields={"user": f"{USER}:{GROUP}"}, look=[USER, GROUP]),
        "groups": Wish(fields={"groups": (str(OTHER_GROUP),)}, look=[OTHER_GROUP]),
        "workdir": Wish(fields={"workdir": "/usr/lib"}, look="/usr/lib"),
        "env": Wish(fields={"env": {"XDC_WISH": word}}, look=["XDC_WISH", word]),
        # A driver that has groups puts it there; cg.placed shows it.
        "cgroup_parent": Wish(fields={"cgroup_parent": f"xdc-none-{word}"}),
    }


def _join(wishes: dict[str, Wish]) -> dict[str, Any]:
    """All fields in one spec; binds add up."""
    fields: dict[str, Any] = {}
    for wish in wishes.values():
        for name, value in wish.fields.items():
            fields[name] = (*fields.get(name, ()), *value) if name == "binds" else value
    return fields


def _is_offered(bench: Bench, wish: Wish) -> bool:
    _, out = bench.declaration.leave_out(wish.fields, bench.machine)
    return not out


@contextlib.contextmanager
def _open_in_root(bench: Bench, name: str) -> Iterator[None]:
    """A directory in the root to which every user may write: only a mount can keep it."""
    path = bench.root / "opt" / name
    path.mkdir()
    path.chmod(0o777)
    try:
        yield
    finally:
        (path / "made").unlink(missing_ok=True)
        path.rmdir()


def _fails_closed(bench: Bench) -> Gathered:
    before = warm(bench)
    place = bench.directory("wishes")
    wishes = _wishes(bench, place)
    lacking = {name: wish for name, wish in wishes.items() if not _is_offered(bench, wish)}
    answers = {name: provoke_run(bench, **wish.fields) for name, wish in lacking.items()}
    absent = [id for id, status in bench.declaration.statuses.items() if status["kind"] == "absent"]
    alone = bench.rng.sample(absent, min(REQUIRED_ALONE, len(absent)))
    for id in alone:
        answers[f"require {id}"] = provoke_run(bench, require=[id])
    unnamed: list[str] = []
    if absent:
        answers["require all"], unnamed = _require_all(bench, absent)
    offered = {
        name: wish for name, wish in wishes.items() if name not in lacking and wish.look is not None
    }
    with _open_in_root(bench, place.name):
        effects, refused = _take(bench, offered)
    return None, {
        "answers": answers | refused,
        "unnamed": unnamed,
        "effects": effects,
        "offered": sorted(set(offered) - set(refused)),
        "left": find_left(bench, before),
    }


def _require_all(bench: Bench, absent: list[str]) -> tuple[dict[str, Any], list[str]]:
    """One request for all; what the refusal does not name would have been kept silently."""
    named: set[str] = set()

    def run() -> Any:
        try:
            return bench.run(["/bin/true"], require=absent)
        except UnsupportedError as error:
            named.update(one["guarantee"] for one in error.refusals or ())
            raise

    answer = {**provoke(run), "ran": False}
    answer["ran"] = answer["error"] is None
    return answer, sorted(set(absent) - named)


def _take(bench: Bench, offered: dict[str, Wish]) -> tuple[dict[str, Any], Answers]:
    """What the job sees of each wish in one container; and what the machine does not let have.

    A driver may offer what this machine can't give: it says so, and the others are asked again.
    """
    refused: Answers = {}
    while True:
        rest = {name: wish for name, wish in offered.items() if name not in refused}
        if not rest:
            return {}, refused
        try:
            with bench.agent(**_join(rest)) as look:
                asked = {name: wish.look for name, wish in rest.items()}
                seen = look.agent.call("request:look_at_effects", {"asked": asked})
                return seen, refused
        except UnsupportedError as error:
            fields = {one["field"] for one in error.refusals or ()}
            more = [name for name, wish in rest.items() if fields & set(wish.fields)]
            if not more:
                raise
            plain = {"error": describe_error(error), "ran": False}
            refused |= dict.fromkeys(more, plain)


def _judge_fails_closed(arm: Arm) -> Finding:
    answers, effects = arm.outside.table("answers"), arm.outside.table("effects")
    wrong = judge_answers(answers, wanted=lambda _: ("UnsupportedError",), named=lambda _: "")
    wrong += [f"{id} was required and not refused" for id in arm.outside.listed("unnamed")]
    offered = arm.outside.listed("offered")
    wrong += [
        f"{name} was accepted, and the job sees none of it: {effects[name][1]}"
        for name in offered
        if name in effects and not effects[name][0]
    ]
    silent = [name for name in offered if name not in effects]
    if silent and not wrong:
        return unfinished(f"nothing was said of {silent}")
    good = f"refused: {len(answers)}; accepted and seen by the job: {len(offered)}"
    return conclude(wrong, arm.outside.listed("left"), good)


# --- kinds of errors ---------------------------------------------------------------------------


def _state_errors(bench: Bench) -> Answers:
    """Operations out of their order, on one container."""
    answers: Answers = {}
    box: Container = bench.container(["/bin/sleep", "20"], stdout=None, stderr=None)
    try:
        answers["state: start before create"] = provoke(box.start)
        answers["state: isolate before create"] = provoke(box.isolate)
        box.create()
        answers["state: start before isolate"] = provoke(box.start)
        answers["state: signal before start"] = provoke(lambda: box.signal(signal.SIGTERM))
        box.isolate()
        answers["state: isolate twice"] = provoke(box.isolate)
        box.limit()
        box.start()
        answers["state: start twice"] = provoke(box.start)
        answers["exists: its name again"] = provoke_run(bench, name=box.id)
    finally:
        box.destroy()
    answers["gone: get"] = provoke(lambda: bench.host.get(box.id))
    return answers


def _typed(bench: Bench) -> Gathered:
    word = bench.nonce()
    text = bench.root / "opt" / word
    text.write_text("no program")
    text.chmod(0o644)
    closed = bench.scratch / f"{word}.none"
    number = 900 + bench.rng.randint(0, 50)
    try:
        answers: Answers = {
            "missing: command": provoke_run(bench, [f"/opt/{word}.none"]),
            "exec: not executable": provoke_run(bench, [f"/opt/{word}"]),
            "start: working directory": provoke_run(bench, workdir=f"/opt/{word}.none"),
            "spec: rootfs": provoke_run(bench, rootfs=str(closed)),
            "spec: memory": provoke_run(bench, memory="much"),
            "spec: user": provoke_run(bench, user=word[:30]),
            "spec: pass_fds": provoke_run(bench, pass_fds=(number,)),
            "spec: name": provoke_run(bench, name="../a"),
            "unsupported: option": provoke_run(bench, driver_options={"xdc-none": "1"}),
            "unsupported: guarantee": provoke_run(bench, require=["xdc.none"]),
            "driver: unknown": provoke(
                lambda: bench.host.run(DriverRef(target=word), ["/bin/true"], rootfs=bench.root)
            ),
            **_state_errors(bench),
        }
        # Where binds are not offered, the refusal comes first.
        source = Bind(source=os.fsencode(closed), target=b"/mnt")
        answers["either: bind's source"] = provoke_run(bench, binds=(source,))
        # Under a file there is no place for it.
        below = Tmpfs(target=f"/opt/{word}/below".encode())
        answers["either: tmpfs below a file"] = provoke_run(bench, tmpfs=(below,))
    finally:
        text.unlink()
    good = provoke_run(bench)
    return None, {"answers": answers, "good": good}


#: By kind of failure: the classes, one of which it must be, and what it must tell beside.
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "missing": (("CommandNotFoundError",), ("operation", "driver", "container")),
    "exec": (("CommandNotExecutableError",), ("operation", "driver", "container")),
    "start": (("OperationError",), ("operation", "driver", "container")),
    "spec": (("SpecError",), ("field", "value")),
    "unsupported": (("UnsupportedError",), ("driver",)),
    "driver": (("UnknownDriverError",), ("name",)),
    "state": (("StateError",), ("operation", "container", "state")),
    "exists": (("ContainerExistsError",), ("container",)),
    "gone": (("ContainerNotFoundError",), ("container",)),
    "either": (("UnsupportedError", "SpecError", "OperationError"), ()),
}


def _judge_typed(arm: Arm) -> Finding:
    answers = arm.outside.table("answers")
    wrong = judge_answers(
        answers, wanted=lambda name: KINDS[name.partition(":")[0]][0], named=lambda _: ""
    )
    for name, answer in answers.items():
        missing = [
            field
            for field in KINDS[name.partition(":")[0]][1]
            if answer["error"] and not answer["error"].get(field)
        ]
        if missing:
            wrong.append(f"{name}: it does not tell {missing}: {answer['error']}")
    if not arm.outside.table("good")["ran"]:
        wrong.append(f"without a failure: {arm.outside.table('good')}")
    return conclude(wrong, [], f"{len(answers)} failures, each typed")


CHECKS: tuple[Check, ...] = (
    Check(
        id="bad.fails-closed",
        cases=(REQUEST,),
        scenario=_fails_closed,
        inside=None,
        outside=_judge_fails_closed,
        likely="a field is offered, and nothing is done for it",
    ),
    Check(
        id="bad.typed",
        cases=(REQUEST,),
        scenario=_typed,
        inside=None,
        outside=_judge_typed,
        likely="an exception of the driver's own language or library gets through",
    ),
)
