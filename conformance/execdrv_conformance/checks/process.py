"""Checks of `proc`: the process, its exit and its signals."""

from __future__ import annotations

from execdrv_conformance.bench import Bench
from execdrv_conformance.check import Check, Gathered
from execdrv_conformance.checks.cases import PLAIN
from execdrv_conformance.finding import Arm, Finding, expect

#: Always tried, for what is special about them; the rest of a run's codes are drawn by the seed.
SPECIAL_CODES = (0, 1, 2, 37, 124, 125, 126, 127, 128, 137, 255)
DRAWN_CODES = 3


def _exit_codes(bench: Bench) -> Gathered:
    codes = [*SPECIAL_CODES, *bench.rng.sample(range(256), DRAWN_CODES)]
    got = []
    for code in codes:
        exit = bench.run(["/bin/sh", "-c", f"exit {code}"])
        got.append([code, exit.code, exit.signal, exit.reason])
    return None, {"exits": got}


def _judge_exit_codes(arm: Arm) -> Finding:
    exits = arm.outside.listed("exits")
    wrong = [one for one in exits if one[1:] != [one[0], None, "exited"]]
    return expect(not wrong, f"wrong: {wrong}" if wrong else f"{len(exits)} codes, each exact")


CHECKS = (
    Check(
        id="proc.exit-code",
        cases=(PLAIN,),
        scenario=_exit_codes,
        inside=None,
        outside=_judge_exit_codes,
        likely="the status of the wrong process is reported, or it is mapped",
    ),
)
