"""Checks of `time`: the clocks that the job reads, and that it can not set."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from execdrv_conformance.bench import Look
from execdrv_conformance.check import Check
from execdrv_conformance.checks.cases import PLAIN, ROOT
from execdrv_conformance.finding import Arm, Finding, expect
from execdrv_conformance.observe import process
from execdrv_conformance.observe.credential import read_credentials

CAP_SYS_TIME = 25
#: Seconds that a clock may seem to be off, while both sides read theirs.
CLOCK_SLACK_S = 1.0


def _clocks(_: Look) -> dict[str, Any]:
    return {
        "monotonic_s": time.clock_gettime(time.CLOCK_MONOTONIC),
        "boottime_s": time.clock_gettime(time.CLOCK_BOOTTIME),
    }


def _judge_set_clocks(arm: Arm) -> Finding:
    answers = arm.inside.table("answers")
    open_ = {name: said for name, said in answers.items() if said not in ("EPERM", "ENOSYS")}
    return expect(bool(answers) and not open_, f"values out of range are answered by {answers}")


def _watch_clock(look: Look) -> dict[str, Any]:
    return {"drift_s": time.time() - time.monotonic(), **read_credentials(look.pid)}


def _judge_clock_right(arm: Arm) -> Finding:
    before = arm.outside.table("before")
    jump = abs(arm.outside.decimal("drift_s") - float(before["drift_s"]))
    sets = {name: arm.outside.number(name) for name in ("CapEff", "CapPrm", "CapBnd")}
    having = [name for name, value in sets.items() if value >> CAP_SYS_TIME & 1]
    saw = f"the clock jumped {jump:.3f} s, CAP_SYS_TIME in {having}"
    return expect(jump < CLOCK_SLACK_S and not having, saw)


def _read_offsets(look: Look) -> dict[str, Any]:
    return {
        "link": process.read_namespaces(look.pid)["time"],
        "caller": process.read_namespaces("self")["time"],
        "offsets": Path(f"/proc/{look.pid}/timens_offsets").read_text().split(),
    }


def _judge_offsets(arm: Arm) -> Finding:
    offsets = [round(arm.inside.decimal(name), 3) for name in ("monotonic_s", "boottime_s")]
    moved = all(abs(offset) > CLOCK_SLACK_S for offset in offsets)
    return expect(moved, f"monotonic and boot-time clock are off by {offsets} s")


def _judge_time_namespace(arm: Arm) -> Finding:
    own = arm.outside.text("link") != arm.outside.text("caller")
    numbers = [int(word) for word in arm.outside.listed("offsets") if word.lstrip("-").isdigit()]
    saw = f"{'its own' if own else 'the caller`s'} namespace, offsets {numbers}"
    return expect(own and any(numbers), saw)


CHECKS: tuple[Check, ...] = (
    Check(
        id="time.no-set",
        cases=(ROOT,),
        probe="user:set_clocks",
        before=_watch_clock,
        observe=_watch_clock,
        inside=_judge_set_clocks,
        outside=_judge_clock_right,
        likely="the job has CAP_SYS_TIME",
    ),
    Check(
        id="time.ns",
        cases=(PLAIN,),
        probe="user:read_clocks",
        arguments=_clocks,
        observe=_read_offsets,
        inside=_judge_offsets,
        outside=_judge_time_namespace,
        likely="no time namespace is made (CLONE_NEWTIME)",
    ),
)
