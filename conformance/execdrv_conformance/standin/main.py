"""The program of the stand-in host: its namespaces, its pid 1, and the loop that serves a session.

    front end            (outside) makes the guard groups, executes this program
    1. enter             guard groups; new mount, pid, net, uts, ipc namespaces; forks
    2. pid 1             mounts /proc, furnishes, forks the worker, reaps until the worker ends
    3. worker            imports the kit, takes requests on its socket, runs cases, answers

The end of the front end is end of file for the worker; the end of the worker is that of pid 1, and
with it of every process in the stand-in host.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any, NoReturn

from execdrv_conformance import kernel
from execdrv_conformance.standin.guard import Guard

_NAMESPACES = (
    kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWIPC
)


def main(number: int, request: str) -> NoReturn:
    """Become the stand-in host.

    Args:
        number: descriptor of the socket to the front end.
        request: JSON with `run`, `guard` (directories), `scratch`.
    """
    given = json.loads(request)
    channel = socket.socket(fileno=number)
    # It came by exec; what the worker starts must not have it.
    os.set_inheritable(number, False)
    try:
        Guard(tuple(given["guard"]), ()).enter()
        _enter_namespaces()
    except OSError as error:
        _answer(channel, {"failed": f"cannot make a stand-in host: {error.strerror or error}"})
        os._exit(1)
    pid = os.fork()
    if pid == 0:
        _be_first(channel, given)
    channel.close()
    _, status = os.waitpid(pid, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _enter_namespaces() -> None:
    if os.geteuid() == 0:
        kernel.unshare(_NAMESPACES)
        return
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(_NAMESPACES | kernel.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _be_first(channel: socket.socket, given: dict[str, Any]) -> NoReturn:
    """Step 2. Pid 1: its end is the end of all."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        _mount_own()
    except OSError as error:
        _answer(channel, {"failed": f"cannot make a stand-in host: {error.strerror or error}"})
        os._exit(1)
    worker = os.fork()
    if worker == 0:
        _be_worker(channel, given)
    channel.close()
    while True:
        pid, status = os.wait()
        if pid == worker:
            os._exit(0 if os.waitstatus_to_exitcode(status) == 0 else 1)


def _mount_own() -> None:
    # First a slave: in a machine whose root is shared, what follows would be seen outside.
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_SLAVE)
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.mount("xdc", "/run", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755,size=64m")
    if os.path.isdir("/dev/shm"):
        kernel.mount("xdc", "/dev/shm", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=256m")
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_SHARED)


def _be_worker(channel: socket.socket, given: dict[str, Any]) -> NoReturn:
    """Step 3. Serve until the front end is gone."""
    status = 1
    try:
        from execdrv_conformance.standin.worker import serve

        serve(channel, run=given["run"], scratch=given["scratch"])
        status = 0
    except BaseException as error:
        _answer(channel, {"failed": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(status)


def _answer(channel: socket.socket, message: dict[str, Any]) -> None:
    channel.sendall(json.dumps(message).encode() + b"\n")
