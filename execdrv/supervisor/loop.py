"""The supervisor: one process, one thread, one container, from the fork to the end.

    1. leave the parent's surroundings: session, streams, environment, descriptors, signals
    2. load the one driver
    3. serve: the starter's connection first, then everybody on the container's socket;
       the init's gate, the job's output, the clock, the life line
    4. the starter's life line ends, or `destroy` was asked: destroy the container, and exit

One request is worked on at a time; only `wait` is answered later, when the container has ended.
"""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import signal
import socket
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from execdrv import wire
from execdrv.driver import Driver
from execdrv.errors import DriverBugError, ExecdrvError, StartError, UsageError
from execdrv.limits import Limits
from execdrv.linux import procfs, syscalls
from execdrv.plugins import load_driver
from execdrv.supervisor.connection import PROTOCOL_VERSION, Peer
from execdrv.supervisor.launch import Launch
from execdrv.supervisor.owner import Owner

#: The name of a container's socket in its directory.
SOCKET_NAME = "socket"
#: How long the last answers may take to be read.
FAREWELL_S = 2.0

_PR_SET_CHILD_SUBREAPER = 36


def leave_surroundings(keep: set[int]) -> None:
    """Step 1: nothing of the parent's but the descriptors in `keep`.

    A session of its own, so that the terminal's Ctrl-C reaches the command alone.
    """
    os.setsid()
    syscalls.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    os.chdir("/")
    os.umask(0o077)
    os.environ.clear()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number in (0, 1, 2):
        if number not in keep:
            os.dup2(null, number, inheritable=False)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in keep:
            # The listing's own descriptor is closed already.
            with contextlib.suppress(OSError):
                os.close(int(name))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # A parent that forwards signals (the command) has one; its number is another file's now.
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def run_supervisor(
    launch: Launch, fds: dict[str, int], *, starter: socket.socket, memfd: int
) -> NoReturn:
    """Be the supervisor of one container; in a fresh child process.

    Args:
        launch: what was asked.
        fds: the caller's descriptors by name; also `lifeline` (the read end).
        starter: connection to who started this; it asks `create` first, and may wait on it.
        memfd: the init's binary.
    """
    status = 1
    try:
        leave_surroundings({*fds.values(), starter.fileno(), memfd})
        # A fork server may have been started when its caller had other cpus.
        os.sched_setaffinity(0, launch.affinity)
        Supervisor(launch, fds, starter=starter, memfd=memfd).serve()
        status = 0
    except BaseException:
        # Nobody reads our stderr; the starter sees the connection end.
        with contextlib.suppress(OSError):
            os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


