"""Ending processes that neither a pid namespace nor a group holds together.

While a subreaper above them lives they are its descendants. When all of them are killed at once,
processes are left below nobody of ours: strays, known by the pair of root directory (device and
inode of /proc/PID/root) and uid, of which an unprivileged job in a chroot can change neither. A
process below a living execdrv-init belongs to another container, of whatever state directory, and
is no stray. Runs in supervisors and collectors: single-threaded, privileged. Knows no records.
proc(5), kill(2), pidfd_open(2), credentials(7).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Final

import attrs

from execdrv.errors import CleanupError
from execdrv.linux import procfs, syscalls
from execdrv.linux.procfs import ProcessId

#: Scans in a row that must find nothing: a process may fork and exit between listing and look.
_QUIET_SCANS: Final = 3
_PAUSE_S: Final = 0.005
#: How long the process that kills a whole uid may take; a stray may stop it.
_KILLER_TIMEOUT_S: Final = 0.5
#: The name that execdrv-init gives itself (proc_pid_comm(5)).
_INIT_NAME: Final = b"execdrv-init"


@attrs.frozen(kw_only=True)
class Mark:
    """What the processes of one container have in common."""

    #: Of the root directory, as stat(2) gives them.
    device: int
    inode: int
    #: The job's user, 0 to 2**32-2; the effective one counts.
    uid: int
    #: Start time of the container's init in clock ticks since boot; nothing older is a stray.
    since: int = 0


def end_descendants(
    *, timeout_s: float, reap: Callable[[], None] = procfs.reap_children
) -> list[int]:
    """End everything below this process, also what forks and exits without pause.

    1. Who ends from now on leaves no zombie: a storm would make them faster than anybody reaps.
    2. Each round kills all children, the newest first: in a storm those live, the others are
       zombies. What was below them is below this process, a subreaper, in the next round.

    Args:
        timeout_s: seconds after which what is left is returned.
        reap: takes the status of the zombies that are there already.
    Returns:
        What is still there: empty when all have ended.
    """
    own, before, pause_s = os.getpid(), [-1], 0.0
    deadline = time.monotonic() + timeout_s
    with _in_a_hurry(), _without_zombies():
        while True:
            children = procfs.list_children(own)
            for pid in reversed(children):
                # A number is its child's until this process reaps it, so no pidfd is needed.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            reap()
            if not children:
                return []
            if time.monotonic() > deadline:
                return procfs.list_descendants(procfs.list_children(own))
            # Only where nothing moves is there something to wait for.
            pause_s = min(pause_s * 2 + 0.0001, 0.01) if children == before else 0.0
            before = children
            time.sleep(pause_s)


def find_strays(mark: Mark) -> list[ProcessId]:
    """The strays there are now. Changes nothing.

    One that forks and exits without pause can be missed.

    Raises:
        CleanupError: a process of that uid can't be looked at; it is among the leftovers.
    """
    return _scan(mark)[0]


def end_strays(mark: Mark, *, leased: bool = False, timeout_s: float = 5.0) -> list[ProcessId]:
    """Kill strays until there are none.

    Args:
        leased: nobody but this container has the uid (execdrv.linux.leases). Then, and if all
            processes of that uid are strays, they are also killed by one kill(2) that no fork
            can outrun. Otherwise one that forks and exits without pause can get away.
        timeout_s: seconds after which what is left is returned.
    Returns:
        What is still there: empty when all have ended.
    Raises:
        CleanupError: as `find_strays`.
    """
    with _in_a_hurry():
        return _end_strays(mark, leased=leased, deadline=time.monotonic() + timeout_s)


def _end_strays(mark: Mark, *, leased: bool, deadline: float) -> list[ProcessId]:
    quiet = 0
    swept = False
    while True:
        strays, others = _scan(mark)
        if not strays and (swept or quiet >= _QUIET_SCANS):
            return []
        if strays and time.monotonic() > deadline:
            return strays
        quiet = 0 if strays else quiet + 1
        if leased and not others:
            swept = _kill_uid(mark.uid) or swept
        for stray in strays:
            _kill_stray(stray, mark)
        time.sleep(_PAUSE_S)


def detect_uids() -> set[int]:
    """Every uid that is the effective one of some process."""
    return {uid for pid in _list_pids() if (uid := _stat_uid(pid)) is not None}


@contextlib.contextmanager
def _without_zombies() -> Iterator[None]:
    """Children that end are forgotten by the kernel at once (wait(2), on ignoring SIGCHLD)."""
    handler = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def _in_a_hurry() -> Iterator[None]:
    """Run with the highest ordinary priority where that is allowed: the strays may be many."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, before)


