"""Everything that a container could leave behind in a stand-in host, as comparable lines.

One snapshot before and one after; `compare` tells what has come. In a stand-in host all is ours, so
what has come was left by the driver under test.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import attrs

from execdrv_conformance.observe import group, mount, process

#: Seconds for what is about to go: a supervisor ends just after its last answer.
SETTLE_S = 3.0


@attrs.frozen(kw_only=True)
class Snapshot:
    """Lines by kind."""

    lines: dict[str, frozenset[str]]

    def compare(self, later: Snapshot) -> dict[str, list[str]]:
        """What `later` has more, by kind; kinds without a difference are left out."""
        found = {}
        for kind, lines in later.lines.items():
            if more := sorted(lines - self.lines.get(kind, frozenset())):
                found[kind] = more
        return found


def take_snapshot(scratch: Path) -> Snapshot:
    """Look at all of it.

    Args:
        scratch: the directory of this stand-in host; its `state` is looked at too.
    """
    return Snapshot(
        lines={
            "process": frozenset(_processes()),
            "mount": frozenset(_mounts()),
            "group": frozenset(_groups()),
            "link": frozenset(_links()),
            "netns": frozenset(_listing("/run/netns")),
            "ipc": frozenset(_ipc()),
            "file": frozenset(_files(scratch)),
        }
    )


def wait_for_rest(
    before: Snapshot, look: Callable[[], Snapshot], *, timeout_s: float = SETTLE_S
) -> dict[str, list[str]]:
    """What is still there more than before after a while; returns at once when nothing is."""
    deadline = time.monotonic() + timeout_s
    while True:
        left = before.compare(look())
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


def _processes() -> list[str]:
    """Living processes by number and name; zombies wait for pid 1 and are nobody's leftover."""
    found = []
    for pid in process.list_pids():
        if process.is_alive(pid):
            try:
                found.append(f"{pid} {process.read_status(pid)['Name']}")
            except OSError:
                continue
    return found


def _mounts() -> list[str]:
    """One line a mount, also of several that are stacked at one place."""
    lines = [f"{one['target']} {one['type']} {one['source']}" for one in mount.read_mounts()]
    return [f"{line} {lines[:number].count(line)}" for number, line in enumerate(lines)]


def _groups() -> list[str]:
    found = []
    for controller in sorted(group.list_hierarchies()):
        own = group.directory_of(os.getpid(), controller)
        if own is not None:
            found += group.list_groups(own)
    return found


def _links() -> list[str]:
    return [
        line.partition(":")[0].strip()
        for line in Path("/proc/self/net/dev").read_text().splitlines()[2:]
    ]


def _listing(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _ipc() -> list[str]:
    found = []
    for kind in ("shm", "sem", "msg"):
        try:
            lines = Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]
        except OSError:
            continue
        found += [f"{kind} {line.split()[0]} {line.split()[1]}" for line in lines]
    return [*found, *(f"/dev/shm/{name}" for name in _listing("/dev/shm"))]


def _files(scratch: Path) -> list[str]:
    """Names below the state directory and /run, and in /tmp those of ours."""
    found = []
    for top in (str(scratch / "state"), "/run"):
        for directory, names, files in os.walk(top):
            found += [os.path.join(directory, name) for name in (*names, *files)]
    return found
