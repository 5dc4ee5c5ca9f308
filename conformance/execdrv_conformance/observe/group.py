"""What the kernel says of control groups: their trees, and their files, of v1 and v2.

The kit has its own idea of where a group's files are: the mounts of this process, and the path in
/proc/PID/cgroup. A controller is asked for by its v1 name; where it is on v2, the file's name there
is used.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from execdrv_conformance.observe import mount, process


def list_hierarchies() -> dict[str, str]:
    """Mount point by v1 controller, `name=NAME` where it has only a name, '' for the unified one.

    `cpu` and `cpuacct`, where they are bound together, each for itself.
    """
    found: dict[str, str] = {}
    for one in mount.read_mounts():
        if one["type"] == "cgroup2":
            found.setdefault("", one["target"])
        elif one["type"] == "cgroup":
            for option in one["super"]:
                if option not in ("rw", "ro") and ("=" not in option or option.startswith("name=")):
                    found.setdefault(option, one["target"])
    return found


def _root_of(target: str) -> str:
    """The path in the hierarchy that stands at a mount point."""
    found = mount.find_mount(mount.read_mounts(), target)
    return found["root"] if found is not None else "/"


def directory_of(pid: int, controller: str) -> str | None:
    """The directory of a process's group for a controller; None where there is none."""
    hierarchies = list_hierarchies()
    paths = process.read_groups(pid)
    for names, path in paths.items():
        if controller in names.split(",") and controller in hierarchies:
            return _join(hierarchies[controller], path)
    if "" in hierarchies and "" in paths:
        directory = _join(hierarchies[""], paths[""])
        known = Path(hierarchies[""], "cgroup.controllers")
        v2 = {"cpuacct": "cpu", "blkio": "io", "freezer": "", "devices": ""}.get(
            controller, controller
        )
        if v2 == "" or v2 in known.read_text().split():
            return directory
    return None


def bounds_of(pid: int, controller: str) -> str | None:
    """The directory that bounds a process, or counts for its container; None where there is none.

    Of the groups which the process is in and this one is not, that with the tightest limit; the
    topmost where none has one. A driver may put the limits above the group of the processes.
    """
    directory, own = directory_of(pid, controller), directory_of(os.getpid(), controller)
    if directory is None or own is None:
        return directory
    path = []
    while directory not in (own, "/") and not f"{own}/".startswith(f"{directory}/"):
        path.append(directory)
        directory = os.path.dirname(directory)
    if not path:
        return own
    return min(reversed(path), key=lambda one: _limit_of(one, controller))


def _limit_of(directory: str, controller: str) -> float:
    readers: dict[str, Callable[[str], float | None]] = {
        "memory": lambda path: read_memory(path)["limit"],
        "pids": lambda path: read_pids(path)["limit"],
        "cpu": read_quota,
    }
    try:
        limit = readers[controller](directory) if controller in readers else None
    except FileNotFoundError:
        limit = None
    return math.inf if limit is None else limit


def _join(top: str, path: str) -> str:
    root = _root_of(top)
    if root != "/" and path.startswith(root):
        path = path[len(root) :]
    return os.path.join(top, path.lstrip("/"))


def is_unified(directory: str) -> bool:
    """Whether a group's directory is one of cgroup v2."""
    return os.path.exists(os.path.join(directory, "cgroup.procs")) and not os.path.exists(
        os.path.join(directory, "cgroup.clone_children")
    )


def read_file(directory: str, name: str) -> str:
    """A file of a group, stripped."""
    return Path(directory, name).read_text().strip()


def read_table(directory: str, name: str) -> dict[str, int]:
    """A file of a group with lines of name and number."""
    table = {}
    for line in read_file(directory, name).splitlines():
        key, _, value = line.partition(" ")
        if value.lstrip("-").isdigit():
            table[key] = int(value)
    return table


def list_members(directory: str) -> list[int]:
    """The processes of a group and of those below it."""
    found: list[int] = []
    for path, _, _ in os.walk(directory):
        try:
            words = Path(path, "cgroup.procs").read_text().split()
        except OSError:
            continue
        found += [int(word) for word in words]
    return sorted(set(found))


