"""Checks of mem: memory limits.

A child of the job takes memory of one kind, once to just under the limit and once to more; the
kernel ends it, and the job tells how it ended. The observer reads the job's own group: what is
charged to it, and how often the kernel had to end somebody there.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from typing import Any

from execdrv.errors import ExecdrvError
from execdrv_conformance.agent import AgentError
from execdrv_conformance.bench import Bench, Look, describe_error
from execdrv_conformance.check import Case, Check, Gathered
from execdrv_conformance.checks.job import wait_until
from execdrv_conformance.finding import Arm, Finding, expect, holds, unfinished, violated
from execdrv_conformance.observe import group, process
from execdrv_conformance.observe.snapshot import wait_for_rest

MIB = 1 << 20
#: Bytes that the job may have; the agent itself needs less than 12 MiB of them.
LIMIT = 64 * MIB
#: What the kernel charges above a limit when it can't fail: for a process that ends.
SLACK = MIB
#: Bytes that start nothing; such as may do, or may not; and such as start a small program.
TOO_SMALL = (4096, 128 << 10)
NARROW = tuple(range(200 << 10, 500 << 10, 50 << 10))
#: Such as any init starts in, and an interpreter does not: whether the kernel refuses the narrow
#: ones, or ends what is started in them, is a matter of moments.
ENDING = (MIB, 3 * MIB // 2, 2 * MIB)
ENOUGH = 32 * MIB
FLOOR_S = 5.0
NAMES = 2000
CHILDREN = 4
#: The least that a directory entry takes; its inode comes on top.
NAME_BYTES = 192
_TMPFS = ("/dev/shm", "/tmp")
#: Held in both and in a memfd, for the observer to see.
HELD_BYTES = 24 * MIB

LIMITED = Case(name="limited-memory", fields={"memory": LIMIT})


def _sizes(look: Look) -> tuple[int, int]:
    """Just under the limit, beside the agent; and more than it. Others in each run."""
    rng = look.bench.rng
    return rng.randrange(40, 46) * MIB, rng.randrange(76, 90) * MIB


def read_memory(look: Look) -> dict[str, Any]:
    """The job's memory group."""
    directory = group.bounds_of(look.pid, "memory")
    if directory is None:
        return {"limit": None, "usage": 0, "peak": None, "kills": 0, "swap": None}
    return {
        **group.read_memory(directory),
        "shmem": group.read_shmem(directory),
        "kernel": group.read_kernel_memory(directory),
        "swap": group.read_swap_peak(directory),
    }


def was_killed(status: int) -> bool:
    """Whether a raw wait status says SIGKILL, which is how the kernel ends for memory."""
    return status & 0x7F == signal.SIGKILL


def describe_status(status: int) -> str:
    """A raw wait status in words."""
    if status & 0x7F:
        return f"signal {status & 0x7F}"
    return f"exit {status >> 8}" if status else "fits"


def _judge_pair(under: int, over: int, what: str) -> Finding:
    saw = f"{what}: under the limit {describe_status(under)}, over it {describe_status(over)}"
    return expect(under == 0 and was_killed(over), saw)


def _judge_sizes(arm: Arm) -> Finding:
    under, over = arm.inside.listed("statuses")
    return _judge_pair(under, over, "pages")


def _judge_charged(arm: Arm) -> Finding:
    """The group has the limit, has not gone over it, and the kernel had to end somebody."""
    limit, peak = arm.outside["limit"], arm.outside["peak"]
    kills = arm.outside.number("kills") - int(arm.outside.table("before")["kills"])
    saw = f"limit {limit}, peak {peak}, {kills} killed"
    # Older kernels on v2 keep no peak.
    kept = peak is None or peak <= LIMIT + SLACK
    return expect(limit is not None and limit <= LIMIT and kept and kills > 0, saw)


def _judge_children(arm: Arm) -> Finding:
    small, large = arm.inside.table("small"), arm.inside.table("large")
    saw = (
        f"of {CHILDREN} children {small['together']} held a small part together and "
        f"{large['together']} a large one, {large['killed']} were killed"
    )
    fits = small["together"] == CHILDREN and not small["killed"]
    return expect(fits and large["together"] < CHILDREN and large["killed"] > 0, saw)


def _judge_twice(arm: Arm) -> Finding:
    status = arm.inside.listed("statuses")[0]
    return expect(was_killed(status), f"twice the limit: {describe_status(status)}")


def _judge_swap(arm: Arm) -> Finding:
    limit, peak = arm.outside["limit"], arm.outside["swap"]
    if peak is None:
        return unfinished("this kernel does not count swap for groups")
    # Without a limit of its own a group's swap is not told from its memory on v1.
    limited = limit is not None and limit <= LIMIT
    return expect(limited and peak <= SLACK, f"limit {limit}, at most {peak} bytes of swap")


def _judge_files(arm: Arm) -> Finding:
    found = arm.inside.table("places")
    for place, (under, over) in found.items():
        one = _judge_pair(under, over, place)
        if one.state != "holds":
            return one
    return holds(f"{sorted(found)}: under the limit fits, over it is stopped")


