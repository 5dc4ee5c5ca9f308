"""Checks of `rlim`: the resource limits of a process (getrlimit(2))."""

from __future__ import annotations

import signal
from typing import Any

from execdrv.spec import Rlimit
from execdrv_conformance.bench import Look
from execdrv_conformance.check import Case, Check
from execdrv_conformance.finding import Arm, Finding, expect, holds, unfinished, violated
from execdrv_conformance.observe import process

#: Of a user that has no other process: RLIMIT_NPROC counts those of the user, and never root's.
LIMITED_USER = 54322
FILE_BYTES = 1 << 20
RLIMITS = {
    "nofile": (96, 128),
    "fsize": (FILE_BYTES, FILE_BYTES),
    "core": (0, 0),
    "nproc": (24, 24),
    "stack": (1 << 20, 2 << 20),
}
RLIMITED = Case(
    name="rlimits",
    fields={
        "user": f"{LIMITED_USER}:{LIMITED_USER}",
        "rlimits": tuple(
            Rlimit(name=name, soft=soft, hard=hard) for name, (soft, hard) in RLIMITS.items()
        ),
    },
)
#: Names in /proc/PID/limits.
_LIMIT_LINES = {
    "nofile": "Max open files",
    "fsize": "Max file size",
    "core": "Max core file size",
    "nproc": "Max processes",
    "stack": "Max stack size",
}


def _look_at_limits(look: Look) -> dict[str, Any]:
    lines = process.read_limits(look.pid)
    return {"limits": {name: list(lines[line]) for name, line in _LIMIT_LINES.items()}}


def _judge_limits(limits: dict[str, Any], which: int) -> Finding:
    """Compare soft (0) or hard (1) limits with what was asked."""
    wrong = {
        name: found[which]
        for name, found in limits.items()
        if str(found[which]) != str(RLIMITS[name][which])
    }
    if set(limits) != set(RLIMITS):
        return unfinished(f"limits of {sorted(limits)} only")
    return violated(f"not as asked: {wrong}") if wrong else holds(f"{len(limits)} as asked")


def _judge_hard(arm: Arm) -> Finding:
    raised = arm.inside.listed("raised")
    if raised:
        return violated(f"raised: {raised}")
    return _judge_limits(arm.inside.table("limits"), 1)


def _judge_effect(arm: Arm) -> Finding:
    got = arm.inside
    acted = {
        "nofile": got.number("fds") == RLIMITS["nofile"][0] - 1,
        "fsize": got.number("over") & 0x7F == signal.SIGXFSZ,
        "nproc": 0 < got.number("forked") < RLIMITS["nproc"][0],
        "stack": got.number("arguments") != 0,
        "core": got.number("crash") & 0x7F == signal.SIGSEGV
        and not got.number("crash") & 0x80
        and not got.listed("core"),
    }
    if got.number("under") or got.number("few_arguments"):
        return violated("what is under the limits does not work")
    idle = [name for name, acts in acted.items() if not acts]
    return expect(not idle, f"without effect: {idle}" if idle else f"{sorted(acted)} act")


CHECKS = (
    Check(
        id="rlim.soft",
        cases=(RLIMITED,),
        probe="limit:read_limits",
        arguments=lambda look: {"names": list(RLIMITS)},
        observe=_look_at_limits,
        inside=lambda arm: _judge_limits(arm.inside.table("limits"), 0),
        outside=lambda arm: _judge_limits(arm.outside.table("limits"), 0),
        request={"rlimits": (Rlimit(name="nofile", soft=64, hard=64),)},
        likely="the limits are not set before the command is executed",
    ),
    Check(
        id="rlim.hard",
        cases=(RLIMITED,),
        probe="limit:raise_limits",
        arguments=lambda look: {"names": list(RLIMITS)},
        observe=_look_at_limits,
        inside=_judge_hard,
        outside=lambda arm: _judge_limits(arm.outside.table("limits"), 1),
        request={"rlimits": (Rlimit(name="nofile", soft=64, hard=64),)},
        likely="only the soft limits are set, or the job keeps CAP_SYS_RESOURCE",
    ),
    Check(
        id="rlim.effect",
        cases=(RLIMITED,),
        probe="limit:provoke_limits",
        arguments=lambda look: {
            "directory": "/tmp",
            "most_fds": 400,
            "file_bytes": FILE_BYTES,
            "most_processes": 40,
            "argument_bytes": 600_000,
        },
        inside=_judge_effect,
        outside=None,
        request={"rlimits": (Rlimit(name="nofile", soft=64, hard=64),)},
        likely="the limits are not set before the command is executed",
    ),
)
