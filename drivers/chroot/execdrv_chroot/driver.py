"""The chroot driver: another root directory, a user of its own, and no capability.

It mounts nothing and makes no namespace and no group: what it can't wall off stands in offers.py.
The job can't climb out, for it never has CAP_SYS_CHROOT, nor can it get that in a user namespace:
a process in a chroot can't make one (user_namespaces(7)). chroot(2), credentials(7).

     supervisor                            child
  1. clones                           ->   arranges its descriptors while it still has a /proc
  2.                                       fchdir(root), chroot("."), chdir("/")
  3. records the init                 <-   executes the init by descriptor, which says READY
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Final

from execdrv.driver import Box, Defaults, Driver, Isolated, Refusal
from execdrv.errors import CleanupError, IsolationError, StartError, UnsupportedError
from execdrv.init.link import InitLink
from execdrv.limits import Limits, Receipt
from execdrv.linux import procfs, syscalls
from execdrv.linux.capabilities import capability_mask, capability_names
from execdrv.linux.leases import LEASE_BASE, LEASE_COUNT
from execdrv.linux.procfs import ProcessId
from execdrv.linux.spawn import arrange_fds, spawn
from execdrv.linux.strays import end_descendants
from execdrv.spec import UNSET, value_or
from execdrv.version import VERSION
from execdrv_chroot import roots
from execdrv_chroot.offers import OFFERS

#: What the supervisor and the init need: the last to end a job that has another uid.
_NEEDED: Final = ("KILL", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT")
_SYS_CHROOT: Final = capability_mask(["SYS_CHROOT"])
#: These pass the mode of the root directory.
_PASSES_MODES: Final = capability_mask(["DAC_OVERRIDE", "DAC_READ_SEARCH"])
_END_TIMEOUT_S: Final = 5.0


class ChrootDriver(Driver):
    """Runs commands in a chroot."""

    name = "chroot"
    contract = 1
    version = VERSION
    offers = OFFERS
    defaults: ClassVar[Defaults] = Defaults(
        uid=None, gid=None, capabilities=frozenset(), root_mode="direct", net="host"
    )

    def availability(self) -> str | None:
        effective, _, _ = syscalls.capget()
        missing = capability_names(capability_mask(_NEEDED) & ~effective)
        if not missing:
            return None
        if os.geteuid() != 0:
            return "it needs root (run it with sudo)"
        return f"this process lacks {', '.join(missing)} (run it with full root)"

    def check(self, box: Box) -> Sequence[Refusal]:
        obstacle = self.availability()
        if obstacle is not None:
            return [Refusal(message=f"cannot run a chroot container: {obstacle}")]
        return [
            *_check_capabilities(box),
            *_check_ids(box),
            *_check_root(box),
            *_check_required(box),
        ]

    def create(self, box: Box) -> None:
        """Nothing: all that a chroot container is made of ends with its processes."""

    def isolate(self, box: Box) -> Isolated:
        link = box.init
        if link is None:
            raise IsolationError(f"cannot isolate container {box.id!r}: it has no init")
        try:
            pid = spawn(lambda: _become_init(box, link))
        except OSError as error:
            raise IsolationError(
                f"cannot change the root of container {box.id!r}: {error.strerror}",
                errno=error.errno,
            ) from error
        init = procfs.detect_process(pid)
        if init is None:
            raise IsolationError(f"cannot isolate container {box.id!r}: its init has ended")
        box.facts["init"] = {"pid": init.pid, "start_time": init.start_time}
        try:
            link.wait_ready()
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        return Isolated(init=init)

    def limit(self, box: Box, limits: Limits) -> Sequence[Receipt]:
        names = limits.names()
        if names:
            raise UnsupportedError(
                f"cannot limit {names[0]}: driver 'chroot' makes no cgroup",
                hint="use the driver 'native' or 'lxc', or --rlimit for each process alone",
                driver=self.name,
            )
        return []

    def start(self, box: Box) -> ProcessId:
        init = _recorded_init(box)
        if box.init is None or init is None:
            raise StartError(f"cannot start container {box.id!r}: it was not isolated")
        box.init.open_gate(box.process)
        return init

    def destroy(self, box: Box) -> None:
        """End the init, and in the supervisor the whole tree.

        What outlived supervisor and starter, when both were killed at once, is below nobody: the
        host, which knows the other containers, ends that (execdrv.linux.strays).
        """
        init = _recorded_init(box)
        left = []
        if init is not None:
            procfs.send_signal(init, signal.SIGKILL)
        if box.init is not None:
            # Here is a subreaper: the init's orphans are our children by now.
            left = end_descendants(timeout_s=_END_TIMEOUT_S)
        elif init is not None and not _wait_until(lambda: not procfs.is_running(init)):
            left = [init.pid]
        if left:
            raise CleanupError(
                f"cannot end container {box.id!r}: process {left[0]} was killed and is still "
                f"there after {_END_TIMEOUT_S:g} s",
                leftovers=[f"process {pid}" for pid in left],
            )


# --- check -------------------------------------------------------------------------------------


def _check_capabilities(box: Box) -> Iterator[Refusal]:
    order = box.process
    if (order.bounding | order.permitted | order.inheritable | order.ambient) & _SYS_CHROOT:
        through = " (ALL has it)" if "ALL" in value_or(box.spec.cap_add, ()) else ""
        yield Refusal(
            message=f"cannot give capability SYS_CHROOT in a chroot{through}: with it the job "
            "could leave its root",
            hint="name the capabilities that are needed, or use the driver 'native'",
            field="cap_add",
            guarantee="fs.escape-chroot",
        )


def _check_ids(box: Box) -> Iterator[Refusal]:
    order = box.process
    if box.spec.user is not UNSET and order.uid - LEASE_BASE in range(LEASE_COUNT):
        yield Refusal(
            message=f"cannot run as user {order.uid}: it may be another container's own",
            hint=f"leave --user out for a user of the container's own, or give one outside of "
            f"{LEASE_BASE} to {LEASE_BASE + LEASE_COUNT - 1}",
            field="user",
            guarantee="user.uid",
        )
    for field, path, number in (
        ("user", "uid_map", order.uid),
        ("group", "gid_map", order.gid),
        *(("groups", "gid_map", group) for group in order.groups if group != order.gid),
    ):
        with open(f"/proc/self/{path}", encoding="ascii") as file:
            ranges = [tuple(map(int, line.split())) for line in file]
        if not any(first <= number < first + count for first, _, count in ranges):
            yield Refusal(
                message=f"cannot use {field} {number}: it is not mapped in the user namespace "
                "that execdrv runs in",
                hint=f"give a {field} of the ranges in /proc/self/{path}",
                field=field,
                guarantee="user.groups" if field == "groups" else "user.uid",
            )


def _check_root(box: Box) -> Iterator[Refusal]:
    yield from roots.find_mounts(box.root)
    yield from roots.find_nodes(box.root)
    order = box.process
    if not order.effective & _PASSES_MODES:
        groups = {order.gid, *order.groups}
        yield from roots.find_closed_root(box.root, uid=order.uid, groups=groups)


def _check_required(box: Box) -> Iterator[Refusal]:
    """What is required and holds only for some boxes, beyond the conditions of the offers."""
    required = value_or(box.spec.require, ())
    if "dev.usable" in required or "dev.minimal" in required:
        yield from roots.find_missing_nodes(box.root)


# --- isolate and destroy -----------------------------------------------------------------------


def _become_init(box: Box, link: InitLink) -> None:
    """In the child: steps 1 to 3; ends in exec.

    Descriptors first: where close_range(2) is missing they are found by /proc/self/fd, which in
    the new root would be a file of the job's making.
    """
    memfd, gate, root = arrange_fds(
        stdio=box.stdio, passed=box.passed, keep=[link.memfd, link.gate_fd, box.root]
    )
    os.set_inheritable(memfd, False)
    os.set_inheritable(root, False)
    os.fchdir(root)
    os.chroot(".")
    os.chdir("/")
    os.execve(memfd, [b"execdrv-init", b"%d" % gate], {})


def _recorded_init(box: Box) -> ProcessId | None:
    recorded = box.facts.get("init")
    return None if recorded is None else ProcessId(**recorded)


def _wait_until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _END_TIMEOUT_S
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True
