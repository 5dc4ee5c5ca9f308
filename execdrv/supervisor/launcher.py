"""The caller's side: starting supervisors and collectors.

`ForkLauncher` is for the command line: the command itself, single-threaded, forks. `ServerLauncher`
is for the API: a fork server does, so that no thread of the user's program is ever copied. Both
give the new process the same things. Runs in the caller's process, in any of its threads.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from abc import ABC, abstractmethod
from typing import Any

import attrs

from execdrv import wire
from execdrv.errors import OperationError, SupervisorLostError
from execdrv.linux import cgroups, procfs, syscalls
from execdrv.supervisor.connection import MAX_FDS, FrameBuffer, Peer, send_frame
from execdrv.supervisor.launch import Collect, Launch

_PR_SET_CHILD_SUBREAPER = 36
#: How long a killed supervisor may take to be gone.
DEATH_S = 1.0
#: How long a fork server may take to import what it needs.
SERVER_TIMEOUT_S = 30.0
#: Namespaces and groups that a supervisor inherits: a caller that changed them needs a new server.
_SURROUNDINGS = ("mnt", "pid_for_children", "net", "ipc", "uts", "cgroup", "user", "time")

_SERVER_PROGRAM = """\
import json, sys
sys.path[:] = json.loads(sys.argv[2])
from execdrv.supervisor.server import main
main(int(sys.argv[1]))
"""


class Launcher(ABC):
    """A way to start supervisors and collectors, and the life line they all hold."""

    def __init__(self) -> None:
        #: Its write end is in this process alone: when that is gone, every container ends.
        self._lifeline = os.pipe2(os.O_CLOEXEC)

    def launch(self, launch: Launch, fds: dict[str, int]) -> socket.socket:
        """Start a supervisor.

        Args:
            launch: what it shall make.
            fds: descriptors by name; they stay the caller's.
        Returns:
            A connection to it, which ends with it.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._start(launch, {**fds, "lifeline": self._lifeline[0]}, theirs)
            except BaseException:
                ours.close()
                raise
        return ours

    def collect(self, request: Collect) -> list[str]:
        """Destroy a lost container in a process of its own; see execdrv.supervisor.collector."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._start_collector(request, theirs)
            buffer = FrameBuffer()
            while (frame := buffer.next_frame()) is None:
                if not buffer.receive(ours):
                    raise SupervisorLostError(
                        f"cannot collect container {request.id!r}: the collector is gone",
                        container=request.id,
                    )
        answer = frame[0]
        if "error" in answer:
            raise wire.decode_error(answer["error"])
        return wire.decode(list[str], answer["ok"])

    def close(self) -> None:
        """End the life line: every container of it ends. Repeatable."""
        for fd in self._lifeline:
            if fd >= 0:
                os.close(fd)
        self._lifeline = (-1, -1)

    def end_orphans(self) -> None:  # noqa: B027 - only some launchers have any
        """End what a supervisor that died has left below this process."""

    @abstractmethod
    def _start(self, launch: Launch, fds: dict[str, int], theirs: socket.socket) -> None: ...

    @abstractmethod
    def _start_collector(self, request: Collect, theirs: socket.socket) -> None: ...


class ForkLauncher(Launcher):
    """Forks this process: only for a process that has one thread, the command."""

    def __init__(self) -> None:
        super().__init__()
        self._children: set[int] = set()
        self._server: ServerLauncher | None = None
        # What a supervisor that is killed leaves behind comes to us.
        syscalls.prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def _start(self, launch: Launch, fds: dict[str, int], theirs: socket.socket) -> None:
        from execdrv.init import open_init
        from execdrv.supervisor.loop import run_supervisor

        memfd = open_init()
        try:
            pid = _fork()
            if pid == 0:
                run_supervisor(launch, fds, starter=theirs, memfd=memfd)
        finally:
            os.close(memfd)
        self._children.add(pid)

    def close(self) -> None:
        super().close()
        if self._server is not None:
            self._server.close()
            self._server = None

    def _start_collector(self, request: Collect, theirs: socket.socket) -> None:
        from execdrv.supervisor.collector import run_collector

        if len(os.listdir("/proc/self/task")) > 1:
            # Plugins are loaded after the supervisor was forked, and may have brought threads.
            self._server = self._server or ServerLauncher()
            self._server._start_collector(request, theirs)
            return
        pid = _fork()
        if pid == 0:
            run_collector(request, starter=Peer(theirs))
        self._children.add(pid)

    def end_orphans(self) -> None:
        # A process that dies closes its files, which is how we know, before its children are ours.
        deadline = time.monotonic() + DEATH_S
        self._reap()
        while self._children and time.monotonic() < deadline:
            time.sleep(0.001)
            self._reap()
        procfs.kill_trees(self._orphans, timeout_s=5.0, reap=self._reap)

    def _orphans(self) -> list[int]:
        return [pid for pid in procfs.list_children(os.getpid()) if pid not in self._children]

    def _reap(self) -> None:
        for pid in procfs.list_children(os.getpid()):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    self._children.discard(pid)


def _fork() -> int:
    try:
        return os.fork()
    except OSError as error:
        raise OperationError(
            f"cannot start a supervisor: {(error.strerror or '').lower()}",
            hint="too many processes, or too little memory",
            errno=error.errno,
        ) from error


@attrs.define(eq=False)
class _Server:
    """A running fork server and the surroundings it was started in."""

    socket: socket.socket
    surroundings: tuple[str, ...]


class ServerLauncher(Launcher):
    """Has a fork server fork; safe in a process with threads."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._server: _Server | None = None

    def forget(self) -> None:
        """In a forked child of the user's program: server and life line are the parent's."""
        self.close()
        self._lock = threading.Lock()
        self._lifeline = os.pipe2(os.O_CLOEXEC)

    def close(self) -> None:
        super().close()
        if self._server is not None:
            self._server.socket.close()
            self._server = None

    def _start(self, launch: Launch, fds: dict[str, int], theirs: socket.socket) -> None:
        if len(fds) + 1 > MAX_FDS:
            raise OperationError(
                f"cannot pass {len(fds)} descriptors to a container: at most {MAX_FDS - 1}"
            )
        launch = attrs.evolve(launch, fd_names=tuple(fds))
        self._send({"launch": wire.encode(launch)}, [*fds.values(), theirs.fileno()])

    def _start_collector(self, request: Collect, theirs: socket.socket) -> None:
        self._send({"collect": wire.encode(request)}, [theirs.fileno()])

    def _send(self, frame: Any, fds: list[int]) -> None:
        with self._lock:
            surroundings = detect_surroundings()
            server = self._server
            if server is not None and server.surroundings == surroundings:
                # A server that was killed has closed its end.
                with contextlib.suppress(ConnectionError):
                    return send_frame(server.socket, frame, fds)
            if server is not None:
                server.socket.close()
            self._server = server = start_server(surroundings)
            send_frame(server.socket, frame, fds)


