"""Checks of `bad`: values, names and roots that can't be right; the others: `request_refusal`."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from execdrv_conformance.bench import Bench
from execdrv_conformance.check import Check, Gathered
from execdrv_conformance.checks import request_refusal
from execdrv_conformance.checks.answer import (
    REQUEST,
    Answers,
    conclude,
    find_left,
    judge_answers,
    warm,
)
from execdrv_conformance.finding import Arm, Finding
from execdrv_conformance.job import provoke, provoke_run

#: Of the job that can't read its root.
USER = 54321

# --- values ------------------------------------------------------------------------------------


def _bad_values(bench: Bench) -> list[tuple[str, str, Any]]:
    """Name, field and value of each request."""
    huge, nan = 2**63 + bench.rng.randint(0, 2**40), float("nan")
    numbers: list[tuple[str, list[Any]]] = [
        ("memory", [-1, 0, huge, nan, 1.5, True, "64MB", "", [64], {"a": 1}, b"64M"]),
        ("cpus", [-0.5, 0, nan, float("inf"), huge, True, "half", [1]]),
        ("pids", [-1, 0, huge, nan, 1.5, True, "many", [1]]),
        ("timeout", [-1, 0, nan, float("inf"), True, "soon", [1]]),
        ("user", [-1, huge, 2**32 - 1, 1.5, "a b", "", [0]]),
        ("groups", [[-1], [huge], "0", 0]),
        ("pass_fds", [[-1], [huge], ["x"], 5]),
        ("env", [["NAME"], ["=x"], {"A": "b\0c"}, {"": "x"}, {"A=B": "x"}, "A=b", 5]),
        ("workdir", ["relative", "", "/a\0b", 5]),
        ("hostname", ["", "a" * 65, "a/b", "-a", "a\nb", 5]),
        ("root_mode", ["writable", "", 5]),
        ("net", ["bridge", "", 5]),
        ("cap_add", [["NO_SUCH"], "SYS_ADMIN", [5]]),
        ("rlimits", [["nofile=5"], 5]),
        ("binds", [["/a:/b"], 5]),
        ("tmpfs", [["/tmp"], 5]),
        ("require", [["no such id"], "pid.ns", [5]]),
        ("cgroup_parent", ["../up", "/", "a/../../b", 5]),
        ("driver_options", [{"A": "b"}, {"a": 5}, "a=b"]),
        ("rootfs", ["", "/a\0b", 5]),
    ]
    return [
        (f"{field}={value!r:.40}", field, value) for field, values in numbers for value in values
    ]


def _specs(bench: Bench) -> Gathered:
    before = warm(bench)
    answers: Answers = {}
    fields = {}
    for name, field, value in _bad_values(bench):
        answers[name] = provoke_run(bench, **{field: value})
        fields[name] = field
    unknown = f"xdc_{bench.nonce()}"
    others: dict[str, dict[str, Any]] = {
        "unknown field": {unknown: 1},
        "swap alone": {"memory_swap": 0},
    }
    for name, given in others.items():
        answers[name] = provoke_run(bench, **given)
        fields[name] = next(iter(given))
    for name, argv in (("no words", []), ("a text", "true"), ("NUL", ["/bin/echo", "a\0b"])):
        answers[f"argv: {name}"] = provoke_run(bench, argv)  # type: ignore[arg-type]
        fields[f"argv: {name}"] = "argv"
    good = provoke_run(bench, env={"A": "b"}, user="0", workdir="/", timeout=30)
    return None, {
        "answers": answers,
        "fields": fields,
        "good": good,
        "left": find_left(bench, before),
    }


def _judge_specs(arm: Arm) -> Finding:
    answers, fields = arm.outside.table("answers"), arm.outside.table("fields")
    wrong = judge_answers(
        answers, wanted=lambda _: ("SpecError",), named=lambda name: str(fields[name])
    )
    if not arm.outside.table("good")["ran"]:
        wrong.append(f"good values: {arm.outside.table('good')}")
    return conclude(wrong, arm.outside.listed("left"), f"{len(answers)} specs, each refused")


# --- names -------------------------------------------------------------------------------------


def _ids(bench: Bench) -> Gathered:
    before = warm(bench)
    beside = set(os.listdir(bench.scratch))
    word = bench.nonce()
    bad: list[Any] = [
        "a/b", "/a", "../up", "..", ".", "a\0b", "a\nb", "", " ", "-a", ".a", "a b", "a" * 300,
        f"../../{word}", "caf\u00e9", "a\x1bb", "a;b", "~", 5, b"a", ["a"],
    ]  # fmt: skip
    answers: Answers = {}
    for name in bad:
        answers[f"run {name!r:.30}"] = provoke_run(bench, name=name)
        if isinstance(name, str):
            answers[f"get {name!r:.30}"] = provoke(partial(bench.host.get, name))
            answers[f"destroy {name!r:.30}"] = provoke(partial(bench.host.destroy, name))
    good = provoke_run(bench, name=f"{word[:20]}.Good-1_")
    beside = set(os.listdir(bench.scratch)) - beside
    return None, {
        "answers": answers,
        "good": good,
        "left": [*find_left(bench, before), *sorted(beside)],
    }


def _judge_ids(arm: Arm) -> Finding:
    answers = arm.outside.table("answers")
    wrong = judge_answers(
        answers,
        wanted=lambda name: ("SpecError",) if name.startswith("run") else ("UsageError",),
        named=lambda name: "name" if name.startswith("run") else "",
    )
    if not arm.outside.table("good")["ran"]:
        wrong.append(f"a good one: {arm.outside.table('good')}")
    return conclude(wrong, arm.outside.listed("left"), f"{len(answers)} calls, each refused")


# --- roots -------------------------------------------------------------------------------------


def _roots(bench: Bench) -> Gathered:
    before = warm(bench)
    place = bench.directory("roots")
    (place / "file").write_text("no root")
    (place / "dangling").symlink_to(place / "nothing")
    (place / "loop").symlink_to(place / "loop")
    os.mkfifo(place / "fifo")
    (place / "empty").mkdir()
    (place / "closed").mkdir(mode=0o700)
    names = ("missing", "file", "dangling", "loop", "fifo", "file/below", "n" * 300)
    answers = {f"{name:.20}": provoke_run(bench, rootfs=str(place / name)) for name in names}
    paths = {f"{name:.20}": str(place / name) for name in names}
    inner = {
        "empty": provoke_run(bench, rootfs=str(place / "empty")),
        "unreadable": provoke_run(bench, rootfs=str(place / "closed"), user=f"{USER}:{USER}"),
    }
    good = provoke_run(bench)
    left = find_left(bench, before)
    for name in ("empty", "closed"):
        left += [f"in the root: {one.name}" for one in (place / name).iterdir()]
    return None, {"answers": answers, "paths": paths, "inner": inner, "good": good, "left": left}


def _judge_roots(arm: Arm) -> Finding:
    answers, paths = arm.outside.table("answers"), arm.outside.table("paths")
    wrong = judge_answers(answers, wanted=lambda _: ("SpecError",), named=lambda _: "rootfs")
    wrong += [
        f"{name}: the message does not name it"
        for name, answer in answers.items()
        if answer["error"] and paths[name] not in answer["error"]["message"]
    ]
    inner = arm.outside.table("inner")
    wrong += judge_answers(
        inner,
        wanted=lambda _: ("SpecError", "UnsupportedError", "OperationError"),
        named=lambda _: "",
    )
    if not arm.outside.table("good")["ran"]:
        wrong.append(f"a good one: {arm.outside.table('good')}")
    count = len(answers) + len(inner)
    return conclude(wrong, arm.outside.listed("left"), f"{count} roots, each refused")


CHECKS: tuple[Check, ...] = (
    Check(
        id="bad.spec",
        cases=(REQUEST,),
        scenario=_specs,
        inside=None,
        outside=_judge_specs,
        likely="a value is taken as it comes",
    ),
    Check(
        id="bad.id",
        cases=(REQUEST,),
        scenario=_ids,
        inside=None,
        outside=_judge_ids,
        likely="a name becomes part of a path before it is looked at",
    ),
    Check(
        id="bad.rootfs",
        cases=(REQUEST,),
        scenario=_roots,
        inside=None,
        outside=_judge_roots,
        likely="the root is not looked at before it is used",
    ),
    *request_refusal.CHECKS,
)
