"""Guard groups: one a hierarchy, around everything that a session runs.

Made by the front end below its own groups, before the stand-in host enters them; they bound what a
driver that fails to limit its jobs can take of the machine. Removed when the stand-in host is gone.
Runs outside the stand-in host.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import attrs

from execdrv_conformance.observe import group

#: Bytes that a whole session may use: probes bound themselves to 256 MiB each.
MEMORY_BYTES = 3 << 30
#: Tasks of a whole session.
PIDS = 1500
#: Seconds for the last processes to leave.
_EMPTY_S = 5.0


@attrs.frozen
class Guard:
    """The guard groups of one stand-in host."""

    #: Directories to enter, one a hierarchy.
    directories: tuple[str, ...]
    #: What could not be guarded, and why.
    problems: tuple[str, ...]

    def enter(self) -> None:
        """Move this process in. For a v2 group without room it stays out (see `make_guard`)."""
        for directory in self.directories:
            Path(directory, "cgroup.procs").write_text("0")

    def remove(self) -> list[str]:
        """End what is left inside and remove the groups.

        Returns:
            Directories that are left.
        """
        deadline = time.monotonic() + _EMPTY_S
        for directory in self.directories:
            while os.path.isdir(directory) and not _remove_tree(directory):
                if time.monotonic() > deadline:
                    break
                for pid in group.list_members(directory):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, 9)
                time.sleep(0.01)
        return [directory for directory in self.directories if os.path.isdir(directory)]


def make_guard(name: str) -> Guard:
    """Make the groups.

    Args:
        name: of each group; begins with `xdc-`, so that `sweep` knows it.
    """
    made: list[str] = []
    problems: list[str] = []
    for controller in group.list_hierarchies():
        above = group.directory_of(os.getpid(), controller)
        if above is None or os.path.join(above, name) in made:
            continue
        directory = os.path.join(above, name)
        try:
            os.mkdir(directory, 0o755)
        except OSError as error:
            problems.append(f"{controller or 'unified'}: {error.strerror}")
            continue
        try:
            _prepare(directory, above)
        except OSError as error:
            problems.append(f"{controller or 'unified'}: {error.strerror}")
        made.append(directory)
    return Guard(tuple(made), tuple(problems))


def _prepare(directory: str, above: str) -> None:
    if group.is_unified(directory):
        wanted = set(Path(above, "cgroup.controllers").read_text().split())
        on = set(Path(above, "cgroup.subtree_control").read_text().split())
        missing = sorted((wanted & {"memory", "pids", "cpu", "io", "cpuset"}) - on)
        if missing:
            Path(above, "cgroup.subtree_control").write_text(" ".join(f"+{n}" for n in missing))
        _write_limit(directory, "memory.max", MEMORY_BYTES)
        _write_limit(directory, "pids.max", PIDS)
        return
    for file in ("cpuset.cpus", "cpuset.mems"):
        # A new v1 cpuset is empty, and takes no process until it is not.
        if os.path.exists(os.path.join(directory, file)):
            Path(directory, file).write_text(Path(above, file).read_text())
    _write_limit(directory, "memory.limit_in_bytes", MEMORY_BYTES)
    _write_limit(directory, "pids.max", PIDS)


def _write_limit(directory: str, file: str, value: int) -> None:
    if os.path.exists(os.path.join(directory, file)):
        Path(directory, file).write_text(str(value))


def _remove_tree(directory: str) -> bool:
    for path in (*reversed(group.list_groups(directory)), directory):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True