def _scan(mark: Mark) -> tuple[list[ProcessId], list[ProcessId]]:
    """The strays, and the other processes of the same uid."""
    strays: list[ProcessId] = []
    others: list[ProcessId] = []
    above_us = set(_list_ancestors(os.getpid()))
    for pid in _list_pids():
        if _stat_uid(pid) != mark.uid:
            continue
        root = _stat_root(pid, uid=mark.uid)
        process = procfs.detect_process(pid) if root is not None else None
        if process is None:
            continue
        is_ours = root == (mark.device, mark.inode) and process.start_time >= mark.since
        if is_ours and not _has_living_init(pid, above_us):
            strays.append(process)
        else:
            others.append(process)
    return strays, others


def _list_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat_uid(pid: int) -> int | None:
    """The effective uid; None if the process is gone. Cheap, for there may be many zombies."""
    try:
        # The owner of this directory, unlike of what is in it, does not depend on "dumpable".
        return os.stat(f"/proc/{pid}").st_uid
    except (FileNotFoundError, ProcessLookupError):
        return None


def _stat_root(pid: int, *, uid: int) -> tuple[int, int] | None:
    """Device and inode of the process's root; None if it is gone or a zombie."""
    try:
        # A process whose first thread has ended looks like a zombie while other threads run.
        for task in _list_tasks(pid):
            try:
                found = os.stat(f"{task}/root")
                return (found.st_dev, found.st_ino)
            except (FileNotFoundError, ProcessLookupError):
                continue
    except PermissionError as error:
        if _is_zombie(pid):
            return None
        raise CleanupError(
            f"cannot tell whether process {pid} of uid {uid} was left by a container: "
            f"{os.strerror(error.errno or 0).lower()}",
            hint="look for strays as root with CAP_SYS_PTRACE",
            leftovers=[f"process {pid} (perhaps)"],
        ) from error
    return None


def _is_zombie(pid: int) -> bool:
    """Whether nothing of the process runs any more."""
    process = procfs.detect_process(pid)
    alone = len(list(_list_tasks(pid))) <= 2
    return process is None or (alone and not procfs.is_running(process))


def _list_tasks(pid: int) -> Iterator[str]:
    """Directories in /proc of a process and of its threads."""
    yield f"/proc/{pid}"
    try:
        yield from (f"/proc/{pid}/task/{name}" for name in os.listdir(f"/proc/{pid}/task"))
    except (FileNotFoundError, ProcessLookupError):
        return


def _list_ancestors(pid: int) -> Iterator[int]:
    """The process's parents, nearest first."""
    parent = procfs.detect_parent(pid)
    while parent:
        yield parent
        parent = procfs.detect_parent(parent)


def _has_living_init(pid: int, above_us: set[int]) -> bool:
    """Whether it is, or stands below, a container's init: other than one we are in ourselves."""
    for member in (pid, *_list_ancestors(pid)):
        if member in above_us:
            return False
        # The name alone could be a job's own choice; uid 0 can not.
        if _read_name(member) == _INIT_NAME and _stat_uid(member) == 0:
            return True
    return False


def _read_name(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/comm", "rb", buffering=0) as file:
            return file.read(64).rstrip(b"\n")
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _kill_stray(stray: ProcessId, mark: Mark) -> None:
    """Kill this very process, if its mark is still that of the container."""
    # The descriptor first: then neither the number nor the mark can become another process's
    # between the look and the kill.
    fd = procfs.open_pidfd(stray)
    if fd is None:
        return
    try:
        root = _stat_root(stray.pid, uid=mark.uid)
        if root == (mark.device, mark.inode) and _stat_uid(stray.pid) == mark.uid:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)


def _kill_uid(uid: int) -> bool:
    """Kill every process of the uid at once: no fork gets past a kill(2) of -1.

    1. child:  becomes that uid, which takes its capabilities away, makes sure of both, and
               kills whatever the kernel lets that uid kill: its own processes.
    2. parent: waits; a stray, which has the same uid, may have killed or stopped the child.

    Returns:
        Whether the kill was sent.
    """
    try:
        pid = os.fork()
    except BlockingIOError:
        # The strays, or their zombies, have all process numbers there are.
        return False
    if pid == 0:
        try:
            os.setresuid(uid, uid, uid)
            # With either of these wrong, the call would reach every process of the machine.
            if uid != 0 and os.getresuid() == (uid, uid, uid) and syscalls.capget()[0] == 0:
                os.kill(-1, signal.SIGKILL)
                os._exit(0)
        finally:
            os._exit(1)
    deadline = time.monotonic() + _KILLER_TIMEOUT_S
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status == 0
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return False
        time.sleep(0.0005)
