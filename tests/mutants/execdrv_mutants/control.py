"""Mutants whose operations on a running container do less than they say."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import attrs

from execdrv.driver import Box, ExitReason
from execdrv.limits import Limits, Receipt
from execdrv.linux import procfs
from execdrv.linux.cgroups import Group, GroupStats
from execdrv.supervisor import loop, owner, tree
from execdrv_chroot import driver as chroot
from execdrv_chroot.driver import ChrootDriver
from execdrv_mutants.change import change
from execdrv_native import driver as native
from execdrv_native.driver import NativeDriver

#: Seconds that a supervisor which left processes behind stays, so that they are seen.
_LINGER_S = 10.0


def leave_processes() -> None:
    """Have the supervisor outlive its container as long as there are processes below it.

    When it ends, the fork server ends them: a driver that could keep them from that has no need to
    be asked for them.
    """
    serve = loop.Supervisor.serve

    def serve_and_linger(self: loop.Supervisor) -> None:
        serve(self)
        for peer in list(self._peers):
            peer.close()
        deadline = time.monotonic() + _LINGER_S
        while procfs.list_children(os.getpid()) and time.monotonic() < deadline:
            self._owner.reap()
            time.sleep(0.02)

    change(loop.Supervisor, serve=serve_and_linger)


def _end_nothing(**_options: Any) -> list[int]:
    return []


class KillOnlyLeader(ChrootDriver):
    """Kills the first process and leaves the rest."""

    name = "kill-only-leader"

    def __init__(self) -> None:
        # The init ends with its gate, and the job's first process with the init.
        change(tree, end_descendants=_end_nothing)
        change(chroot, end_descendants=_end_nothing)
        leave_processes()


class UpdateNoop(NativeDriver):
    """Answers an update with success and does nothing."""

    name = "update-noop"

    def __init__(self) -> None:
        self._limited = False

    def limit(self, box: Box, limits: Limits) -> Sequence[Receipt]:
        if not self._limited:
            self._limited = True
            return super().limit(box, limits)
        values = {
            "memory": limits.memory_bytes,
            "memory_swap": limits.memory_swap_bytes,
            "cpus": limits.cpus,
            "pids": limits.pids,
        }
        return [
            Receipt(name=name, status="applied", asked=str(values[name]), value=str(values[name]))
            for name in limits.names()
        ]


class StatsConstant(NativeDriver):
    """Reports the same numbers for ever."""

    name = "stats-constant"

    def __init__(self) -> None:
        same = GroupStats(memory_peak_bytes=1 << 20, cpu_usage_us=1000)
        change(Group, stats=lambda _group: same)


class OomUnreported(NativeDriver):
    """Reports an end by lack of memory as a plain SIGKILL."""

    name = "oom-unreported"

    def __init__(self) -> None:
        stats = Group.stats
        change(Group, stats=lambda group: attrs.evolve(stats(group), oom_kills=0))


class DestroyLies(ChrootDriver):
    """Answers destroy with success and leaves the processes."""

    name = "destroy-lies"

    def __init__(self) -> None:
        change(tree, end_descendants=_end_nothing)
        change(tree.Tree, end=lambda _self, _box: [])
        leave_processes()

    def destroy(self, box: Box) -> None:
        """Nothing."""


class CrashesInStart(NativeDriver):
    """Its supervisor ends in the middle of start."""

    name = "crashes-in-start"

    def start(self, box: Box) -> procfs.ProcessId:
        os._exit(3)


class HangsForever(NativeDriver):
    """Never returns from an operation."""

    name = "hangs-forever"

    def start(self, box: Box) -> procfs.ProcessId:
        while True:
            signal.pause()


class HangsDeaf(NativeDriver):
    """Never returns from an operation, and does not hear the host's deadline either."""

    name = "hangs-deaf"

    def start(self, box: Box) -> procfs.ProcessId:
        while True:
            with contextlib.suppress(BaseException):
                signal.pause()


class DestroyDoesNothing(NativeDriver):
    """Answers destroy with success and leaves everything: processes, groups and files."""

    name = "destroy-does-nothing"

    def __init__(self) -> None:
        change(owner.Owner, destroy=lambda _self: [])
        leave_processes()


class FinalNumbersLost(NativeDriver):
    """Has forgotten every number when the container has ended."""

    name = "final-numbers-lost"

    def __init__(self) -> None:
        finish = owner.Owner.finish

        def finish_without(self: owner.Owner, reason: ExitReason | None = None) -> None:
            finish(self, reason)
            if self.exit is not None:
                self.exit = attrs.evolve(
                    self.exit, cpu_usage_us=None, memory_peak_bytes=None, duration_s=None
                )
                self._claim.update(exit=attrs.evolve(self.exit, stdout=b"", stderr=b""))

        change(owner.Owner, finish=finish_without)


class KillsByBareNumber(NativeDriver):
    """Takes a process for its own by the number alone."""

    name = "kills-by-bare-number"

    def __init__(self) -> None:
        change(procfs, send_signal=_signal_number)
        change(native, open_pidfd=_open_number)


def _signal_number(process: procfs.ProcessId, signum: int) -> bool:
    try:
        os.kill(process.pid, signum)
    except ProcessLookupError:
        return False
    return True


def _open_number(process: procfs.ProcessId) -> int | None:
    try:
        return os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