def _look_at_files(look: Look) -> dict[str, Any]:
    # The kernel brings the sums of a group up to date every two seconds, or when it must.
    wait_until(lambda: read_memory(look).get("shmem", HELD_BYTES) >= HELD_BYTES, timeout_s=2.5)
    seen = read_memory(look)
    look.agent.call("memory:drop", {})
    return {**seen, "dropped": read_memory(look)}


def _judge_shmem(arm: Arm) -> Finding:
    shmem = arm.outside.number("shmem") - int(arm.outside.table("before")["shmem"])
    charged = _judge_charged(arm)
    saw = f"{shmem} bytes of files charged for {arm.inside.number('held')} held; {charged.saw}"
    return expect(charged.state == "holds" and shmem >= 0.9 * arm.inside.number("held"), saw)


def _judge_lines(arm: Arm) -> Finding:
    return _judge_pair(
        arm.inside.number("under"), arm.inside.number("over"), "full pipes and sockets"
    )


def _look_at_kernel(look: Look) -> dict[str, Any]:
    """What is charged with pipes and sockets held, and then with directory entries too."""
    seen = read_memory(look)
    named = look.agent.call("memory:name_files", {"directories": list(_TMPFS), "count": NAMES})
    more = read_memory(look)
    look.agent.call("memory:drop", {})
    return {**seen, **named, "more": more["kernel"]}


def _judge_kernel(arm: Arm) -> Finding:
    if arm.outside["kernel"] is None:
        return unfinished("this kernel does not count kernel memory apart")
    lines = arm.outside.number("kernel") - int(arm.outside.table("before")["kernel"])
    names = arm.outside.number("more") - arm.outside.number("kernel")
    if arm.outside.number("named") != NAMES:
        return unfinished("there was no place for the files")
    charged = _judge_charged(arm)
    held = arm.inside.number("held")
    saw = f"{lines} bytes for {held} in pipes and sockets, {names} for {NAMES} names"
    enough = lines >= 0.9 * held and names >= NAMES * NAME_BYTES
    return expect(charged.state == "holds" and enough, f"{saw}; {charged.saw}")


def _lose_one(bench: Bench) -> Gathered:
    """A job goes over its limit and ends, with a sibling and the canaries beside it."""
    with bench.agent() as sibling:
        with bench.agent(memory=LIMIT) as look:
            before = read_memory(look)
            size = _sizes(look)[1]
            statuses = look.agent.call("memory:touch", {"sizes": [size]})["statuses"]
            kills = read_memory(look)["kills"] - before["kills"]
        canaries = bench.canaries.processes.look()
        bench.canaries.processes.revive()
        seen = {
            "kills": kills,
            "status": statuses[0],
            "canaries": {name: one["alive"] for name, one in canaries.items()},
            "sibling": process.is_alive(sibling.pid),
        }
    return None, seen


def _judge_scope(arm: Arm) -> Finding:
    kills, alive = arm.outside.number("kills"), dict(arm.outside.table("canaries"))
    alive["sibling"] = arm.outside.flag("sibling")
    gone = sorted(name for name, lives in alive.items() if not lives)
    if gone:
        return violated(f"{kills} killed inside, and outside {gone}")
    if not kills:
        return violated(f"nobody was stopped ({describe_status(arm.outside.number('status'))})")
    return holds(f"{kills} killed inside; alive are {sorted(alive)}")


def _lose_all(bench: Bench) -> Gathered:
    """A child goes over the limit; does anybody answer afterwards."""
    with bench.agent(memory=LIMIT) as look:
        before = read_memory(look)
        directory = group.bounds_of(look.pid, "memory")
        marked = process.find_marked(look.agent.nonce)
        inside: dict[str, Any]
        try:
            inside = look.agent.call("memory:lose_child", {"size": _sizes(look)[1]}, timeout_s=5.0)
            inside["answers"] = True
        except AgentError:
            inside = {"answers": False}
        # Only who has not answered is waited for.
        left = process.wait_ended(marked, timeout_s=0.05 if inside["answers"] else 2.0)
        kills = group.read_memory(directory)["kills"] if directory is not None else 0
    return inside, {"left": left, "kills": kills - before["kills"]}


def _judge_answers(arm: Arm) -> Finding:
    if not arm.inside.flag("answers"):
        return holds("the job does not answer any more")
    status = describe_status(arm.inside.number("status"))
    return violated(f"the child: {status}; parent and sibling live: {arm.inside.flag('lives')}")


def _judge_all_gone(arm: Arm) -> Finding:
    left, kills = arm.outside.listed("left"), arm.outside.number("kills")
    return expect(not left and kills > 0, f"{kills} killed, {len(left)} processes left")


def _find_floor(bench: Bench) -> Gathered:
    """Containers with next to no memory: how each is refused or ends, and what it leaves."""
    bench.run(["/bin/true"])
    before = bench.snapshot()
    answers = [_try_limit(bench, memory) for memory in (*TOO_SMALL, *NARROW)]
    answers += [_try_limit(bench, memory, bench.python("pass")) for memory in ENDING]
    left = wait_for_rest(before, bench.snapshot)
    return None, {"answers": answers, "left": left, "enough": _try_limit(bench, ENOUGH)}


