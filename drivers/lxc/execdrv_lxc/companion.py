"""The companion: a short-lived process beside a monitor, with the same table of descriptors.

What has to happen to the monitor while liblxc keeps it busy, and what must be done in the
container before its job runs, is done by this second process. It is a child of the supervisor
and shares nothing with the monitor but the descriptors (CLONE_FILES): what it closes is closed
there too.

    1. monitor    clones the companion
    2. companion  tells the supervisor its pid; joins the container's groups, so that a cgroup
                  namespace made now has them as its root; tells the monitor its descriptor; waits
    3. supervisor sends the pid of the container's init
    4. companion  takes the job's descriptors and liblxc's control socket from the monitor
    5. companion  enters the init's mount namespace; covers parts of /proc, mounts /dev/pts,
                  releases what was held back from liblxc
    6. companion  tells the supervisor that all is well, or what failed, and ends

It ends without a word if the supervisor closes its end or the monitor ends before step 3. Step 4
comes after the init was executed, so the init's copies are complete. The control socket would let
any root process of its network namespace command the container: the job of another one that has
the machine's network, for example.

Each message to supervisor and monitor is one line in a pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import stat
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import attrs

from execdrv.errors import ExecdrvError, IsolationError
from execdrv.linux.mounts import INERT, Cover, NewFs, Protect, explain, make_covers, make_fs
from execdrv.linux.syscalls import (
    AT_RECURSIVE,
    AT_SYMLINK_NOFOLLOW,
    CLONE_FILES,
    CLONE_NEWCGROUP,
    CLONE_NEWNS,
    CLONE_PARENT,
    MNT_DETACH,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    OPEN_TREE_CLONE,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_SYMLINKS,
    clone,
    mount_setattr,
    move_mount,
    open_tree,
    openat2,
    setns,
    umount2,
    unshare,
)
from execdrv_lxc.view import View

#: How long the companion may take for a step that needs no more than a few milliseconds.
STEP_TIMEOUT_S: Final = 20.0
#: A report is shorter than what a pipe takes in one piece (PIPE_BUF).
_TEXT_MAX: Final = 1000


@attrs.frozen(kw_only=True)
class Task:
    """What the companion needs; descriptors are the monitor's."""

    #: A cgroup.procs of each hierarchy.
    procs_fds: Sequence[int]
    #: The pid of the init comes here, or the end of file.
    orders: int
    #: Where the supervisor reads.
    reports: int
    #: /dev/null.
    null: int
    #: Descriptors that the monitor must not keep: who reads from the job waits for their end.
    taken: Sequence[int]
    view: View


@attrs.frozen(kw_only=True)
class Companion:
    """A companion, as the monitor knows it."""

    #: Where it says what it has made.
    hello: int
    pid: int


# --- in the monitor ----------------------------------------------------------------------------


