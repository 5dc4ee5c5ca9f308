"""The lxc driver: containers that liblxc makes, with execdrv-init inside.

Runs in a container's supervisor and calls nothing of liblxc that can block: that happens in the
monitor, a child (monitor.py, with the numbered steps). All that is mounted belongs to the
monitor's mount namespace or the container's, liblxc's locks and logs too, and the container's
groups are the host's: so nothing is left once monitor and init have ended.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Final

import attrs

from execdrv.driver import Box, Defaults, Driver, Isolated, Refusal
from execdrv.errors import CleanupError, IsolationError, StartError
from execdrv.limits import Limits, Receipt
from execdrv.linux import cgroups
from execdrv.linux.capabilities import CONTAINER_CAPABILITIES
from execdrv.linux.layer import clone_bind, clone_root, layer_attributes
from execdrv.linux.mounts import explain
from execdrv.linux.procfs import ProcessId, detect_process, list_children, open_pidfd
from execdrv.linux.spawn import spawn
from execdrv.linux.syscalls import CLONE_NEWNS
from execdrv.spec import value_or
from execdrv.version import VERSION
from execdrv_lxc import binding, log
from execdrv_lxc.check import detect_obstacle, list_refusals
from execdrv_lxc.companion import CompanionLink
from execdrv_lxc.monitor import Walls, run_monitor
from execdrv_lxc.offers import OFFERS
from execdrv_lxc.view import plan_view

if TYPE_CHECKING:
    from execdrv.init.link import InitLink

_KILL_TIMEOUT_S: Final = 5.0


class LxcDriver(Driver):
    """Runs commands in containers of liblxc."""

    name = "lxc"
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
        return detect_obstacle()

    def check(self, box: Box) -> Sequence[Refusal]:
        return list_refusals(box)

    def create(self, box: Box) -> None:
        """Nothing: all that an lxc container is made of ends with its processes."""

    def isolate(self, box: Box) -> Isolated:
        if box.init is None or box.group is None:
            raise IsolationError(f"cannot isolate container {box.id!r}: it has no init or group")
        # Loads it, so that the monitor, which must not import anything, finds it loaded.
        obstacle = binding.detect_obstacle()
        if obstacle is not None:
            raise IsolationError(f"cannot isolate container {box.id!r}: {obstacle}")
        try:
            with contextlib.ExitStack() as opened, self._undone_on_error(box):
                return _isolate(box, box.init, box.group, opened)
        except OSError as error:
            raise IsolationError(
                f"cannot isolate container {box.id!r}: {explain(error)}", errno=error.errno
            ) from error

    def limit(self, box: Box, limits: Limits) -> Sequence[Receipt]:
        return [] if box.group is None else cgroups.apply_limits(box.group, limits)

    def start(self, box: Box) -> ProcessId:
        init = _recorded(box, "init")
        if box.init is None or init is None:
            raise StartError(f"cannot start container {box.id!r}: it was not isolated")
        box.init.open_gate(box.process)
        return init

    def destroy(self, box: Box) -> None:
        recorded = (_recorded(box, "init"), _recorded(box, "monitor"))
        leftovers = _end_processes([process for process in recorded if process is not None])
        if leftovers:
            raise CleanupError(
                f"cannot end container {box.id!r}: {leftovers[0]} was killed and is still there "
                f"after {_KILL_TIMEOUT_S:g} s",
                leftovers=leftovers,
            )

    @contextlib.contextmanager
    def _undone_on_error(self, box: Box) -> Iterator[None]:
        """If the block fails, end and reap what it has recorded."""
        try:
            yield
        except BaseException:
            self.destroy(box)
            for name in ("monitor", "init"):  # the init comes to us when the monitor has ended
                process = _recorded(box, name)
                if process is not None:
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(process.pid, 0)
            raise


# --- isolate -----------------------------------------------------------------------------------


def _isolate(
    box: Box, init: InitLink, group: cgroups.Group, opened: contextlib.ExitStack
) -> Isolated:
    """The supervisor's steps of monitor.py; what is opened is closed with `opened`."""
    companion = CompanionLink()
    opened.callback(companion.close)
    log_fd = _own(opened, os.memfd_create("lxc-log"))
    walls = _prepare_walls(box, init, group, companion, opened, log_fd=log_fd)
    supervisor, lxcpath = os.getpid(), f"/lxc-{os.urandom(8).hex()}"

    def become_monitor() -> None:
        run_monitor(walls, box, supervisor=supervisor, lxcpath=lxcpath)

    monitor = detect_process(spawn(become_monitor, flags=CLONE_NEWNS))
    if monitor is None:
        raise IsolationError(f"cannot isolate container {box.id!r}: its monitor has ended")
    box.facts["monitor"] = attrs.asdict(monitor)
    try:
        init.wait_ready()
    except IsolationError as error:
        said = log.explain(os.pread(log_fd, 1 << 16, 0).decode("utf-8", "replace"))
        if not said:
            raise
        raise IsolationError(
            f"cannot isolate container {box.id!r}: liblxc says: {said}", hint=error.hint
        ) from error
    process = _find_init(box, monitor)
    box.facts["init"] = attrs.asdict(process)
    group.add(process.pid)
    companion.finish(process.pid)
    if group.plan.dir_of("devices") is not None or group.plan.unified is not None:
        cgroups.allow_devices(group)
    netns = None
    if box.net == "none":
        netns = os.open(f"/proc/{process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    return Isolated(init=process, netns=netns)


def _find_init(box: Box, monitor: ProcessId) -> ProcessId:
    """The container's pid 1: the monitor's only child (the companion is this process's)."""
    children = list_children(monitor.pid)
    process = detect_process(children[0]) if len(children) == 1 else None
    if process is None:
        raise IsolationError(
            f"cannot isolate container {box.id!r}: its monitor has {len(children)} children"
        )
    return process


def _prepare_walls(
    box: Box,
    init: InitLink,
    group: cgroups.Group,
    companion: CompanionLink,
    opened: contextlib.ExitStack,
    *,
    log_fd: int,
) -> Walls:
    """Open all that the monitor needs."""
    binds = value_or(box.spec.binds, ())
    return Walls(
        memfd=init.memfd,
        gate=init.gate_fd,
        stdio=box.stdio,
        passed=box.passed,
        null=_own(opened, os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)),
        log=log_fd,
        orders=companion.orders,
        reports=companion.reports,
        procs_fds=tuple(_own(opened, fd) for fd in group.procs_fds()),
        root_tree=_own(opened, clone_root(box.root, read_only=box.root_mode == "read-only")),
        bind_trees=tuple(
            _own(opened, clone_bind(source, read_only=bind.read_only))
            for bind, source in zip(binds, box.bind_sources, strict=True)
        ),
        private=box.root_mode == "private",
        attributes=layer_attributes(box.root),
        view=plan_view(tmpfs=value_or(box.spec.tmpfs, ()), binds=binds, root_mode=box.root_mode),
    )


def _own(opened: contextlib.ExitStack, fd: int) -> int:
    opened.callback(os.close, fd)
    return fd


# --- the end -----------------------------------------------------------------------------------


def _recorded(box: Box, name: str) -> ProcessId | None:
    recorded = box.facts.get(name)
    return None if recorded is None else ProcessId(**recorded)


def _end_processes(processes: Sequence[ProcessId]) -> list[str]:
    """Kill processes that are still these very ones; those that it does not end in time."""
    with contextlib.ExitStack() as opened:
        pidfds = {}
        for process in processes:
            pidfd = open_pidfd(process)
            if pidfd is not None:
                pidfds[_own(opened, pidfd)] = process
        for pidfd in pidfds:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        deadline = time.monotonic() + _KILL_TIMEOUT_S
        return [
            f"process {process.pid}"
            for pidfd, process in pidfds.items()
            if not _has_ended(pidfd, deadline)
        ]


def _has_ended(pidfd: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