def detect_surroundings() -> tuple[str, ...]:
    """The groups and namespaces of this process, which a fork server would pass on."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        # Moving into the leaf that makes room for groups (cgroups.LEAF_NAME) is no change.
        groups = file.read().replace(f"/{cgroups.LEAF_NAME}\n", "\n")
    links = []
    for name in _SURROUNDINGS:
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/self/ns/{name}"))
    return (groups, *links)


def start_server(surroundings: tuple[str, ...]) -> _Server:
    """Execute a fork server and wait until it is ready.

    Raises:
        OperationError: it did not come up; the message ends with its last words.
    """
    import subprocess

    ours, theirs = socket.socketpair()
    path = [os.path.abspath(entry) for entry in sys.path if entry and os.path.isabs(entry)]
    complaints_read, complaints_write = os.pipe2(os.O_CLOEXEC)
    try:
        command = [sys.executable, "-I", "-c", _SERVER_PROGRAM, str(theirs.fileno())]
        # The server detaches by a fork of its own; this waits for the short-lived first process.
        process = subprocess.Popen(
            [*command, json.dumps(path)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=complaints_write,
            env={},
            cwd="/",
        )
    finally:
        theirs.close()
        os.close(complaints_write)
    process.wait()
    with open(complaints_read, "rb") as complaints:
        if not _says_ready(ours):
            ours.close()
            words = complaints.read().decode("utf-8", "replace").strip().splitlines()
            raise OperationError(
                f"cannot start the fork server: {words[-1] if words else 'it ended silently'}"
            )
    return _Server(socket=ours, surroundings=surroundings)


def _says_ready(sock: socket.socket) -> bool:
    """Whether a fork server's first frame comes in its time, and whole."""
    buffer = FrameBuffer()
    sock.settimeout(SERVER_TIMEOUT_S)
    try:
        while buffer.next_frame() is None:
            if not buffer.receive(sock):
                return False
    except (OSError, wire.WireError):
        return False
    sock.settimeout(None)
    return True
