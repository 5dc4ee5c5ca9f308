"""Mutants whose limits are not those that were asked."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Sequence

import attrs

from execdrv.driver import Box, ExitReason
from execdrv.errors import IsolationError
from execdrv.limits import Limits, Receipt
from execdrv.linux import procfs
from execdrv.linux.cgroups import GroupDir, group
from execdrv.linux.cgroups.control import write_control
from execdrv.linux.mounts import INERT, clone_tree
from execdrv.linux.procfs import ProcessId
from execdrv.linux.step import Attach, NewFs
from execdrv.spec import RLIMITS, value_or
from execdrv.supervisor import capture, owner
from execdrv_mutants.change import change, change_walls, with_order
from execdrv_native.child import Walls
from execdrv_native.driver import NativeDriver


def _say_applied(name: str, asked: object) -> Receipt:
    return Receipt(name=name, status="applied", asked=str(asked), value=str(asked))


def _write_instead(box: Box, controller: str, *, v1: tuple[str, str], v2: tuple[str, str]) -> None:
    """Write another control file of a group: name and text on v1, on v2."""
    directory = box.group.plan.dir_of(controller) if box.group is not None else None
    if directory is not None:
        file, text = v1 if directory.version == 1 else v2
        write_control(f"{directory.path}/{file}", text)


class MemoryHighOnly(NativeDriver):
    """Presses the job at its memory limit, and never stops it."""

    name = "memory-high-only"

    def limit(self, box: Box, limits: Limits) -> Sequence[Receipt]:
        memory, swap = limits.memory_bytes, limits.memory_swap_bytes
        rest = attrs.evolve(limits, memory_bytes=None, memory_swap_bytes=None)
        receipts = list(super().limit(box, rest))
        if memory is not None:
            text = str(memory)
            v1, v2 = ("memory.soft_limit_in_bytes", text), ("memory.high", text)
            _write_instead(box, "memory", v1=v1, v2=v2)
            receipts.append(_say_applied("memory", memory))
        if swap is not None:
            receipts.append(_say_applied("memory_swap", swap))
        return receipts


class LimitsFirstProcess(NativeDriver):
    """Limits the memory of each process alone, not of the tree."""

    name = "limits-first-process-only"

    def __init__(self) -> None:
        self._memory_bytes: int | None = None

    def limit(self, box: Box, limits: Limits) -> Sequence[Receipt]:
        self._memory_bytes = limits.memory_bytes
        rest = attrs.evolve(limits, memory_bytes=None, memory_swap_bytes=None)
        receipts = list(super().limit(box, rest))
        for name, asked in (
            ("memory", limits.memory_bytes),
            ("memory_swap", limits.memory_swap_bytes),
        ):
            if asked is not None:
                receipts.append(_say_applied(name, asked))
        return receipts

    def start(self, box: Box) -> ProcessId:
        if self._memory_bytes is None:
            return super().start(box)
        limit = (int(resource.RLIMIT_DATA), self._memory_bytes, self._memory_bytes)
        others = tuple(one for one in box.process.rlimits if one[0] != limit[0])
        return super().start(with_order(box, rlimits=(*others, limit)))


class PidsOffBy100(NativeDriver):
    """Sets the task limit 100 too high."""

    name = "pids-off-by-100"

    def limit(self, box: Box, limits: Limits) -> Sequence[Receipt]:
        if limits.pids is None:
            return super().limit(box, limits)
        receipts = super().limit(box, attrs.evolve(limits, pids=limits.pids + 100))
        return [
            _say_applied("pids", limits.pids) if one.name == "pids" else one for one in receipts
        ]


class CpuWeight(NativeDriver):
    """Sets a weight where a quota was asked for."""

    name = "cpu-weight-instead-of-quota"

    def limit(self, box: Box, limits: Limits) -> Sequence[Receipt]:
        receipts = list(super().limit(box, attrs.evolve(limits, cpus=None)))
        if limits.cpus is not None:
            weight = max(2, int(limits.cpus * 1024))
            v2 = ("cpu.weight", str(max(1, weight * 100 // 1024)))
            _write_instead(box, "cpu", v1=("cpu.shares", str(weight)), v2=v2)
            receipts.append(_say_applied("cpus", limits.cpus))
        return receipts


class RlimitSoftOnly(NativeDriver):
    """Sets the soft resource limits and leaves the hard ones."""

    name = "rlimit-soft-only"

    def start(self, box: Box) -> ProcessId:
        rlimits = tuple(
            (number, soft, max(hard, _own_hard(number)))
            for number, soft, hard in box.process.rlimits
        )
        return super().start(with_order(box, rlimits=rlimits))


def _own_hard(number: int) -> int:
    hard = resource.getrlimit(number)[1]
    return 2**64 - 1 if hard == resource.RLIM_INFINITY else hard


class KillsHostSibling(NativeDriver):
    """Ends a neighbour's processes when its job runs out of memory."""

    name = "kills-host-sibling"

    def __init__(self) -> None:
        finish = owner.Owner.finish

        def finish_and_kill(self: owner.Owner, reason: ExitReason | None = None) -> None:
            finish(self, reason)
            if self.exit is not None and self.exit.oom_kills:
                _kill_neighbours()

        change(owner.Owner, finish=finish_and_kill)


