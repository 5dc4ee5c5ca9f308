"""Checks of `cpu`: a quota, a weight, a set, a budget.

Cpu time is read from the kernel's own account of the processes (proc_pid_stat(5)), so it does not
matter by what mechanism a driver limits.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from execdrv_conformance.agent import AgentError
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check, Gathered
from execdrv_conformance.checks.cases import PLAIN
from execdrv_conformance.finding import Arm, Finding, expect, holds, unfinished, violated
from execdrv_conformance.observe import process

CPUS = 0.5
#: By how much a measured share or rate may miss what was asked for.
TOLERANCE = 0.1
SPIN_S = 2.0
#: Long enough to see that nothing is limited.
CONTROL_SPIN_S = 0.5
#: Cpus that must have been idle for a share that is too small to be the quota's doing.
IDLE_SHARE = 0.25
#: Seconds that a job spins to use up a budget: no field asks for one, so any that ends it counts.
SPENT_S = 0.4
TICKS = os.sysconf("SC_CLK_TCK")

HALF_CPU = Case(name="half-cpu", fields={"cpus": CPUS}, exclusive=True)
CONTENTION = Case(name="contention", exclusive=True)


def _spin_s(look: Look) -> float:
    return CONTROL_SPIN_S if look.bench.is_control else SPIN_S


def _read_cpu(look: Look) -> dict[str, Any]:
    """Cpu seconds of the job's processes, those that have ended included, and the time."""
    ticks = 0
    for pid in process.list_tree(look.pid):
        ticks += sum(int(word) for word in process.read_stat(pid)[11:15])
    return {"cpu_s": ticks / TICKS, "at_s": time.monotonic(), "idle_s": _read_idle()}


