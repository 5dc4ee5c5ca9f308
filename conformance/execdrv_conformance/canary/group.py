"""Control groups of the kit's own around a control: what it raises or leaves must be limited.

Below the worker's groups on v1, beside them on v2, where a group with processes can't have limited
ones below it. Made around one process, and removed when it has been looked at.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from execdrv_conformance.observe import group

_EMPTY_S = 2.0
#: The file of a limit by controller, and whether it is on v2.
_LIMITS = {
    ("pids", False): "pids.max",
    ("pids", True): "pids.max",
    ("memory", False): "memory.limit_in_bytes",
    ("memory", True): "memory.max",
}


class GroupCanary:
    """Groups that limit one process."""

    def __init__(self) -> None:
        #: Own directory and the one that processes came from, by controller.
        self._made: dict[str, tuple[str, str]] = {}

    def place(self, pid: int, *, name: str, pids: int, memory: int) -> None:
        """Limit a process.

        Args:
            name: of the groups, `xdc-` and more.
            pids: tasks.
            memory: bytes.
        Raises:
            OSError: a group can't be made; what was made remains until `remove`.
        """
        for controller, limit in (("pids", pids), ("memory", memory)):
            home = group.directory_of(os.getpid(), controller)
            if home is None:
                raise FileNotFoundError(f"controller {controller!r} is not mounted")
            unified = group.is_unified(home)
            directory = os.path.join(os.path.dirname(home) if unified else home, name)
            if not os.path.isdir(directory):
                os.mkdir(directory, 0o755)
            self._made[controller] = (directory, home)
            Path(directory, _LIMITS[controller, unified]).write_text(str(limit))
            Path(directory, "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """Move the processes back where they came from and remove the groups. Repeatable."""
        for directory, home in self._made.values():
            for pid in group.list_members(directory) if os.path.isdir(directory) else []:
                with contextlib.suppress(OSError):
                    Path(home, "cgroup.procs").write_text(str(pid))
            deadline = time.monotonic() + _EMPTY_S
            while os.path.isdir(directory) and time.monotonic() < deadline:
                with contextlib.suppress(OSError):
                    os.rmdir(directory)
                    break
                time.sleep(0.01)
        self._made.clear()
