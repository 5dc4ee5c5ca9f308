"""Processes as /proc shows them: start times, children, and ending whole trees.

A pid alone names nothing for long; with the start time (proc_pid_stat(5), field 22) it does.
Runs in a supervisor, a fork server or the command: single-threaded processes that are child
subreapers (PR_SET_CHILD_SUBREAPER), so that every orphan of a job ends up below them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable

import attrs


@attrs.frozen(kw_only=True)
class ProcessId:
    """A process, told from a later one of the same number by its start time."""

    #: Number in this process's pid namespace.
    pid: int
    #: Clock ticks since boot (proc_pid_stat(5), field 22).
    start_time: int


def parse_stat(text: str) -> list[str]:
    """The fields of /proc/PID/stat from the third on; the name before may hold blanks and ')'."""
    return text[text.rindex(")") + 2 :].split()


def _stat(pid: int) -> list[str] | None:
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        return parse_stat(os.read(fd, 4096).decode("utf-8", "replace"))
    except (ProcessLookupError, ValueError):
        return None
    finally:
        os.close(fd)


def detect_process(pid: int) -> ProcessId | None:
    """The process that has this number now (zombies included), or None."""
    fields = _stat(pid)
    return None if fields is None else ProcessId(pid=pid, start_time=int(fields[19]))


def detect_parent(pid: int) -> int | None:
    """The parent's number, or None if there is no such process."""
    fields = _stat(pid)
    return None if fields is None else int(fields[1])


def is_running(process: ProcessId) -> bool:
    """Whether this very process is there and is no zombie."""
    fields = _stat(process.pid)
    return fields is not None and int(fields[19]) == process.start_time and fields[0] not in "ZX"


def open_pidfd(process: ProcessId) -> int | None:
    """A pidfd of this very process, or None if it is gone (pidfd_open(2)).

    Opened first and compared after, so that the number can't change its owner in between.
    """
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if detect_process(process.pid) != process:
        os.close(fd)
        return None
    return fd


def send_signal(process: ProcessId, signum: int) -> bool:
    """Send a signal to this very process; False if it is gone."""
    fd = open_pidfd(process)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, signum)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def list_children(pid: int) -> list[int]:
    """The children of all threads of a process; empty if it is gone."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return found
    for thread in threads:
        with (
            contextlib.suppress(FileNotFoundError, ProcessLookupError),
            open(f"/proc/{pid}/task/{thread}/children", "rb") as file,
        ):
            found += map(int, file.read().split())
    return found


def list_descendants(roots: Iterable[int]) -> list[int]:
    """The roots and everything below them, parents before children."""
    found = list(roots)
    for pid in found:
        found += list_children(pid)
    return found


def reap_children() -> None:
    """Take the status of every zombie child of this process, and drop it."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def kill_trees(
    roots: Callable[[], list[int]],
    *,
    timeout_s: float,
    reap: Callable[[], None] = reap_children,
) -> list[int]:
    """End everything below this process's children that `roots` names, until it names none.

    Children of a killed process come to this one (a subreaper) and so are named the next time:
    that is how a tree which forks faster than it is read ends all the same.

    Args:
        roots: the children of this process to end, asked again each round.
        timeout_s: seconds after which what is left is returned.
        reap: takes the status of this process's zombies.
    Returns:
        What is still there: empty when all ended.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = 0.0002
    while True:
        reap()
        pids = roots()
        if not pids:
            return []
        if time.monotonic() > deadline:
            return list_descendants(pids)
        tree = list_descendants(pids)
        members = {os.getpid(), *tree}
        for pid in tree:
            _kill_member(pid, members)
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.02)


def _kill_member(pid: int, members: set[int]) -> None:
    """Kill a process if its parent is still one of `members` (else the number was reused)."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if detect_parent(pid) in members:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)


def kill_own_children(*, timeout_s: float, reap: Callable[[], None] = reap_children) -> list[int]:
    """End every descendant of this process; returns what is left after `timeout_s` seconds."""
    own = os.getpid()
    return kill_trees(lambda: list_children(own), timeout_s=timeout_s, reap=reap)