def _read_idle() -> float:
    """Seconds that all cpus together have had nothing to do, since the boot (proc_stat(5))."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return (int(words[4]) + int(words[5])) / TICKS


def _share(arm: Arm) -> float:
    before = arm.outside.table("before")
    cpu_s = arm.outside.decimal("cpu_s") - float(before["cpu_s"])
    return cpu_s / (arm.outside.decimal("at_s") - float(before["at_s"]))


def _judge_share(share: float, arm: Arm) -> Finding:
    saw = f"{share:.3f} cpus where {CPUS:g} were asked for"
    before = arm.outside.table("before")
    idle_s = arm.outside.decimal("idle_s") - float(before["idle_s"])
    took_s = arm.outside.decimal("at_s") - float(before["at_s"])
    if share < CPUS * (1 - TOLERANCE) and idle_s < took_s * IDLE_SHARE:
        return unfinished(f"{saw}, on a machine where others left {idle_s:.1f} s idle")
    return expect(abs(share - CPUS) <= CPUS * TOLERANCE, saw)


def _judge_spin(arm: Arm) -> Finding:
    return _judge_share(arm.inside.decimal("cpu_s") / arm.inside.decimal("wall_s"), arm)


def _judge_spent(arm: Arm) -> Finding:
    return _judge_share(_share(arm), arm)


def _contend(bench: Bench) -> Gathered:
    """Two jobs on one cpu; the second would have four times the weight, if one could ask for it."""
    cpu = min(os.sched_getaffinity(0))
    with bench.agent() as one, bench.agent() as other:
        before = [_read_cpu(one)["cpu_s"], _read_cpu(other)["cpu_s"]]
        for look in (one, other):
            look.agent.begin("limit:contend", {"cpu": cpu, "wall_s": 0.6})
        inside = [look.agent.finish()["cpu_s"] for look in (one, other)]
        after = [_read_cpu(one)["cpu_s"], _read_cpu(other)["cpu_s"]]
    return {"shares": inside}, {"shares": [a - b for a, b in zip(after, before, strict=True)]}


def _judge_weights(shares: list[Any]) -> Finding:
    small, large = (float(one) for one in shares)
    if small <= 0 and large <= 0:
        return unfinished("neither has worked")
    ratio = large / small if small > 0 else float("inf")
    return expect(3.0 <= ratio <= 5.0, f"shares of {small:.2f} s and {large:.2f} s")


def _judge_cpus(arm: Arm) -> Finding:
    cpus = arm.inside.listed("cpus")
    return expect(not set(arm.outside.listed("machine")) <= set(cpus), f"may run on {cpus}")


def _look_at_cpus(look: Look) -> dict[str, Any]:
    return {
        "allowed": sorted(os.sched_getaffinity(look.pid)),
        "machine": sorted(os.sched_getaffinity(0)),
    }


def _judge_allowed(arm: Arm) -> Finding:
    allowed, machine = arm.outside.listed("allowed"), arm.outside.listed("machine")
    return expect(not set(machine) <= set(allowed), f"allowed on {allowed} of {machine}")


def _spend(bench: Bench) -> Gathered:
    """A job spins and tells so, until it is ended or has spun long enough."""
    with bench.agent() as look:
        before_s = spent_s = _read_cpu(look)["cpu_s"]
        told_s, done, reason = 0.0, False, None
        look.agent.begin("limit:spin_aloud", {"cpu_s": SPENT_S, "wall_s": 8 * SPENT_S})
        try:
            while not done:
                fact = look.agent.next_fact(timeout_s=5.0)
                told_s, done = fact["cpu_s"], fact["done"]
                spent_s = max(spent_s, _read_cpu(look)["cpu_s"])
        except (AgentError, OSError):
            # The job has ended, with or without a word.
            pass
        alive = process.is_alive(look.pid)
        if not alive and look.container is not None:
            reason = look.container.wait(timeout_s=2.0).reason
    outside = {"spent_s": spent_s - before_s, "alive": alive, "reason": reason}
    return {"told_s": told_s, "done": done}, outside


def _judge_budget(arm: Arm) -> Finding:
    told_s = arm.inside.decimal("told_s")
    if arm.inside.flag("done"):
        return violated(f"spun for {told_s:.2f} s, and was told to stop")
    if told_s <= 0:
        return unfinished("it did not say that it spins")
    return holds(f"its last word came after {told_s:.2f} s")


def _judge_budget_spent(arm: Arm) -> Finding:
    spent_s, reason = arm.outside.decimal("spent_s"), arm.outside["reason"]
    if arm.outside.flag("alive"):
        if spent_s < SPENT_S / 4:
            return unfinished(f"only {spent_s:.2f} s were spent")
        return violated(f"it lives, {spent_s:.2f} s of cpu time later")
    # No word of `ExitReason` says so yet; what brings the budget brings one.
    return expect("cpu" in str(reason), f"ended after {spent_s:.2f} s, for the reason {reason}")


CHECKS = (
    Check(
        id="cpu.quota",
        cases=(HALF_CPU,),
        probe="limit:spin",
        arguments=lambda look: {"wall_s": _spin_s(look)},
        before=_read_cpu,
        observe=_read_cpu,
        inside=_judge_spin,
        outside=_judge_spent,
        request={"cpus": CPUS},
        likely="the quota of the cpu controller is not set, or a weight is",
    ),
    Check(
        id="cpu.quota-sum",
        cases=(HALF_CPU,),
        probe="limit:spin_together",
        arguments=lambda look: {"wall_s": _spin_s(look), "processes": os.cpu_count() or 2},
        before=_read_cpu,
        observe=_read_cpu,
        inside=_judge_spin,
        outside=_judge_spent,
        request={"cpus": CPUS},
        likely="each process is limited for itself",
    ),
    Check(
        id="cpu.weight",
        cases=(CONTENTION,),
        scenario=_contend,
        inside=lambda arm: _judge_weights(arm.inside.listed("shares")),
        outside=lambda arm: _judge_weights(arm.outside.listed("shares")),
        likely="no weight is set",
    ),
    Check(
        id="cpu.set",
        cases=(PLAIN,),
        probe="limit:widen_cpus",
        arguments=lambda look: {"cpus": sorted(os.sched_getaffinity(0))},
        observe=_look_at_cpus,
        inside=_judge_cpus,
        outside=_judge_allowed,
        likely="no cpuset is made",
    ),
    Check(
        id="cpu.seconds",
        cases=(PLAIN,),
        scenario=_spend,
        inside=_judge_budget,
        outside=_judge_budget_spent,
        likely="nothing counts the job's cpu time",
    ),
)
