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
from execdrv.linux.cgroups import end, leaf, stats
from execdrv.linux.cgroups.control import read_optional, write_control
from execdrv.linux.cgroups.plan import GroupPlan

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
                path = directory.path + "/cgroup.procs"
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
            path = directory.path + "/cgroup.procs"
            try:
                write_control(path, str(pid))
            except OSError as error:
                raise IsolationError(
                    f"cannot move process {pid} into {directory.path!r}: {error.strerror}",
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
            if directory.version == 2 and plan.enable:
                _make_unified(plan, undo)
            else:
                _make_directory(directory.path, undo)
            if directory.version == 1 and "memory" in directory.controllers:
                _include_subgroups(directory.path)
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


def _include_subgroups(path: str) -> None:
    """Before Linux 5.11 a v1 memory limit binds the groups below only if this says 1.

    It can't be written any more once there are such groups.
    """
    switch = path + "/memory.use_hierarchy"
    if (read_optional(switch) or "1").strip() == "0":
        _ignore_errors(write_control, switch, "1")


def _ignore_errors(action: Callable[..., object], *arguments: object) -> None:
    with contextlib.suppress(OSError):
        action(*arguments)