def start_companion(task: Task) -> Companion:
    """Step 1."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    monitor = os.getpid()
    pid = clone(CLONE_FILES | CLONE_PARENT)
    if pid == 0:
        _run(task, write_end, monitor=monitor)
    return Companion(hello=read_end, pid=pid)


def receive_namespace(companion: Companion) -> int:
    """The monitor's part of step 2.

    Returns:
        A descriptor of the cgroup namespace.
    Raises:
        IsolationError: there is none.
    """
    report = _read_report(companion.hello, pid=companion.pid)
    os.close(companion.hello)
    return int(report["namespace"])


# --- in the companion --------------------------------------------------------------------------


def _run(task: Task, hello: int, *, monitor: int) -> NoReturn:
    try:
        _report(task.reports, {"pid": os.getpid()})
        _report_outcome(hello, lambda: {"namespace": _make_cgroup_namespace(task.procs_fds)})
        os.close(hello)
        init = _wait_for_order(task.orders, monitor)
        if init is not None:
            _report_outcome(task.reports, lambda: _finish(task, init))
    finally:
        os._exit(0)


def _wait_for_order(orders: int, monitor: int) -> int | None:
    """The pid of the init, or None if there will be none.

    A monitor that ended must not live on in the descriptors which both have: whoever waits for
    the end of one of its pipes would wait for ever.
    """
    pidfd = os.pidfd_open(monitor)
    poll = select.poll()
    poll.register(orders, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    ready = {fd for fd, _ in poll.poll()}
    os.close(pidfd)
    order = os.read(orders, 32) if orders in ready else b""
    return int(order) if order else None


def _report_outcome(fd: int, action: Callable[[], dict[str, Any]]) -> None:
    try:
        _report(fd, action())
    except BaseException as error:
        _report(fd, _describe(error))
        os._exit(1)


def _report(fd: int, report: dict[str, Any]) -> None:
    os.write(fd, json.dumps(report).encode() + b"\n")


def _describe(error: BaseException) -> dict[str, Any]:
    if isinstance(error, ExecdrvError):
        message, hint = error.message, error.hint
    else:
        reason = explain(error) if isinstance(error, OSError) else repr(error)
        message, hint = f"cannot finish the container: {reason}", ""
    return {"error": message[:_TEXT_MAX], "hint": hint[:_TEXT_MAX]}


def _make_cgroup_namespace(procs_fds: Sequence[int]) -> int:
    for fd in procs_fds:
        os.write(fd, b"0")
    unshare(CLONE_NEWCGROUP)
    return os.open(b"/proc/self/ns/cgroup", os.O_RDONLY | os.O_CLOEXEC)


def _finish(task: Task, init: int) -> dict[str, Any]:
    """Steps 4 and 5. Whatever is opened here is closed here, for it is open in the monitor."""
    namespace = os.open(f"/proc/{init}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    pid_namespace = os.readlink(f"/proc/{init}/ns/pid")
    for fd in task.taken:
        os.dup2(task.null, fd, inheritable=False)
    _take_control_socket()
    setns(namespace, CLONE_NEWNS)
    root = os.open(b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    # liblxc makes all mounts shared; nobody is to share with.
    mount_setattr(root, propagation=MS_PRIVATE, flags=AT_RECURSIVE)
    proc = _open_below(root, b"/proc")
    _check_proc(proc, pid_namespace)
    _guard_proc(root, proc, task.view.guards)
    os.close(proc)
    _mount_terminals(root, task.view.terminals)
    for target, attributes in task.view.released.items():
        fd = _open_below(root, target)
        mount_setattr(fd, attr_clr=attributes)
        os.close(fd)
    os.close(root)
    os.close(namespace)
    return {}


def _take_control_socket() -> None:
    """Put something silent in the place of the socket on which liblxc takes commands.

    An eventfd, because liblxc may be about to wait for it by epoll, which takes no file.
    """
    for name in os.listdir(b"/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.stat(b"/proc/self/fd/" + name).st_mode):
                continue
            fd = os.dup(int(name))
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd) as copy:
                if not copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    continue
        except OSError:
            continue  # liblxc has closed it meanwhile
        silent = os.eventfd(0)
        os.dup2(silent, int(name), inheritable=False)
        os.close(silent)


def _check_proc(proc: int, pid_namespace: str) -> None:
    """See that /proc is a procfs of the container's own pid namespace, and no file of the rootfs.

    Raises:
        IsolationError: it is not.
    """
    try:
        shown = os.readlink(b"1/ns/pid", dir_fd=proc)
    except OSError:
        shown = b""
    if os.fsdecode(shown) != pid_namespace:
        raise IsolationError("cannot isolate the container: liblxc has not mounted its /proc")


def _guard_proc(root: int, proc: int, steps: Sequence[Cover | Protect]) -> None:
    """Cover and protect parts of /proc.

    The covers need a place of their own in this namespace. That is on top of its root, where only
    new paths lead to; `root`, `proc` and the init stay below.
    """
    place = make_fs(b"tmpfs", ((b"mode", b"700"),), INERT)
    move_mount(place, root)
    covers = make_covers(place, b"covers")
    for step in steps:
        name = step.target.rpartition(b"/")[2]
        try:
            mode = os.stat(name, dir_fd=proc, follow_symlinks=False).st_mode
        except FileNotFoundError:
            continue  # this kernel has no such file
        if isinstance(step, Cover):
            kind = b"directory" if stat.S_ISDIR(mode) else b"file"
            tree = open_tree(covers, kind, flags=OPEN_TREE_CLONE)
        else:
            tree = open_tree(proc, name, flags=OPEN_TREE_CLONE | AT_SYMLINK_NOFOLLOW)
            mount_setattr(tree, attr_set=MOUNT_ATTR_RDONLY | INERT)
        move_mount(tree, proc, name)
        os.close(tree)
    os.fchdir(place)
    umount2(b".", MNT_DETACH)
    os.close(covers)
    os.close(place)


def _mount_terminals(root: int, step: NewFs) -> None:
    terminals = make_fs(step.fstype, step.options, step.attributes)
    target = _open_below(root, step.target)
    move_mount(terminals, target)
    os.close(target)
    os.close(terminals)


def _open_below(root: int, path: bytes) -> int:
    return openat2(root, path, os.O_PATH, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)


# --- in the supervisor -------------------------------------------------------------------------


class CompanionLink:
    """The supervisor's side of a companion: its pipes, and its end."""

    def __init__(self) -> None:
        #: For `Task`, in the monitor.
        self.orders, self._orders = os.pipe2(os.O_CLOEXEC)
        self._reports, self.reports = os.pipe2(os.O_CLOEXEC)
        self._pid: int | None = None

    def finish(self, init: int) -> None:
        """Steps 3 to 6.

        Args:
            init: pid of the container's init, which stands at its gate.
        Raises:
            IsolationError: the container is not finished.
        """
        self._pid = int(_read_report(self._reports)["pid"])
        os.write(self._orders, b"%d\n" % init)
        _read_report(self._reports, pid=self._pid)

    def close(self) -> None:
        """End and reap the companion, if there is one, and close the pipes."""
        if self._pid is None:
            # There may be one all the same, if the monitor failed after it was started.
            with contextlib.suppress(IsolationError):
                self._pid = int(_read_report(self._reports, timeout_s=0.0)["pid"])
        for fd in (self.orders, self._orders, self.reports, self._reports):
            os.close(fd)
        if self._pid is not None:
            # A child that nobody has reaped: the number is still its own.
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)


def _read_report(
    fd: int, *, pid: int | None = None, timeout_s: float = STEP_TIMEOUT_S
) -> dict[str, Any]:
    """The companion's next message.

    No end of file would tell that it was killed: the monitor has all that it had.

    Args:
        pid: the companion, where it is known.
    Raises:
        IsolationError: it says that it failed, has ended, or says nothing for `timeout_s` seconds.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    with contextlib.ExitStack() as opened:
        ended = False
        if pid is not None:
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                # Where the caller ignores its children, one that has ended is nobody's zombie; what
                # it said is in the pipe.
                ended = True
            else:
                opened.callback(os.close, pidfd)
                poll.register(pidfd, select.POLLIN)
        ready = [ready for ready, _ in poll.poll(0 if ended else timeout_s * 1000)]
    if fd not in ready:
        reason = "has ended" if ready or ended else f"said nothing for {timeout_s:g} s"
        raise IsolationError(f"cannot isolate the container: its companion {reason}")
    # One at a time: each but the first answers something, and a pipe does not split short ones.
    report: dict[str, Any] = json.loads(os.read(fd, select.PIPE_BUF))
    if "error" in report:
        raise IsolationError(report["error"], hint=report["hint"])
    return report
