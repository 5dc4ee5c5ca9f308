"""The native driver: namespaces, a root by pivot_root, and control groups, nothing between.

Runs in a container's supervisor, except for `build_walls` (see child.py). All copies of mounts
are made here and belong to no namespace; whatever is mounted, the child mounts in its own. The
kernel removes all of that with the container's last process, so `destroy` has only that to end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Final

import attrs

from execdrv.driver import Box, Defaults, Driver, Isolated, Refusal
from execdrv.errors import CleanupError, IsolationError, StartError
from execdrv.limits import Limits, Receipt
from execdrv.linux import cgroups, check, obstacle
from execdrv.linux.capabilities import CONTAINER_CAPABILITIES
from execdrv.linux.layer import clone_bind, clone_root, layer_attributes
from execdrv.linux.mounts import explain
from execdrv.linux.procfs import ProcessId, detect_process, open_pidfd
from execdrv.linux.spawn import exec_init, spawn
from execdrv.linux.syscalls import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
)
from execdrv.linux.view import plan_mounts
from execdrv.spec import UNSET, value_or
from execdrv.version import VERSION
from execdrv_native.child import Walls, build_walls
from execdrv_native.offers import OFFERS

#: Made with the clone; the cgroup namespace comes after the child has joined its group.
_NAMESPACES: Final = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS
_KILL_TIMEOUT_S: Final = 5.0


class NativeDriver(Driver):
    """Runs commands in namespaces of their own, made by this process."""

    name = "native"
    contract = 1
    version = VERSION
    offers = OFFERS
    uses_group = True
    defaults: ClassVar[Defaults] = Defaults(
        uid=0,
        gid=0,
        capabilities=CONTAINER_CAPABILITIES,
        root_mode="private",
        net="none",
        namespaces=("mnt", "pid", "net", "ipc", "uts", "cgroup"),
    )

    def availability(self) -> str | None:
        return obstacle.detect_obstacle()

    def check(self, box: Box) -> Sequence[Refusal]:
        found = self.availability() or obstacle.detect_root_obstacle()
        if found is not None:
            return [Refusal(message=f"cannot run a native container: {found}")]
        problems = _list_problems(box)
        return [*_check_modes(box), *(Refusal(**attrs.asdict(problem)) for problem in problems)]

    def create(self, box: Box) -> None:
        """Nothing: all that a native container is made of ends with its processes."""

    def isolate(self, box: Box) -> Isolated:
        init, group = box.init, box.group
        if init is None or group is None:
            lacking = "init" if init is None else "cgroup"
            raise IsolationError(f"cannot isolate container {box.id!r}: it was given no {lacking}")
        flags = _NAMESPACES | (CLONE_NEWNET if box.net == "none" else 0)
        with contextlib.ExitStack() as opened:
            try:
                walls = _prepare_walls(box, group, opened)
            except OSError as error:
                raise IsolationError(
                    f"cannot copy the mounts of container {box.id!r}: {explain(error)}",
                    errno=error.errno,
                ) from error

            def become_init() -> None:
                build_walls(walls)
                exec_init(init, stdio=box.stdio, passed=box.passed)

            try:
                pid = spawn(become_init, flags=flags)
            except OSError as error:
                # ENOSPC is clone(2)'s word for one namespace too many.
                full = error.errno == errno.ENOSPC
                raise IsolationError(
                    f"cannot start the init of container {box.id!r}: {explain(error)}",
                    hint="raise the limits in /proc/sys/user/max_*_namespaces" if full else "",
                    errno=error.errno,
                ) from error
        with _end_on_error(pid):
            process = detect_process(pid)
            if process is None:
                raise IsolationError(f"cannot isolate container {box.id!r}: its init has ended")
            box.facts["init"] = {"pid": process.pid, "start_time": process.start_time}
            init.wait_ready()
            # Only now: the child had to make the nodes.
            if _has_device_control(group):
                cgroups.allow_devices(group)
            return Isolated(init=process, netns=_open_netns(box, pid))

    def limit(self, box: Box, limits: Limits) -> Sequence[Receipt]:
        if box.group is None:
            return []
        return cgroups.apply_limits(box.group, limits)

    def start(self, box: Box) -> ProcessId:
        init = _recorded_init(box)
        if box.init is None or init is None:
            raise StartError(f"cannot start container {box.id!r}: it was not isolated")
        box.init.open_gate(box.process)
        return init

    def destroy(self, box: Box) -> None:
        init = _recorded_init(box)
        pidfd = None if init is None else open_pidfd(init)
        if init is None or pidfd is None:
            return
        try:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(_KILL_TIMEOUT_S * 1000):
                raise CleanupError(
                    f"cannot end the init of container {box.id!r}: process {init.pid} was killed "
                    f"and is still there after {_KILL_TIMEOUT_S:g} s",
                    leftovers=[f"process {init.pid}"],
                )
        finally:
            os.close(pidfd)


# --- check -------------------------------------------------------------------------------------


def _check_modes(box: Box) -> Iterable[Refusal]:
    if box.root_mode not in ("private", "read-only", "direct"):
        message = f"cannot use root mode {box.root_mode!r}: the native driver has no such mode"
        yield Refusal(message=message, field="root_mode")
    if box.net not in ("none", "host"):
        message = f"cannot use network {box.net!r}: the native driver has none and host"
        yield Refusal(message=message, field="net")


def _list_problems(box: Box) -> list[check.Problem]:
    return [
        *check.check_overlay(box.root_mode),
        *check.check_mounts(
            tmpfs=value_or(box.spec.tmpfs, ()),
            binds=value_or(box.spec.binds, ()),
            root=box.root,
            sources=box.bind_sources,
            root_is_own=box.root_mode == "private",
        ),
        *check.check_bounding(box.process.bounding),
        *check.check_node_making(box.process.bounding, layout=box.layout),
        *check.check_groups(
            box.layout,
            box.spec.limits,
            parent=None if box.spec.cgroup_parent is UNSET else box.spec.cgroup_parent,
        ),
    ]


# --- isolate -----------------------------------------------------------------------------------


def _prepare_walls(box: Box, group: cgroups.Group, opened: contextlib.ExitStack) -> Walls:
    """Open all that the child needs; what is opened is closed with `opened`."""

    def own(fd: int) -> int:
        opened.callback(os.close, fd)
        return fd

    binds = value_or(box.spec.binds, ())
    return Walls(
        procs_fds=tuple(own(fd) for fd in group.procs_fds()),
        own_net=box.net == "none",
        hostname=box.hostname.encode(),
        directory=box.directory,
        root_tree=own(clone_root(box.root, read_only=box.root_mode == "read-only")),
        private=box.root_mode == "private",
        attributes=layer_attributes(box.root),
        steps=plan_mounts(tmpfs=value_or(box.spec.tmpfs, ()), binds=binds),
        bind_trees=tuple(
            own(clone_bind(source, read_only=bind.read_only))
            for bind, source in zip(binds, box.bind_sources, strict=True)
        ),
    )


def _open_netns(box: Box, pid: int) -> int | None:
    if box.net != "none":
        return None
    return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _has_device_control(group: cgroups.Group) -> bool:
    return group.plan.dir_of("devices") is not None or group.plan.unified is not None


@contextlib.contextmanager
def _end_on_error(pid: int) -> Iterator[None]:
    """End and reap a child of ours if the block fails."""
    try:
        yield
    except BaseException as error:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if isinstance(error, OSError):
            raise IsolationError(
                f"cannot look at the container's init: {explain(error)}", errno=error.errno
            ) from error
        raise


def _recorded_init(box: Box) -> ProcessId | None:
    recorded = box.facts.get("init")
    return None if recorded is None else ProcessId(**recorded)