def list_groups(top: str) -> list[str]:
    """Every directory below a group, the group itself left out."""
    found = []
    for path, names, _ in os.walk(top):
        found += [os.path.join(path, name) for name in names]
    return sorted(found)


def read_memory(directory: str) -> dict[str, Any]:
    """Limit, peak, and kills of a memory group, whatever its version. Bytes; limit None: none."""
    if is_unified(directory):
        limit = read_file(directory, "memory.max")
        peak = Path(directory, "memory.peak")
        return {
            "limit": None if limit == "max" else int(limit),
            "usage": int(read_file(directory, "memory.current")),
            "peak": int(peak.read_text()) if peak.exists() else None,
            "kills": read_table(directory, "memory.events").get("oom_kill", 0),
        }
    bytes_ = int(read_file(directory, "memory.limit_in_bytes"))
    return {
        # v1 says "none" as the largest number of whole pages.
        "limit": None if bytes_ >= 2**63 - 2**16 else bytes_,
        "usage": int(read_file(directory, "memory.usage_in_bytes")),
        "peak": int(read_file(directory, "memory.max_usage_in_bytes")),
        # v1 counts in the group of the process that was killed, and nowhere above.
        "kills": _sum_below(directory, "memory.oom_control", "oom_kill"),
    }


def _sum_below(directory: str, name: str, key: str) -> int:
    """A number of a group and of all groups below it."""
    return sum(read_table(path, name).get(key, 0) for path in (directory, *list_groups(directory)))


def read_cpu_us(directory: str) -> int:
    """Cpu time of a group in microseconds; of `cpuacct` on v1, of `cpu` on v2."""
    if is_unified(directory):
        return read_table(directory, "cpu.stat")["usage_usec"]
    return int(read_file(directory, "cpuacct.usage")) // 1000


def read_quota(directory: str) -> float | None:
    """The cpus a `cpu` group may use, or None."""
    if is_unified(directory):
        quota, period = read_file(directory, "cpu.max").split()
        return None if quota == "max" else int(quota) / int(period)
    quota_us = int(read_file(directory, "cpu.cfs_quota_us"))
    return None if quota_us < 0 else quota_us / int(read_file(directory, "cpu.cfs_period_us"))


def read_pids(directory: str) -> dict[str, Any]:
    """Limit, number and refusals of a `pids` group."""
    limit = read_file(directory, "pids.max")
    return {
        "limit": None if limit == "max" else int(limit),
        "usage": int(read_file(directory, "pids.current")),
        # Counted where the limit is, or where the fork failed: versions and kernels differ.
        "refused": _sum_below(directory, "pids.events", "max"),
    }


def read_shmem(directory: str) -> int:
    """Bytes of tmpfs files, shared memory and memfds that a memory group is charged for."""
    table = read_table(directory, "memory.stat")
    # v1 counts the groups below under a name of its own.
    return table.get("total_shmem", table["shmem"])


def read_kernel_memory(directory: str) -> int | None:
    """Bytes of kernel memory that a memory group is charged for; None: not counted apart."""
    if not is_unified(directory):
        counted = Path(directory, "memory.kmem.usage_in_bytes")
        return int(counted.read_text()) if counted.exists() else None
    table = read_table(directory, "memory.stat")
    if "kernel" in table:
        return table["kernel"] + table.get("sock", 0)
    # Before Linux 5.18 the parts are counted, and pipes are in none of them.
    return table["slab"] + table["sock"] if {"slab", "sock"} <= set(table) else None


def read_swap_peak(directory: str) -> int | None:
    """Most bytes of swap that a memory group had, or may have; None: not counted."""
    if is_unified(directory):
        peak = Path(directory, "memory.swap.peak")
        if peak.exists():
            return int(peak.read_text())
        limit = Path(directory, "memory.swap.max")
        return int(limit.read_text()) if limit.exists() and limit.read_text() != "max\n" else None
    both = Path(directory, "memory.memsw.max_usage_in_bytes")
    if not both.exists():
        return None
    return max(0, int(both.read_text()) - int(read_file(directory, "memory.limit_in_bytes")))
