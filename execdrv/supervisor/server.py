"""The fork server of one Host: a lean, single-threaded process that forks supervisors.

    1. the Host executes it (`python -I`), so that neither threads nor memory of the user's program
       are in it, and detaches it: it is no child of the user's program
    2. it sets sys.path to the caller's, imports everything a supervisor needs, makes the init's
       memfd, and says that it is ready; an upgrade of execdrv afterwards changes nothing in it
    3. for each request it forks: the child becomes a supervisor or a collector
    4. it reaps; as a subreaper it ends what a dead supervisor has left behind
    5. when the Host's socket ends and no supervisor is left, it exits

It holds no container's life line and keeps no state.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import signal
import socket

from execdrv import wire
from execdrv.errors import ExecdrvError, OperationError
from execdrv.linux import procfs, syscalls
from execdrv.supervisor.connection import Peer

_PR_SET_CHILD_SUBREAPER = 36
#: Zombies taken before other work has its turn.
REAP_AT_ONCE = 256


def main(host_fd: int) -> None:
    """Steps 1 to 5; the program text that a Host executes calls this with its socket's number."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    os.set_inheritable(host_fd, False)
    os.environ.clear()
    syscalls.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    server = Server(socket.socket(fileno=host_fd))
    # Whoever started us reads our complaints until now.
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 2)
    server.serve()


class Server:
    """Steps 2 to 5."""

    def __init__(self, sock: socket.socket) -> None:
        from execdrv.init import open_init
        from execdrv.supervisor import collector, loop

        self._run_supervisor = loop.run_supervisor
        self._run_collector = collector.run_collector
        self._memfd = open_init()
        self._host = Peer(sock, takes_fds=True)
        self._supervisors: set[int] = set()
        self._preloaded: set[str] = set()
        # The collector need not visit, and so copy, what all children share.
        gc.collect()
        gc.freeze()

    def serve(self) -> None:
        """Work until the Host is gone and every supervisor has ended."""
        selector = selectors.DefaultSelector()
        read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        # The caller's mask came with it: one that blocks SIGCHLD would leave every child unreaped.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        selector.register(read_end, selectors.EVENT_READ)
        selector.register(self._host.fileno(), selectors.EVENT_READ)
        self._host.send({"ready": os.getpid()})
        while not (self._host.eof and not self._supervisors):
            for key, _ in selector.select():
                if key.fd == read_end:
                    with contextlib.suppress(BlockingIOError):
                        os.read(read_end, 4096)
                else:
                    self._on_host()
            self._reap()
            if self._host.eof and self._host.fileno() >= 0:
                selector.unregister(self._host.fileno())
                self._host.close()

    def _on_host(self) -> None:
        for frame, fds in self._host.receive():
            try:
                self._fork(frame, fds)
            finally:
                for fd in fds:
                    os.close(fd)

    def _fork(self, frame: dict[str, object], fds: list[int]) -> None:
        """Step 3. The last descriptor is the new process's connection to who asked for it."""
        self._preload(frame)
        try:
            pid = os.fork()
        except OSError as error:
            self._refuse(fds[-1], error)
            return
        if pid:
            self._supervisors.add(pid)
            return
        starter = Peer(socket.socket(fileno=fds[-1]))
        try:
            self._become(frame, fds, starter)
        except ExecdrvError as error:
            starter.send({"error": wire.encode_error(error)})
            starter.finish(1.0)
        finally:
            os._exit(1)

    def _preload(self, frame: dict[str, object]) -> None:
        """Import the driver here, once; its faults are the child's to tell."""
        from execdrv.plugins import load_driver
        from execdrv.supervisor.launch import Launch

        with contextlib.suppress(ExecdrvError):
            if "launch" in frame:
                launch = wire.decode(Launch, frame["launch"])
                if launch.driver.target not in self._preloaded:
                    self._preloaded.add(launch.driver.target)
                    load_driver(launch.driver, plugins=launch.plugins)

    def _refuse(self, fd: int, error: OSError) -> None:
        """No process can be made now: who asked is told, and this server goes on."""
        starter = Peer(socket.socket(fileno=os.dup(fd)))
        reason = OperationError(
            f"cannot start a supervisor: {(error.strerror or '').lower()}",
            hint="too many processes, or too little memory",
            errno=error.errno,
        )
        starter.send({"error": wire.encode_error(reason)})
        starter.finish(1.0)
        starter.close()

    def _become(self, frame: dict[str, object], fds: list[int], starter: Peer) -> None:
        from execdrv.supervisor.launch import Collect, Launch

        signal.set_wakeup_fd(-1)
        if "collect" in frame:
            self._run_collector(wire.decode(Collect, frame["collect"]), starter=starter)
        launch = wire.decode(Launch, frame["launch"])
        named = dict(zip(launch.fd_names, fds[:-1], strict=True))
        starter.socket.setblocking(True)
        self._run_supervisor(launch, named, starter=starter.socket, memfd=self._memfd)

    def _reap(self) -> None:
        """Step 4."""
        ended = False
        with contextlib.suppress(ChildProcessError):
            # Bounded: what a storm has left of a dead supervisor's tree makes ever more of them.
            for _ in range(REAP_AT_ONCE):
                pid, _ = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid in self._supervisors:
                    self._supervisors.discard(pid)
                    ended = True
        if ended:
            # A living supervisor's children are below it: ours are supervisors, or orphans.
            procfs.kill_trees(self._orphans, timeout_s=5.0, reap=self._reap_orphans)

    def _orphans(self) -> list[int]:
        return [pid for pid in procfs.list_children(os.getpid()) if pid not in self._supervisors]

    def _reap_orphans(self) -> None:
        for pid in self._orphans():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
