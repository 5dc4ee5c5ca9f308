"""Checks of cpu, pids, io (bandwidth) and rlim: the other limits.

Each has an arm just under and one just over. Cpu time is read from the kernel's own account of the
processes (proc_pid_stat(5)), so it does not matter by what mechanism a driver limits.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from execdrv.spec import Bind, Rlimit
from execdrv_conformance.agent import AgentError
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check, Gathered
from execdrv_conformance.checks.cases import PLAIN
from execdrv_conformance.checks.job import sweep, wait_until
from execdrv_conformance.finding import Arm, Finding, expect, holds, unfinished, violated
from execdrv_conformance.observe import group, process

#: Tasks that the job may have, and what a probe tries at most: the design's limit + 32.
PIDS = 16
MOST_TRIED = PIDS + 32
BOMB_PIDS = 32
CPUS = 0.5
TOLERANCE = 0.1
SPIN_S = 2.0
#: Long enough to see that nothing is limited.
CONTROL_SPIN_S = 0.5
#: Cpus that must have been idle for a share that is too small to be the quota's doing.
IDLE_SHARE = 0.25
#: Seconds that a job spins to use up a budget: no field asks for one, so any that ends it counts.
SPENT_S = 0.4
TICKS = os.sysconf("SC_CLK_TCK")

FEW_TASKS = Case(name="few-tasks", fields={"pids": PIDS})
HALF_CPU = Case(name="half-cpu", fields={"cpus": CPUS}, exclusive=True)
CONTENTION = Case(name="contention", exclusive=True)
BOMB = Case(name="bomb", exclusive=True)


def _bind_disk(bench: Bench) -> dict[str, Any]:
    return {"binds": (Bind(source=str(bench.canaries.files.directory), target="/mnt"),)}


#: With a directory that is on a disk: a private root may be in memory.
DISK = Case(name="disk", more_fields=_bind_disk, exclusive=True)

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


# --- tasks -------------------------------------------------------------------------------------


def _look_at_tasks(look: Look) -> dict[str, Any]:
    """The job's group: its limit, refusals, and who in it is none of the job's."""
    directory = group.bounds_of(look.pid, "pids")
    if directory is None:
        return {"limit": None, "refused": 0, "others": 0}
    seen = group.read_pids(directory)
    job = set(process.list_tree(look.pid))
    others = [pid for pid in group.list_members(directory) if pid not in job]
    return {**seen, "others": len(others)}


def _judge_forks(arm: Arm) -> Finding:
    forked, error = arm.inside.number("forked"), arm.inside.text("error")
    saw = f"itself and {forked} children, then {error or 'the kit`s own bound'}"
    return expect(forked + 1 == PIDS and error == "EAGAIN", saw)


def _judge_threads(arm: Arm) -> Finding:
    threads, refused = arm.inside.number("threads"), arm.inside.flag("refused")
    saw = f"itself and {threads} threads, then {'a refusal' if refused else 'the kit`s own bound'}"
    return expect(refused and threads + 1 == PIDS, saw)


def _judge_tasks(arm: Arm) -> Finding:
    limit, others = arm.outside["limit"], arm.outside.number("others")
    refused = arm.outside.number("refused")
    saw = f"limit {limit} with {others} processes of others in the group, {refused} refusals"
    return expect(limit == PIDS + others and refused > 0, saw)


def _drop_bomb(bench: Bench) -> Gathered:
    """The bomb goes off while this process tries how quickly the machine still starts one.

    A second one is there when the container is ended.
    """
    with bench.agent(pids=BOMB_PIDS) as look:
        nonce, bomb = look.agent.nonce, {"children": BOMB_PIDS, "each": 1}
        look.agent.begin("limit:bomb", {**bomb, "lives_s": 0.5})
        slowest_s, most = 0.0, 0
        begun = time.monotonic()
        while time.monotonic() - begun < 0.5:
            slowest_s = max(slowest_s, _time_start())
            most = max(most, len(process.find_marked(nonce)))
        facts = look.agent.finish(timeout_s=20.0)
        look.agent.begin("limit:bomb", {**bomb, "lives_s": 20.0})
        wait_until(lambda: len(process.find_marked(nonce)) > BOMB_PIDS // 2, timeout_s=2.0)
        ended = process.find_marked(nonce)
    # Of the control nobody but the kit ends those that were made meanwhile.
    patience_s = 0.0 if bench.is_control else 5.0
    left = process.wait_ended(process.find_marked(nonce), timeout_s=patience_s)
    for _ in range(5):
        sweep(nonce)
    return facts, {"slowest_s": slowest_s, "most": most, "ended": len(ended), "left": left}


def _time_start() -> float:
    begun = time.monotonic()
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    return time.monotonic() - begun


def _judge_bomb(arm: Arm) -> Finding:
    made, refused = arm.inside.number("made"), arm.inside.number("refused")
    return expect(refused > 0 and made < BOMB_PIDS, f"{made} made, {refused} refused")


def _judge_bombed(arm: Arm) -> Finding:
    most, slowest_s = arm.outside.number("most"), arm.outside.decimal("slowest_s")
    left, ended = arm.outside.listed("left"), arm.outside.number("ended")
    if ended <= BOMB_PIDS // 2:
        return unfinished(f"the second bomb did not go off: {ended} processes")
    saw = (
        f"at most {most} at once, {slowest_s:.2f} s to start a process, "
        f"{len(left)} left of {ended} that were ended"
    )
    return expect(most <= BOMB_PIDS and slowest_s < 2.0 and not left, saw)


# --- cpu ---------------------------------------------------------------------------------------


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


# --- block devices -----------------------------------------------------------------------------

#: Far below what any disk does, and what a limit would be set to.
SLOW_BYTES_PER_S = 1 << 20
SLOW_OPS_PER_S = 8


def _disks(look: Look) -> list[str]:
    """The bound directory, under its own name where there are no walls; else one of the root's."""
    return [str(look.canaries.files.directory), "/mnt", "/tmp"]


