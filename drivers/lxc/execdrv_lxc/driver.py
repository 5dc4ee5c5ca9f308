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
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Final

import attrs

from execdrv.driver import Box, Defaults, Driver, Isolated, Refusal
from execdrv.errors import CleanupError, IsolationError, StartError
from execdrv.limits import Limits, Receipt
from execdrv.linux import cgroups
from execdrv.linux.capabilities import CONTAINER_CAPABILITIES
from execdrv.linux.mounts import clone_tree, explain
from execdrv.linux.procfs import ProcessId, detect_process, list_children, open_pidfd
from execdrv.linux.spawn import spawn
from execdrv.linux.syscalls import (
    CLONE_NEWNS,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
)
from execdrv.spec import value_or
from execdrv.version import VERSION
from execdrv_lxc import log
from execdrv_lxc.check import detect_obstacle, find_refusals
from execdrv_lxc.companion import STEP_TIMEOUT_S, read_report
from execdrv_lxc.monitor import Walls, run_monitor
from execdrv_lxc.offers import OFFERS
from execdrv_lxc.view import plan_companion_steps, plan_monitor_steps, plan_mounts, plan_release

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
        return find_refusals(box)

    def create(self, box: Box) -> None:
        """Nothing: all that an lxc container is made of ends with its processes."""

    def isolate(self, box: Box) -> Isolated:
        if box.init is None or box.group is None:
            raise IsolationError(f"cannot isolate container {box.id!r}: it has no init or group")
        # Here, so that the monitor, which must not import anything, finds it loaded.
        obstacle = detect_obstacle()
        if obstacle is not None:
            raise IsolationError(f"cannot isolate container {box.id!r}: {obstacle}")
        with contextlib.ExitStack() as opened:
            try:
                return self._isolate(box, opened)
            except OSError as error:
                raise IsolationError(
                    f"cannot isolate container {box.id!r}: {explain(error)}", errno=error.errno
                ) from error