def _try_limit(bench: Bench, memory: int, argv: Sequence[str] = ("/bin/true",)) -> dict[str, Any]:
    fields = bench.adapt({"memory": memory})
    bench.asked = fields
    begun = time.monotonic()
    answer: dict[str, Any] = {"memory": memory}
    try:
        end = bench.run(list(argv), timeout=FLOOR_S * 2, **fields)
        answer |= {"reason": end.reason, "code": end.code}
    except ExecdrvError as error:
        answer |= {"reason": "error", "error": describe_error(error)}
    return {**answer, "took_s": time.monotonic() - begun}


def _judge_floor(arm: Arm) -> Finding:
    left, enough = arm.outside.table("left"), arm.outside.table("enough")
    if left:
        return violated(f"left over: {left}")
    if enough["reason"] != "exited" or enough["code"] != 0:
        return violated(f"{enough['memory']} bytes do not do for /bin/true: {enough}")
    words = []
    for answer in arm.outside.listed("answers"):
        saw, tells = _tells_of_memory(answer)
        starts = answer["memory"] not in TOO_SMALL and answer.get("code") == 0
        if not (tells or starts) or answer["took_s"] > FLOOR_S:
            return violated(f"{answer['memory']} bytes: {saw} after {answer['took_s']:.1f} s")
        words.append(f"{answer['memory']} bytes: {saw}")
    return holds("; ".join(words))


def _tells_of_memory(answer: dict[str, Any]) -> tuple[str, bool]:
    """An answer in words, and whether it says that memory was the reason."""
    if answer["reason"] != "error":
        return f"reason {answer['reason']}, code {answer['code']}", answer["reason"] == "oom"
    classes, message = answer["error"]["classes"], answer["error"]["message"]
    typed = classes[0] not in ("ExecdrvError", "DriverBugError", "DeadlineError")
    return f"{classes[0]}: {message[:40]}", typed and "memory" in message.lower()


CHECKS = (
    Check(
        id="mem.limit-oom",
        cases=(LIMITED,),
        probe="memory:touch",
        arguments=lambda look: {"sizes": list(_sizes(look))},
        before=read_memory,
        observe=read_memory,
        inside=_judge_sizes,
        outside=_judge_charged,
        request={"memory": LIMIT},
        likely="the memory controller is not set, or only slows the job (memory.high)",
    ),
    Check(
        id="mem.tree",
        cases=(LIMITED,),
        probe="memory:touch_together",
        arguments=lambda look: {
            "small": look.bench.rng.randrange(8, 11) * MIB,
            "large": look.bench.rng.randrange(20, 24) * MIB,
            "count": CHILDREN,
        },
        before=read_memory,
        observe=read_memory,
        inside=_judge_children,
        outside=_judge_charged,
        request={"memory": LIMIT},
        likely="each process is limited for itself",
    ),
    Check(
        id="mem.swap",
        cases=(LIMITED,),
        probe="memory:touch",
        arguments=lambda look: {"sizes": [2 * LIMIT]},
        observe=read_memory,
        inside=_judge_twice,
        outside=_judge_swap,
        request={"memory": LIMIT, "memory_swap": 0},
        likely="swap is not limited (memory.swap.max, memory.memsw.limit_in_bytes)",
    ),
    Check(
        id="mem.tmpfs",
        cases=(LIMITED,),
        probe="memory:fill_files",
        arguments=lambda look: {
            "directories": list(_TMPFS),
            "under": _sizes(look)[0],
            "over": _sizes(look)[1],
            "hold": HELD_BYTES // 3,
        },
        before=read_memory,
        observe=_look_at_files,
        inside=_judge_files,
        outside=_judge_shmem,
        likely="the files are charged to another group, or none",
    ),
    Check(
        id="mem.kernel",
        cases=(LIMITED,),
        probe="memory:fill_kernel",
        arguments=lambda look: {"under": 24 * MIB, "over": _sizes(look)[1], "hold": 16 * MIB},
        before=read_memory,
        observe=_look_at_kernel,
        inside=_judge_lines,
        outside=_judge_kernel,
        likely="kernel memory is not counted (cgroup.memory=nokmem)",
    ),
    Check(
        id="mem.oom-scope",
        cases=(LIMITED,),
        scenario=_lose_one,
        inside=None,
        outside=_judge_scope,
        likely="the driver ends more than its own container",
    ),
    Check(
        id="mem.oom-group",
        cases=(LIMITED,),
        scenario=_lose_all,
        inside=_judge_answers,
        outside=_judge_all_gone,
        likely="memory.oom.group is not set",
    ),
    Check(
        id="mem.floor",
        cases=(LIMITED,),
        scenario=_find_floor,
        inside=None,
        outside=_judge_floor,
        likely="the init is ended for memory before it can say so",
    ),
)