class Supervisor:
    """Steps 2 to 4."""

    def __init__(
        self, launch: Launch, fds: dict[str, int], *, starter: socket.socket, memfd: int
    ) -> None:
        self._launch = launch
        self._lifeline = fds.pop("lifeline")
        self._starter = Peer(starter)
        self._selector = selectors.DefaultSelector()
        self._waiters: list[Peer] = []
        self._peers: set[Peer] = set()
        self._listener: socket.socket | None = None
        self._pidfd = -1
        self._draining: set[str] = set()
        self._finished = False
        self._created = False
        #: The error that every request gets, where the driver could not be loaded.
        self._broken: ExecdrvError | None = None
        self._owner = self._make_owner(launch, fds, memfd)

    def _make_owner(self, launch: Launch, fds: dict[str, int], memfd: int) -> Owner:
        driver: Driver | None = None
        try:
            driver = load_driver(launch.driver, plugins=launch.plugins)()
            threads = len(os.listdir("/proc/self/task"))
            if threads != 1:
                raise DriverBugError(
                    f"cannot use driver {launch.driver.target!r}: loading it started "
                    f"{threads - 1} threads",
                    hint="a driver must not start threads: its process forks",
                    driver=launch.driver.target,
                )
        except ExecdrvError as error:
            self._broken = error
        except Exception as error:
            self._broken = DriverBugError(
                f"cannot make driver {launch.driver.target!r}: {type(error).__name__}: {error}"
            )
        return Owner(launch, driver, fds, memfd=memfd)  # type: ignore[arg-type]

    # --- the loop ------------------------------------------------------------------------------

    def serve(self) -> None:
        """Step 3, until the container is gone."""
        self._watch_signals()
        self._register(self._lifeline, self._on_lifeline)
        self._add_peer(self._starter)
        while not self._finished:
            for key, events in self._selector.select(self._patience()):
                key.data(events)
                if self._finished:
                    return
            self._look_at_clock()

    def _patience(self) -> float | None:
        ends_at = self._owner.ends_at
        if ends_at is None or self._owner.exit is not None:
            return None
        return max(0.0, ends_at - time.monotonic())

    def _look_at_clock(self) -> None:
        ends_at = self._owner.ends_at
        if ends_at is not None and self._owner.exit is None and time.monotonic() >= ends_at:
            self._stop_watching()
            self._owner.finish("timeout")
            self._tell_exit()

    def _register(self, file: int, handler: Callable[[int], None]) -> None:
        self._selector.register(file, selectors.EVENT_READ, handler)

    def _unregister(self, file: int) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(file)

    def _watch_signals(self) -> None:
        """SIGCHLD wakes the loop; a polite signal to the supervisor ends the container."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)

        def on_signal(_: int) -> None:
            numbers = set(os.read(read_end, 4096))
            if numbers - {signal.SIGCHLD, signal.SIGALRM}:
                self._end()
                return
            self._owner.reap()
            self._look_at_watched()

        self._register(read_end, on_signal)

    def _on_lifeline(self, _: int) -> None:
        # Nobody ever writes to it: readable means that its last writer is gone.
        self._end()

    def _end(self) -> None:
        """Step 4 without anybody asking: destroy, tell who waits, exit."""
        self._stop_watching()
        with contextlib.suppress(ExecdrvError):
            self._owner.destroy()
        self._tell_exit()
        self._say_farewell()

    def _say_farewell(self) -> None:
        # Who reads gets all at once; then there is some time for who does not read yet.
        for peer in self._peers:
            peer.flush()
        deadline = time.monotonic() + FAREWELL_S
        for peer in self._peers:
            peer.finish(max(0.01, deadline - time.monotonic()))
        self._finished = True

    # --- connections ---------------------------------------------------------------------------

    def _listen(self) -> None:
        """Open the container's socket, by descriptor: a path may be longer than sun_path."""
        directory = f"/proc/self/fd/{self._owner.directory_fd}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind(f"{directory}/{SOCKET_NAME}")
        listener.listen(128)
        listener.setblocking(False)
        self._listener = listener

        def on_connection(_: int) -> None:
            with contextlib.suppress(BlockingIOError):
                sock, _address = listener.accept()
                if _peer_uid(sock) in (0, os.geteuid()):
                    self._add_peer(Peer(sock))
                else:
                    sock.close()

        self._register(listener.fileno(), on_connection)

    def _add_peer(self, peer: Peer) -> None:
        self._peers.add(peer)
        self._register(peer.fileno(), lambda events: self._on_peer(peer, events))

    def _drop_peer(self, peer: Peer) -> None:
        self._unregister(peer.fileno())
        self._peers.discard(peer)
        if peer in self._waiters:
            self._waiters.remove(peer)
        peer.close()
        if peer is self._starter and not self._created:
            # Who started us went away before there was a container.
            self._finished = True

    def _on_peer(self, peer: Peer, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            peer.flush()
        if events & selectors.EVENT_READ:
            try:
                frames = peer.receive()
            except UsageError as error:
                peer.send({"error": wire.encode_error(error)})
                frames, peer.eof = [], True
            for frame, _ in frames:
                self._answer(peer, frame)
                if self._finished:
                    return
        self._after_peer(peer)

    def _after_peer(self, peer: Peer) -> None:
        if peer.eof:
            self._drop_peer(peer)
        elif peer in self._peers:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.has_outgoing else 0)
            key = self._selector.get_key(peer.fileno())
            if key.events != wanted:
                self._selector.modify(peer.fileno(), wanted, key.data)

    def _answer(self, peer: Peer, frame: Any) -> None:
        """Work on one request and answer it; `wait` is answered by `_tell_exit`."""
        operation, failed = "", False
        try:
            operation, arguments = _parse_request(frame)
            if operation == "wait" and self._owner.exit is None and self._broken is None:
                self._wait(peer)
                return
            answer = {"ok": self._work(operation, arguments)}
        except Exception as error:
            answer, failed = {"error": wire.encode_error(error)}, True
        peer.send(answer)
        if operation == "start" and failed:
            self._tell_exit()
        if (operation == "create" and not self._created) or (operation == "destroy" and not failed):
            self._tell_exit()
            self._say_farewell()
        elif operation == "destroy" and self._owner.exit is not None:
            # Something is left, but the job has ended: who waits for it must not wait for ever.
            self._tell_exit()

    def _wait(self, peer: Peer) -> None:
        if self._owner.state == "stopped":
            raise _never_started(self._launch.id)
        self._waiters.append(peer)

    def _tell_exit(self) -> None:
        """Answer everybody who waits."""
        exit_ = self._owner.exit
        if exit_ is None:
            answer = {"error": wire.encode_error(_never_started(self._launch.id))}
        else:
            answer = {"ok": wire.encode(exit_)}
        for peer in self._waiters:
            peer.send(answer)
            self._after_peer(peer)
        self._waiters.clear()

    # --- operations ----------------------------------------------------------------------------

    def _work(self, operation: str, arguments: Any) -> Any:
        if self._broken is not None:
            raise self._broken
        owner = self._owner
        match operation:
            case "check":
                return wire.encode(owner.check())
            case "plan":
                return owner.plan()
            case "create":
                owner.create()
                self._listen()
                self._created = True
                return True
            case "isolate":
                return wire.encode(owner.isolate())
            case "limit":
                limits = None if arguments is None else wire.decode(Limits, arguments)
                return wire.encode(owner.limit(limits))
            case "start":
                return wire.encode(self._start())
            case "signal":
                owner.signal(wire.decode(int, arguments))
                return True
            case "wait":
                return wire.encode(owner.exit)
            case "inspect":
                return wire.encode(owner.record)
            case "destroy":
                self._stop_watching()
                return owner.destroy()
        raise UsageError(f"cannot do {operation!r}: there is no such operation")

    def _start(self) -> procfs.ProcessId:
        process = self._owner.start()
        link = self._owner.link
        if link is not None:
            self._register(link.gate.fileno(), lambda _: self._on_gate())
        self._watch_process()
        for name, capture in self._owner.captures.items():
            self._draining.add(name)
            self._register(capture.fileno(), functools.partial(self._on_output, name))
        # The job may have ended while `start` still worked.
        self._on_gate()
        return process

    def _watch_process(self) -> None:
        watched = self._owner.watched
        if watched is None:
            return
        pidfd = procfs.open_pidfd(watched)
        if pidfd is None:
            self._look_at_watched()
            return
        self._pidfd = pidfd
        self._register(pidfd, lambda _: self._look_at_watched())

    def _on_output(self, name: str, _: int) -> None:
        capture = self._owner.captures[name]
        if not capture.drain():
            self._stop_draining(name)

    def _stop_draining(self, name: str) -> None:
        if name in self._draining:
            self._draining.discard(name)
            self._unregister(self._owner.captures[name].fileno())

    def _on_gate(self) -> None:
        """The init spoke, or ended."""
        link = self._owner.link
        if link is None or self._owner.exit is not None:
            return
        link.receive_exit()
        if link.exited is not None or link.gate.eof:
            self._job_ended()

    def _look_at_watched(self) -> None:
        watched = self._owner.watched
        if watched is not None and self._owner.exit is None and not procfs.is_running(watched):
            self._owner.reap()
            link = self._owner.link
            if link is not None:
                link.receive_exit()
            self._job_ended()

    def _job_ended(self) -> None:
        self._stop_watching()
        self._owner.finish()
        self._tell_exit()

    def _stop_watching(self) -> None:
        """Leave the gate, the process and the output alone: their descriptors are closed next."""
        link = self._owner.link
        if link is not None and link.gate.fileno() >= 0:
            self._unregister(link.gate.fileno())
        if self._pidfd >= 0:
            self._unregister(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        for name in list(self._draining):
            self._stop_draining(name)


def _parse_request(frame: Any) -> tuple[str, Any]:
    if not isinstance(frame, dict) or set(frame) != {"version", "op", "args"}:
        raise UsageError("cannot read the request: not of this protocol")
    if frame["version"] != PROTOCOL_VERSION:
        raise UsageError(
            f"cannot read the request: protocol version {frame['version']!r}, "
            f"this supervisor speaks {PROTOCOL_VERSION}",
            hint="the container was started by another version of execdrv",
        )
    return str(frame["op"]), frame["args"]


def _peer_uid(sock: socket.socket) -> int:
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], "little")


def _never_started(container: str) -> StartError:
    return StartError(
        f"cannot wait for container {container!r}: its command was not started",
        container=container,
        operation="wait",
    )
