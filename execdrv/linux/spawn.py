"""Starting a child that builds its own surroundings before it execs.

    1. parent: makes the report pipe, clones.
    2. child:  runs the given function; it ends in exec (which closes the pipe) or raises.
    3. child:  an exception goes through the pipe, and the child ends with `os._exit`.
    4. parent: reads to end of file; nothing read means that step 2 ended in exec.

The child runs Python between clone and exec, which is safe only where the parent has one thread:
in supervisors. It must not import, log, or return. See fork(2), clone(2), execveat(2).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from execdrv.errors import ExecdrvError, OperationError, error_classes
from execdrv.linux import syscalls

if TYPE_CHECKING:
    from execdrv.init.link import InitLink

#: The child's end of the report pipe; set in the child alone.
_report_fd: int | None = None


def spawn(child: Callable[[], None], *, flags: int = 0) -> int:
    """Clone a child that runs `child`, and wait until it has exec'ed.

    Args:
        child: builds what it needs and ends in exec; it must not return.
        flags: CLONE_NEW* flags (namespaces(7)).
    Returns:
        The child's pid.
    Raises:
        ExecdrvError, OSError: what the child raised; the child is gone and reaped.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        pid = syscalls.clone(flags | signal.SIGCHLD)
    except OSError:
        os.close(read_end)
        os.close(write_end)
        raise
    if pid == 0:
        _run_child(child, write_end)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        report = pipe.read()
    if report:
        os.waitpid(pid, 0)
        raise _decode(report)
    return pid


def _run_child(child: Callable[[], None], write_end: int) -> NoReturn:
    global _report_fd
    _report_fd = write_end
    try:
        child()
        raise RuntimeError("the child function returned")
    except BaseException as error:
        if _report_fd is not None:
            os.write(_report_fd, _encode(error)[:65536])
    finally:
        os._exit(125)


def end_report() -> None:
    """In the child: tell the parent that all is well, where no exec will (a monitor process)."""
    global _report_fd
    if _report_fd is not None:
        os.close(_report_fd)
        _report_fd = None


def _encode(error: BaseException) -> bytes:
    report: dict[str, object] = {
        "type": type(error).__name__,
        "message": str(error),
        "hint": "",
        "errno": None,
    }
    if isinstance(error, ExecdrvError):
        report["hint"] = error.hint
    elif isinstance(error, OSError):
        report |= {"type": "OSError", "message": error.strerror or str(error)}
        report |= {"errno": error.errno, "file": os.fsdecode(error.filename or "")}
    return json.dumps(report).encode()


def _decode(report: bytes) -> Exception:
    data = json.loads(report)
    if data["type"] == "OSError":
        return OSError(data["errno"], data["message"], data["file"] or None)
    cls = error_classes().get(data["type"])
    if cls is not None:
        return cls(data["message"], hint=data["hint"])
    return OperationError(f"cannot start the child: {data['type']}: {data['message']}")


def arrange_fds(
    *, stdio: tuple[int, int, int], passed: dict[int, int], keep: Sequence[int]
) -> list[int]:
    """In the child: put descriptors where the next program expects them, and close all others.

    Args:
        stdio: descriptors that become 0, 1 and 2.
        passed: number in the next program -> descriptor here.
        keep: descriptors the next program gets at numbers of our choice.
    Returns:
        The new numbers of `keep`, in order.
    Raises:
        OSError: the numbers do not fit below RLIMIT_NOFILE, or closing the rest is impossible.
    """
    global _report_fd
    wanted = dict(enumerate(stdio)) | passed
    # Everything first moves above all wanted numbers, so that no dup2 hits a source.
    floor = max(wanted) + 1
    sources = {number: _move(fd, floor) for number, fd in wanted.items()}
    kept = [_move(fd, floor) for fd in keep]
    if _report_fd is not None:
        _report_fd = _move(_report_fd, floor)
    for number, fd in sources.items():
        os.dup2(fd, number, inheritable=True)
    for fd in kept:
        os.set_inheritable(fd, True)
    _close_others({*wanted, *kept, *([_report_fd] if _report_fd is not None else [])})
    return kept


def _move(fd: int, floor: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, floor)


def _close_others(keep: set[int]) -> None:
    """Close every descriptor that is not in `keep`, whatever RLIMIT_NOFILE says now.

    A loop to the limit would miss descriptors opened before it was lowered.
    """
    first = 0
    try:
        for number in sorted(keep):
            if number > first:
                syscalls.close_range(first, number - 1)
            first = number + 1
        syscalls.close_range(first, 2**32 - 1)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        _close_listed(keep)


def _close_listed(keep: set[int]) -> None:
    """Without close_range(2) (a seccomp filter around us): by the list of what is open."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            try:
                os.close(int(name))
            except OSError as error:
                if error.errno != errno.EBADF:
                    raise


def exec_init(link: InitLink, *, stdio: tuple[int, int, int], passed: dict[int, int]) -> NoReturn:
    """In the child: become execdrv-init, with the job's descriptors in place.

    By descriptor (execveat(2)), so that neither a path nor /proc is needed in the new root.

    Raises:
        OSError: the descriptors could not be arranged or the init could not be executed.
    """
    memfd, gate = arrange_fds(stdio=stdio, passed=passed, keep=[link.memfd, link.gate_fd])
    os.set_inheritable(memfd, False)
    os.execve(memfd, [b"execdrv-init", b"%d" % gate], {})
