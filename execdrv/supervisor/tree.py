"""The processes of a container, which are all those below its supervisor.

The supervisor is single-threaded and a subreaper: whatever lost its parent becomes its child. So
every child's status comes here, and the tree has ended when there is no child any more.
"""

from __future__ import annotations

import contextlib
import os

from execdrv.driver import Box
from execdrv.errors import OperationError
from execdrv.linux import procfs
from execdrv.linux.procfs import ProcessId
from execdrv.linux.strays import end_descendants

#: Seconds for ending what is left of a container.
END_TIMEOUT_S = 10.0
#: Zombies taken before other work has its turn.
REAP_AT_ONCE = 256


class Tree:
    """What runs below this process."""

    def __init__(self) -> None:
        self._reported: dict[int, int] = {}
        #: The process whose end is the container's end, once the command runs.
        self.watched: ProcessId | None = None

    @property
    def watched_status(self) -> int | None:
        """The watched process's raw wait status (wait(2)); None while it was not reaped here."""
        return self._reported.get(self.watched.pid) if self.watched is not None else None

    def reap(self) -> None:
        """Take the status of zombie children; that of the watched process is kept.

        At one go only so many: a fork storm makes them faster than anybody takes them.
        """
        with contextlib.suppress(ChildProcessError):
            for _ in range(REAP_AT_ONCE):
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if self.watched is None or pid == self.watched.pid:
                    self._reported[pid] = status

    def end(self, box: Box | None) -> list[str]:
        """End every process of the container; what was still there, in words.

        Args:
            box: the container's, once it has an init or a group.
        """
        if box is not None:
            if box.init is not None:
                # It ends by itself when its gate closes; a pid namespace ends with it.
                box.init.close()
            kill_group(box)
        self.reap()
        found = [f"process {pid}" for pid in procfs.list_children(os.getpid())]
        end_descendants(timeout_s=END_TIMEOUT_S, reap=self.reap)
        return found


def kill_group(box: Box) -> None:
    """Kill what is in the container's group, if it has one; what this misses is below us."""
    if box.group is not None:
        with contextlib.suppress(OperationError, OSError):
            box.group.kill()
