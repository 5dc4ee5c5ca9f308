"""One container's group: its directories in every hierarchy that is needed, as one thing.

`make_group` makes what a `GroupPlan` names, all or nothing; `open_group` is the same value over
what a crash has left. Nothing but the plan is kept, so any process can go on from the record.
Runs in the supervisor, or in the process that destroys or collects.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

import attrs

from execdrv.errors import CreateError, IsolationError
from execdrv.linux.cgroups import end, leaf, stats, v1
from execdrv.linux.cgroups.control import write_control
from execdrv.linux.cgroups.plan import GroupDir, GroupPlan

_HINTS: dict[type[OSError], str] = {
    FileExistsError: "a group of that name is there already: execdrv gc, or rmdir it",
    FileNotFoundError: "the group above it does not exist: make it first",
    PermissionError: "run as root, or in a delegated group",
}


@attrs.frozen
class Group:
    """A container's group, which may be partly there only."""

    plan: GroupPlan

    def procs_fds(self) -> list[int]:
        """Descriptors of every cgroup.procs, close-on-exec, for a child to write ``0`` into.

        The unified directory is the first: from the child's first step on, `kill` reaches it.
        The caller closes them.

        Raises:
            IsolationError: one can't be opened; none stays open.
        """
        with contextlib.ExitStack() as undo:
            descriptors = []
            for directory in self.plan.dirs:
                path = directory.job + "/cgroup.procs"
                try:
                    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                except OSError as error:
                    raise IsolationError(
                        f"cannot open {path!r}: {error.strerror}", errno=error.errno
                    ) from error
                undo.callback(os.close, descriptor)
                descriptors.append(descriptor)
            undo.pop_all()
        return descriptors

    def add(self, pid: int) -> None:
        """Move a process, all its threads included, into the group.

        Raises:
            IsolationError: it can't be moved; it may be in some of the hierarchies.
        """
        for directory in self.plan.dirs:
            path = directory.job + "/cgroup.procs"
            try:
                write_control(path, str(pid))
            except OSError as error:
                raise IsolationError(
                    f"cannot move process {pid} into {directory.job!r}: {error.strerror}",
                    errno=error.errno,
                ) from error

    def processes(self) -> list[int]:
        """The ids of all processes in the group and the groups below it, in any hierarchy."""
        return end.list_processes(self.plan)

    def kill(self, *, timeout_s: float = 5.0) -> None:
        """End every process in the group and below it; returns when none is left.

        Frozen and stopped ones too. The zombies are their parents' to reap.

        Raises:
            CleanupError: some did not end within `timeout_s`; `leftovers` has their ids.
        """
        end.kill_all(self.plan, timeout_s=timeout_s)

    def remove(self, *, timeout_s: float = 5.0) -> list[str]:
        """Remove the group; whatever process is left in it is killed first.

        May be repeated, and works on a group that is partly there or gone.

        Returns:
            The directories that could not be removed within `timeout_s`.
        """
        leftovers = end.remove_directories(self.plan, timeout_s=timeout_s)
        if self.plan.leaf:
            leftovers += leaf.leave_leaf(self.plan)
        return leftovers

    def stats(self) -> stats.GroupStats:
        """The numbers the kernel keeps; zero or None where it keeps none."""
        return stats.read_stats(self.plan)


def open_group(plan: GroupPlan) -> Group:
    """The group that a record names; nothing is looked at, it may be partly there or gone."""
    return Group(plan=plan)


def make_group(plan: GroupPlan) -> Group:
    """Make a group's directories.

    On cgroup2 the controllers are switched on in the groups above it, and stay so; where our
    own processes stand in the way, they alone are moved to `plan.leaf`.

    Raises:
        CreateError: naming path and errno; nothing of it is left.
    """
    with contextlib.ExitStack() as undo:
        for directory in plan.dirs:
            if directory.version == 1:
                _make_v1(directory, undo)
                continue
            if plan.enable:
                _make_unified(plan, undo)
            else:
                _make_directory(directory.path, undo)
            _make_directory(directory.job, undo)
        undo.pop_all()
    return Group(plan=plan)


def _make_directory(path: str, undo: contextlib.ExitStack) -> None:
    try:
        os.mkdir(path, 0o755)
    except OSError as error:
        hint = next((text for kind, text in _HINTS.items() if isinstance(error, kind)), "")
        raise CreateError(
            f"cannot make cgroup {path!r}: {error.strerror}", hint=hint, errno=error.errno
        ) from error
    undo.callback(_ignore_errors, os.rmdir, path)


def _make_unified(plan: GroupPlan, undo: contextlib.ExitStack) -> None:
    """The cgroup2 directory, with controllers: they need room in the groups above."""
    unified = plan.unified
    if unified is None:
        return
    if not plan.leaf:
        leaf.enable_controllers(plan)
        _make_directory(unified.path, undo)
        return
    # Other supervisors of ours may make room, or give it back, in the same group.
    with leaf.lock_base(plan):
        undo.callback(leaf.leave_leaf, plan)
        leaf.enter_leaf(plan)
        leaf.enable_controllers(plan)
        _make_directory(unified.path, undo)


def _make_v1(directory: GroupDir, undo: contextlib.ExitStack) -> None:
    """A directory of v1 and the one for the processes, with what must be said before each."""
    _make_directory(directory.path, undo)
    try:
        v1.inherit_cpuset(directory.path)
        if "memory" in directory.controllers:
            v1.include_subgroups(directory.path)
        if "devices" in directory.controllers:
            v1.list_devices(directory.path)
        _make_directory(directory.job, undo)
        v1.inherit_cpuset(directory.job)
    except OSError as error:
        raise CreateError(
            f"cannot set cgroup {directory.path!r} up: {error.strerror} ({error.filename!r})",
            hint="a cgroup above may allow less",
            errno=error.errno,
        ) from error


def _ignore_errors(action: Callable[..., object], *arguments: object) -> None:
    with contextlib.suppress(OSError):
        action(*arguments)
