"""Checks of `leak`: what is left after a failure at each stage."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from execdrv.spec import Bind
from execdrv_conformance.bench import Bench
from execdrv_conformance.check import Check
from execdrv_conformance.checks.job import attempt, state_of, warm_up
from execdrv_conformance.checks.leak import LEAKS, Two, busy_fields
from execdrv_conformance.checks.rest import look_at_all, look_at_decoys, rest_of, sweep_rest
from execdrv_conformance.finding import Arm, Finding, expect, unfinished
from execdrv_conformance.observe import supervisor

#: Memory in which nothing can be started.
TINY_BYTES = 4096


def _fail(bench: Bench) -> Two:
    """A failure at each stage, and the supervisor's death after each step."""
    warm_up(bench)
    seen = look_at_decoys(bench)
    root = bench.fresh_root()
    (root / "srv/file").write_text("no directory")
    (root / "srv/text").write_text("no program")
    (root / "srv/text").chmod(0o755)
    folder = bench.directory("bound")
    true = ["/bin/true"]
    taken = f"taken-{bench.nonce()}"
    asked: dict[str, tuple[list[str], dict[str, Any]]] = {
        "no such command": (["/no/such/command"], {}),
        "no program": (["/srv/text"], {}),
        "no such directory": (true, {"workdir": "/no/such/directory"}),
        "file as directory": (true, {"workdir": "/srv/file"}),
        "bind onto a file": (
            true,
            {"binds": (Bind(source=os.fsencode(folder), target=b"/srv/file"),)},
        ),
        "bind below a file": (
            true,
            {"binds": (Bind(source=os.fsencode(folder), target=b"/srv/file/below"),)},
        ),
        "too little memory": (true, {"memory": TINY_BYTES}),
        "no such user": (true, {"user": "nobody-has-this-name"}),
        "an id of another": (true, {"name": taken}),
    }
    failures = []
    full = busy_fields(bench)
    with bench.start(["/bin/sleep", "60"], stdout=None, stderr=None, name=taken):
        for title, (argv, fields) in asked.items():
            before = look_at_all(bench)
            act = _runner(bench, argv, {**full, **fields, "rootfs": root})
            errors = attempt(act)
            left = rest_of(bench, before)
            sweep_rest(left)
            failures.append({"stage": title, "error": errors[:1], "left": left})
        for steps in (1, 2, 3):
            before = look_at_all(bench)
            title, errors = _fail_after(bench, steps, full)
            left = rest_of(bench, before)
            sweep_rest(left)
            failures.append({"stage": title, "error": errors[:1], "left": left})
    return {}, {"failures": failures, "seen": seen}


def _runner(bench: Bench, argv: list[str], fields: dict[str, Any]) -> Callable[[], Any]:
    return lambda: bench.run(argv, **fields)


def _fail_after(bench: Bench, steps: int, fields: dict[str, Any]) -> tuple[str, list[str]]:
    """The supervisor is killed after some steps; the caller's next step fails, and it destroys."""
    box = bench.container(["/bin/sleep", "60"], stdout=None, stderr=None, **fields)
    lived = (box.create, box.isolate, box.limit, box.start)
    for step in lived[:steps]:
        step()
    supervisor.kill_together([supervisor.find_supervisor(state_of(bench), box.id)])
    errors = attempt(lived[steps])
    errors += attempt(box.destroy)
    return f"supervisor killed after {lived[steps - 1].__name__}", errors


def _judge_failures(arm: Arm) -> Finding:
    failures, seen = arm.outside.listed("failures"), arm.outside.table("seen")
    blind = [kind for kind in ("mount", "group", "file") if not seen.get(kind)]
    if blind:
        return unfinished(f"the look finds no {blind[0]} where there is one")
    if failures[0]["error"] != ["CommandNotFoundError"]:
        return unfinished(f"a command that is not there: {failures[0]['error'] or 'no error'}")
    left = [f"{one['stage']}: {one['left']}" for one in failures if one["left"]]
    failed = [one for one in failures if one["error"]]
    return expect(
        not left, "; ".join(left[:3]) if left else f"{len(failed)} failures, nothing left"
    )


CHECKS = (
    Check(
        id="leak.failed",
        cases=(LEAKS,),
        scenario=_fail,
        inside=None,
        outside=_judge_failures,
        likely="what was made before the failure is removed after success only",
    ),
)
