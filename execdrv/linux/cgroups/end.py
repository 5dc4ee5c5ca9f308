"""The end of a group: who is in it, killing all of them, removing the directories.

Works on the names of a plan alone and accepts a group that is partly there, so that it is the
same for a normal end and after a crash. Kills by pidfd and only what is still listed after the
pidfd is held: a recycled pid is never hit. Follows no link and leaves no directory of the plan.
Runs in the supervisor, or in the process that destroys or collects.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import stat
import time
from collections.abc import Iterable

from execdrv.errors import CleanupError
from execdrv.linux.cgroups.control import read_optional, write_control
from execdrv.linux.cgroups.plan import GroupPlan

#: Pidfds held at once; the soft limit of open files may be 1024.
_BATCH = 256
#: How long one round waits for what it has killed before it looks for newcomers.
_ROUND_S = 0.1
#: Pauses between two looks where the kernel tells nothing: from, and no longer than.
_PAUSE_S, _LONGEST_PAUSE_S = 0.0002, 0.02


def sub_groups(path: str) -> list[str]:
    """The groups below a group, deepest first; none if it is no directory."""
    found: list[str] = []
    pending = [path]
    while pending:
        current = pending.pop()
        try:
            status = os.lstat(current)
        except OSError:
            continue
        # kernfs counts sub-directories as links, which saves reading a long directory.
        if not stat.S_ISDIR(status.st_mode) or status.st_nlink == 2:
            continue
        with contextlib.suppress(OSError), os.scandir(current) as entries:
            below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
            pending += below
            found += below
    return sorted(found, key=lambda entry: -entry.count("/"))


def list_processes(plan: GroupPlan) -> list[int]:
    """The ids of all processes in the group and below it, in any hierarchy, ascending."""
    return sorted(_pids_in(directory.path for directory in plan.dirs))


def _pids_in(paths: Iterable[str]) -> set[int]:
    pids: set[int] = set()
    for top in paths:
        for path in (top, *sub_groups(top)):
            # 0 is a process of another pid namespace; a threaded group can't be read, its
            # processes are listed in the domain above.
            pids.update(map(int, (read_optional(path + "/cgroup.procs") or "").split()))
    return pids


def kill_all(plan: GroupPlan, *, timeout_s: float) -> None:
    """End every process of the group.

    1. On cgroup2 one write to cgroup.kill (Linux 5.14) ends all, whatever they fork meanwhile.
    2. What is left (no cgroup2, an older kernel, a process placed in some hierarchies only) is
       frozen where that is possible, so that it can't fork, killed one by one, and thawed: a
       process that the v1 freezer holds does not die.

    Raises:
        CleanupError: `leftovers` are the processes that had not ended within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    unified = plan.unified
    if unified is not None:
        with contextlib.suppress(OSError):
            write_control(unified.path + "/cgroup.kill", "1")
            _wait_unpopulated(unified.path, deadline)
    pause_s = _PAUSE_S
    while pids := list_processes(plan):
        if time.monotonic() >= deadline:
            raise CleanupError(
                f"cannot kill the processes of cgroup {plan.name!r}: {len(pids)} did not end "
                f"within {timeout_s:g} s",
                hint=f"look at /proc/{pids[-1]}/stack for what it waits for",
                leftovers=[f"process {pid}" for pid in pids],
            )
        if not _kill_round(plan, pids, deadline):
            # Listed, but out of reach: dying already, or of another pid namespace.
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _freeze(plan: GroupPlan) -> bool:
    """Stop forks; whether there is a freezer. Not waited for: it only makes a round enough."""
    frozen = False
    for directory in plan.dirs:
        if "freezer" in directory.controllers:
            frozen |= _try_write(directory.path + "/freezer.state", "FROZEN")
        elif directory.version == 2:
            frozen |= _try_write(directory.path + "/cgroup.freeze", "1")
    return frozen


def _thaw(plan: GroupPlan) -> None:
    """Undo `_freeze`, and what somebody else has frozen, in the groups below too."""
    for directory in plan.dirs:
        if "freezer" in directory.controllers:
            # Parents first: a group below a frozen one stays frozen (freezer-subsystem.rst).
            for path in (directory.path, *reversed(sub_groups(directory.path))):
                _try_write(path + "/freezer.state", "THAWED")
        elif directory.version == 2:
            _try_write(directory.path + "/cgroup.freeze", "0")


def _try_write(path: str, text: str) -> bool:
    try:
        write_control(path, text)
    except OSError:
        return False
    return True


def _wait_unpopulated(path: str, deadline: float) -> None:
    """Wait until a cgroup2 group has no live process; the kernel wakes the poll."""
    descriptor = os.open(path + "/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLPRI)
        while b"populated 1" in os.pread(descriptor, 4096, 0):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            poller.poll(left_s * 1000)
    finally:
        os.close(descriptor)


def _kill_round(plan: GroupPlan, pids: Iterable[int], deadline: float) -> bool:
    """Kill what is listed; whether any process could be reached."""
    frozen = _freeze(plan)
    pidfds: dict[int, int] = {}
    try:
        for pid in sorted(set(pids) - {0, os.getpid()})[:_BATCH]:
            with contextlib.suppress(OSError):
                pidfds[pid] = os.pidfd_open(pid)
        # A pid that is listed now is the process of which we hold the pidfd, or a later one of
        # ours; either may be killed.
        listed = set(list_processes(plan))
        poller = select.poll()
        waiting = 0
        for pid, pidfd in pidfds.items():
            if pid in listed:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    poller.register(pidfd, select.POLLIN)
                    waiting += 1
        if frozen:
            _thaw(plan)
        until = min(deadline, time.monotonic() + _ROUND_S)
        while waiting and (left_s := until - time.monotonic()) > 0:
            for pidfd, _ in poller.poll(left_s * 1000):
                poller.unregister(pidfd)
                waiting -= 1
        return bool(pidfds)
    finally:
        for pidfd in pidfds.values():
            os.close(pidfd)
        if frozen:
            _thaw(plan)


def remove_directories(plan: GroupPlan, *, timeout_s: float) -> list[str]:
    """Remove the directories of a plan, killing what is in them.

    Returns:
        The directories that are still there after `timeout_s`, deepest first.
    """
    deadline = time.monotonic() + timeout_s
    for directory in plan.dirs:
        _remove_directory(directory.job)
    left = [directory.path for directory in plan.dirs if not _remove_directory(directory.path)]
    if not left:
        return []
    with contextlib.suppress(CleanupError):
        kill_all(plan, timeout_s=timeout_s)
    pause_s = _PAUSE_S
    while True:
        left = [top for top in left if not _remove_tree(top)]
        if not left:
            return []
        if time.monotonic() >= deadline:
            return [path for top in left for path in (*sub_groups(top), top)]
        # The kernel lets go of a dead process's group a moment after its end was seen.
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _remove_tree(top: str) -> bool:
    for path in sub_groups(top):
        _remove_directory(path)
    return _remove_directory(top)


def _remove_directory(path: str) -> bool:
    try:
        os.rmdir(path)
    except OSError as error:
        return error.errno == errno.ENOENT
    return True