def _kill_neighbours() -> None:
    """Processes of other users that are not below this one: jobs, and the like."""
    ours = {os.getpid(), *procfs.list_descendants([os.getpid()])}
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in ours:
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}").st_uid != 0:
                    os.kill(int(name), signal.SIGKILL)


class RlimitsIgnored(NativeDriver):
    """Leaves the resource limits of a process as they were."""

    name = "rlimits-ignored"

    def start(self, box: Box) -> ProcessId:
        asked = {RLIMITS[one.name] for one in value_or(box.spec.rlimits, ())}
        rlimits = tuple(one for one in box.process.rlimits if one[0] not in asked)
        return super().start(with_order(box, rlimits=rlimits))


class PlacedLate(NativeDriver):
    """Moves the job into its group when it already runs."""

    name = "placed-late"

    def __init__(self) -> None:
        change_walls(lambda walls, _box, _opened: attrs.evolve(walls, procs_fds=()))

    def start(self, box: Box) -> ProcessId:
        init = super().start(box)
        # Long enough for the job's first look around.
        time.sleep(0.3)
        if box.group is not None:
            for pid in (init.pid, *procfs.list_descendants([init.pid])):
                with contextlib.suppress(IsolationError):
                    box.group.add(pid)
        return init


class CgroupsWritable(NativeDriver):
    """Shows the job the machine's control groups, writable."""

    name = "cgroups-writable"

    def __init__(self) -> None:
        change_walls(self._bind_groups)

    @staticmethod
    def _bind_groups(walls: Walls, _box: Box, opened: contextlib.ExitStack) -> Walls:
        source = os.open("/sys/fs/cgroup", os.O_PATH | os.O_CLOEXEC)
        opened.callback(os.close, source)
        tree = clone_tree(source, attributes=INERT, recursive=True)
        opened.callback(os.close, tree)
        bind = Attach(target=b"/sys/fs/cgroup", tree=len(walls.bind_trees))
        # A root may have no place for it.
        sys = NewFs(target=b"/sys", fstype=b"tmpfs", attributes=INERT, asked=True)
        return attrs.evolve(
            walls, steps=(*walls.steps, sys, bind), bind_trees=(*walls.bind_trees, tree)
        )


class LimitsInView(NativeDriver):
    """Puts the job into the very group that has the limits, the root of what it may mount."""

    name = "limits-in-view"

    def __init__(self) -> None:
        change(GroupDir, job=property(lambda directory: directory.path))
        make = group._make_directory

        def make_once(path: str, undo: contextlib.ExitStack) -> None:
            if not os.path.isdir(path):
                make(path, undo)

        change(group, _make_directory=make_once)


class TakesAnyFloor(NativeDriver):
    """Says that it starts a job with a limit too small to start anything, and does not limit."""

    name = "takes-any-floor"

    def limit(self, box: Box, limits: Limits) -> Sequence[Receipt]:
        memory = limits.memory_bytes
        if memory is None or memory >= 4 << 20:
            return super().limit(box, limits)
        rest = attrs.evolve(limits, memory_bytes=None, memory_swap_bytes=None)
        return [*super().limit(box, rest), _say_applied("memory", memory)]


class KeepsAllOutput(NativeDriver):
    """Keeps all output in memory, whatever was asked."""

    name = "keeps-all-output"

    def __init__(self) -> None:
        keep = capture.Capture.__init__
        change(capture.Capture, __init__=lambda self, _keep_bytes: keep(self, 1 << 62))