def _read_written(look: Look) -> dict[str, Any]:
    for line in Path(f"/proc/{look.pid}/io").read_text().splitlines():
        name, _, value = line.partition(": ")
        if name == "write_bytes":
            return {"written": int(value), "at_s": time.monotonic()}
    return {}


def _judge_bandwidth(arm: Arm) -> Finding:
    rate = arm.inside.decimal("bytes_per_s")
    return expect(rate <= SLOW_BYTES_PER_S * (1 + TOLERANCE), f"{rate / 2**20:.1f} MiB/s")


def _judge_operations(arm: Arm) -> Finding:
    rate = arm.inside.decimal("ops_per_s")
    return expect(rate <= SLOW_OPS_PER_S * (1 + TOLERANCE), f"{rate:.0f} operations/s")


def _written_per_s(arm: Arm) -> float:
    before = arm.outside.table("before")
    written = arm.outside.number("written") - int(before["written"])
    return written / (arm.outside.decimal("at_s") - float(before["at_s"]))


def _judge_written(arm: Arm) -> Finding:
    rate = _written_per_s(arm)
    return expect(rate <= SLOW_BYTES_PER_S * (1 + TOLERANCE), f"{rate / 2**20:.1f} MiB/s")


def _judge_written_blocks(arm: Arm) -> Finding:
    rate = _written_per_s(arm) / 4096
    return expect(rate <= SLOW_OPS_PER_S * (1 + TOLERANCE), f"{rate:.0f} blocks/s")


# --- resource limits of a process --------------------------------------------------------------


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
    Check(
        id="pids.limit",
        cases=(FEW_TASKS,),
        probe="limit:fork_until_refused",
        arguments=lambda look: {"most": MOST_TRIED},
        observe=_look_at_tasks,
        inside=_judge_forks,
        outside=_judge_tasks,
        request={"pids": PIDS},
        likely="the pids controller is not set, or processes of the driver's own count",
    ),
    Check(
        id="pids.threads",
        cases=(FEW_TASKS,),
        probe="limit:thread_until_refused",
        arguments=lambda look: {"most": MOST_TRIED},
        observe=_look_at_tasks,
        inside=_judge_threads,
        outside=_judge_tasks,
        request={"pids": PIDS},
        likely="processes are counted, not tasks",
    ),
    Check(
        id="pids.bomb",
        cases=(BOMB,),
        scenario=_drop_bomb,
        inside=_judge_bomb,
        outside=_judge_bombed,
        likely="no limit on tasks",
    ),
    Check(
        id="io.bps",
        cases=(DISK,),
        probe="limit:write_blocks",
        arguments=lambda look: {"directories": _disks(look), "size": 1 << 20, "count": 4},
        before=_read_written,
        observe=_read_written,
        inside=_judge_bandwidth,
        outside=_judge_written,
        likely="no throttle is set",
    ),
    Check(
        id="io.iops",
        cases=(DISK,),
        probe="limit:write_blocks",
        arguments=lambda look: {"directories": _disks(look), "size": 4096, "count": 32},
        before=_read_written,
        observe=_read_written,
        inside=_judge_operations,
        outside=_judge_written_blocks,
        likely="no throttle is set",
    ),
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
