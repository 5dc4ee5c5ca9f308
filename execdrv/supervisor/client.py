"""A caller's side of one container: asking its supervisor, and waiting for its end.

Until the container is created, its supervisor is asked over the connection that it was started
with; afterwards over a new one each time. `wait` then has that first one to itself, or one of its
own where another process is the starter; on it the supervisor answers once:

    1. whoever comes first asks; `fileno` is that connection's
    2. one thread takes the answer when it has come, the others take it from the first
    3. where the supervisor is gone without an answer, the record may tell

Runs in the user's process, in any of its threads.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from typing import Any, Literal

from execdrv import wire
from execdrv.driver import Exit
from execdrv.errors import ExecdrvError, StartError, StateError, SupervisorLostError
from execdrv.linux import procfs
from execdrv.registry import Registry
from execdrv.state import Entry
from execdrv.supervisor.connection import Connection

#: How much longer than a driver's deadline a caller waits for the answer.
PATIENCE_S = 5.0

NoExit = Literal["never started", "lost", "unknown"]


class Client:
    """Asks the supervisor of one container.

    Args:
        registry: the state directory.
        container: the id.
        starter: the connection over which this process started the supervisor, if it did.
        deadline_s: most seconds for one method of the driver.
    """

    def __init__(
        self,
        registry: Registry,
        container: str,
        *,
        starter: socket.socket | None,
        deadline_s: float,
    ) -> None:
        self._registry = registry
        self._container = container
        self._starter = None if starter is None else Connection(starter)
        self._deadline_s = deadline_s
        #: The connection on which `wait` was asked.
        self._waiting: Connection | None = None
        #: Held by the one thread that waits for the answer, and while the question is asked.
        self._wait_lock = threading.Lock()
        self._asking_lock = threading.Lock()
        #: Why a `wait` after the container was destroyed has no exit to give.
        self._no_exit: NoExit = "unknown" if starter is None else "never started"
        #: Whether it has a directory, and listens there.
        self.is_created = starter is None
        #: Set by who destroyed it: what has that name from now on is another container.
        self.is_destroyed = False
        #: The answer to `wait`, once it came.
        self.exit: Exit | None = None

    # --- looking -------------------------------------------------------------------------------

    def entry(self) -> Entry | None:
        """The container in the state directory; None where nothing is left of it."""
        return None if self.is_destroyed else self._registry.entry(self._container)

    @property
    def state(self) -> str:
        """As `Container.state`."""
        entry = self.entry()
        if entry is not None:
            return entry.state
        return "destroyed" if self.is_created or self.is_destroyed else "creating"

    # --- asking --------------------------------------------------------------------------------

    def ask(self, operation: str, arguments: Any = None) -> Any:
        """Ask, and wait for the answer.

        Raises:
            SupervisorLostError: the supervisor is gone.
            DeadlineError: it does not answer, though every driver's deadline is over.
            ExecdrvError: what it answered.
        """
        if not self.is_created:
            return self.ask_starter(operation, arguments)
        connection = self._connect()
        try:
            return connection.request(operation, arguments, timeout_s=self._patience_s)
        finally:
            connection.close()

    def ask_starter(self, operation: str, arguments: Any = None) -> Any:
        """Ask over the starter's own connection, which is there before the container is.

        Raises:
            StateError: another process has started the supervisor.
            SupervisorLostError, DeadlineError, ExecdrvError: as `ask`.
        """
        if self._starter is None:
            raise StateError(
                f"cannot {operation} container {self._container!r}: another process has made it",
                container=self._container,
                operation=operation,
            )
        return self._starter.request(operation, arguments, timeout_s=self._patience_s)

    def create(self) -> None:
        """Ask for `create`; from then on the container listens by itself."""
        self.ask_starter("create")
        self.is_created = True
        self._no_exit = "unknown"

    @property
    def _patience_s(self) -> float:
        return self._deadline_s + PATIENCE_S

    def _connect(self) -> Connection:
        return connect(self._registry.path_of(self._container))

    # --- waiting -------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Step 1: a descriptor that is readable once the answer to `wait` is there.

        Raises:
            StateError: it is destroyed.
            SupervisorLostError: the supervisor is gone.
        """
        with self._asking_lock:
            if self._waiting is None:
                if self.is_destroyed:
                    raise self._no_exit_error(self._no_exit)
                connection = self._starter if self._starter is not None else self._connect()
                connection.begin("wait")
                self._waiting = connection
            return self._waiting.fileno()

    def wait(self, timeout_s: float | None) -> Exit:
        """Step 2; as `Container.wait`."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        patience_s = -1 if timeout_s is None else max(0.0, timeout_s)
        if not self._wait_lock.acquire(timeout=patience_s):
            raise self._not_ended(timeout_s)
        try:
            if self.exit is None:
                if not _is_readable(self.fileno(), deadline):
                    raise self._not_ended(timeout_s)
                self.exit = self._take_exit()
            return self.exit
        except SupervisorLostError as error:
            if self.is_destroyed or self.state != "destroyed":
                raise
            # By another handle.
            raise self._no_exit_error("unknown") from error
        finally:
            self._wait_lock.release()

    def keep_exit(self) -> None:
        """Take the answer to `wait`, or learn why there is none, before the record goes."""
        if not self._wait_lock.acquire(blocking=False):
            # The thread that waits takes it.
            return
        try:
            if self.exit is None:
                self.exit = self._take_exit()
        except StartError:
            self._no_exit = "never started"
        except SupervisorLostError:
            # Without an entry it was somebody else who destroyed it.
            self._no_exit = "unknown" if self.entry() is None else "lost"
        except ExecdrvError:
            self._no_exit = "unknown"
        finally:
            self._wait_lock.release()

    def _take_exit(self) -> Exit:
        """The answer to `wait`, which has come; else step 3."""
        # It stays there meanwhile: `close` leaves alone what a thread waits on.
        connection = self._waiting
        try:
            if connection is None:
                raise SupervisorLostError(
                    f"cannot wait for container {self._container!r}: it is gone"
                )
            return wire.decode(Exit, connection.finish("wait", timeout_s=PATIENCE_S))
        except SupervisorLostError:
            entry = self.entry()
            if entry is None or entry.record is None or entry.record.exit is None:
                raise
            return entry.record.exit
        finally:
            with self._asking_lock:
                self._waiting = None
                if connection is not None and connection is not self._starter:
                    connection.close()

    def _not_ended(self, timeout_s: float | None) -> TimeoutError:
        return TimeoutError(f"container {self._container!r} has not ended in {timeout_s:g} s")

    def _no_exit_error(self, why: NoExit) -> ExecdrvError:
        """What a `wait` for a destroyed container gets that has no exit to give."""
        if why == "lost":
            return SupervisorLostError(
                f"cannot wait for container {self._container!r}: its supervisor died before it "
                "told how the command ended",
                container=self._container,
                operation="wait",
            )
        reason = "was never started" if why == "never started" else "nobody has kept how it ended"
        return StateError(
            f"cannot wait for container {self._container!r}: it is destroyed, and {reason}",
            container=self._container,
            operation="wait",
            state="destroyed",
            allowed=["running", "stopped"],
        )

    # --- ending --------------------------------------------------------------------------------

    def kill_supervisor(self) -> None:
        """It does not answer within its deadline: its death ends the container."""
        entry = self.entry()
        if entry is not None and entry.record is not None:
            supervisor = entry.record.supervisor
            procfs.send_signal(supervisor, signal.SIGKILL)
            end = time.monotonic() + PATIENCE_S
            while procfs.is_running(supervisor) and time.monotonic() < end:
                time.sleep(0.002)

    def wait_gone(self, timeout_s: float) -> bool:
        """Whether the supervisor that this process started has exited."""
        if self._starter is None:
            return True
        return self._starter.wait_end(timeout_s)

    def close(self) -> None:
        """Close all descriptors; the container is not touched. Repeatable.

        One that a thread waits on is closed by that thread, when its answer has come.
        """
        is_idle = self._wait_lock.acquire(blocking=False)
        try:
            with self._asking_lock:
                waited = None if is_idle else self._waiting
                for connection in (self._starter, self._waiting):
                    if connection is not None and connection is not waited:
                        connection.close()
                self._starter, self._waiting = None, waited
        finally:
            if is_idle:
                self._wait_lock.release()

    def forget_parent(self) -> None:
        """In a forked child of the user's program: threads that held locks are not here."""
        self._wait_lock, self._asking_lock = threading.Lock(), threading.Lock()
        self.close()


def connect(directory: str) -> Connection:
    """A connection to the supervisor of a container.

    Args:
        directory: the container's directory (execdrv.registry.Registry.path_of).
    Raises:
        SupervisorLostError: nobody answers there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # By descriptor: a path may be longer than sun_path.
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{fd}/socket")
        finally:
            os.close(fd)
    except OSError as error:
        sock.close()
        raise SupervisorLostError(
            f"cannot reach container {os.path.basename(directory)!r}: its supervisor is gone",
            hint="`execdrv gc` removes what it left",
            container=os.path.basename(directory),
        ) from error
    return Connection(sock)


def _is_readable(fd: int, deadline: float | None) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLHUP)
    while True:
        patience_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        if poll.poll(None if patience_s is None else patience_s * 1000):
            return True
        if deadline is not None and time.monotonic() >= deadline:
            return False
