"""What the kernel says of a process, in /proc/PID (proc(5))."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user", "time")


def list_pids() -> list[int]:
    """Every process of this pid namespace and below."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def read_status(pid: int) -> dict[str, str]:
    """/proc/PID/status by field name."""
    fields = {}
    for line in Path(f"/proc/{pid}/status").read_text(errors="surrogateescape").splitlines():
        name, _, value = line.partition(":")
        fields[name] = value.strip()
    return fields


def read_stat(pid: int) -> list[str]:
    """/proc/PID/stat from the third field on: the state is number 0, the parent number 1."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()


def is_alive(pid: int) -> bool:
    """Whether it runs: a dead one that waits for its parent does not."""
    try:
        return read_stat(pid)[0] not in "ZX"
    except OSError:
        return False


def parent_of(pid: int) -> int:
    """Its parent in this pid namespace; 0 if that is outside."""
    return int(read_stat(pid)[1])


def list_children(pid: int) -> list[int]:
    """Its living children."""
    found = []
    for other in list_pids():
        try:
            if parent_of(other) == pid:
                found.append(other)
        except OSError:
            continue
    return found


def list_tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for other in list_pids():
        try:
            parents.setdefault(parent_of(other), []).append(other)
        except OSError:
            continue
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += parents.get(one, [])
    return sorted(found)


def read_namespaces(pid: int | str) -> dict[str, str]:
    """Links of its namespaces by name."""
    links = {}
    for name in NAMESPACES:
        try:
            links[name] = os.readlink(f"/proc/{pid}/ns/{name}")
        except FileNotFoundError:
            continue
    return links


def read_words(pid: int) -> list[bytes]:
    """Its command line; nothing of one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def read_environment(pid: int) -> list[bytes]:
    """The environment it was started with, as NAME=VALUE."""
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")[:-1]


def find_marked(nonce: str) -> list[int]:
    """Living processes that carry a word in their command line or environment."""
    word = nonce.encode()
    found = []
    for pid in list_pids():
        if pid == os.getpid():
            continue
        try:
            marked = any(word in one for one in (*read_words(pid), *read_environment(pid)))
        except OSError:
            continue
        if marked and is_alive(pid):
            found.append(pid)
    return found


def read_fds(pid: int) -> dict[int, str]:
    """Its open descriptors with what they lead to."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
    return found


def read_limits(pid: int) -> dict[str, tuple[str, str]]:
    """/proc/PID/limits: soft and hard by name, such as "Max open files"."""
    found = {}
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]:
        name, soft, hard = line[:26].strip(), *line[26:].split()[:2]
        found[name] = (soft, hard)
    return found


def read_groups(pid: int) -> dict[str, str]:
    """/proc/PID/cgroup: path by controllers; '' for the unified hierarchy."""
    found = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text(errors="surrogateescape").splitlines():
        _, controllers, path = line.split(":", 2)
        found[controllers] = path
    return found


def describe(pid: int) -> str:
    """A process in one line, for reports."""
    try:
        words = b" ".join(read_words(pid)).decode(errors="replace")[:80]
        status = read_status(pid)
    except OSError:
        return f"{pid} (gone)"
    return f"{pid} {status.get('Name', '?')} parent {status.get('PPid', '?')}: {words}"


def identity(path: str) -> dict[str, Any]:
    """Device and inode of what a path leads to."""
    found = os.stat(path)
    return {"device": found.st_dev, "inode": found.st_ino}


def wait_ended(pids: list[int], *, timeout_s: float) -> list[int]:
    """Those that still live after a while; returns as soon as none does."""
    deadline = time.monotonic() + timeout_s
    while True:
        left = [pid for pid in pids if is_alive(pid)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.01)


def read_task_time_us(pid: int) -> int | None:
    """Cpu time of its living threads, exact, where /proc/PID/stat has whole ticks; None: unknown.

    From schedstat, which a kernel without CONFIG_SCHED_INFO does not have.
    """
    total_ns = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        counted = Path(f"/proc/{pid}/task/{task}/schedstat")
        if not counted.exists():
            return None
        total_ns += int(counted.read_text().split()[0])
    return total_ns // 1000
