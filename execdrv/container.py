"""A container as its user sees it: a handle that asks the container's supervisor.

Runs in the user's process, in any of its threads; it keeps no state but connections and, when the
container is gone, how it ended. Operations go through the hooks (execdrv.dispatch), so that
wrappers see them.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Literal

from execdrv import wire
from execdrv.driver import Exit, Isolated
from execdrv.errors import (
    ContainerNotFoundError,
    DeadlineError,
    ExecdrvError,
    StartError,
    StateError,
    SupervisorLostError,
)
from execdrv.limits import Limits, Receipt
from execdrv.linux.procfs import ProcessId
from execdrv.spec import ContainerSpec
from execdrv.state import TRANSITIONS, Entry
from execdrv.supervisor import launcher
from execdrv.supervisor.connection import Connection

if TYPE_CHECKING:
    from types import TracebackType

    from execdrv.host import Host

#: How much longer than a driver's deadline a caller waits for the answer.
PATIENCE_S = 5.0

NoExit = Literal["never started", "lost", "unknown"]


class Container:
    """One container. Made by `Host.container`, `Host.start` or `Host.get`.

    A context manager: it is destroyed at the end of the block.
    """

    def __init__(
        self,
        host: Host,
        id: str,
        *,
        starter: socket.socket | None = None,
        spec: ContainerSpec | None = None,
    ) -> None:
        self._host = host
        self._id = id
        self._spec = spec
        #: The connection over which this process started the supervisor.
        self._starter = None if starter is None else Connection(starter)
        self._created = starter is None
        #: The connection on which `wait` was asked.
        self._waiting: Connection | None = None
        #: Held by the one thread that waits for the answer, and while the question is asked.
        self._wait_lock = threading.Lock()
        self._asking_lock = threading.Lock()
        self._exit: Exit | None = None
        self._receipts: tuple[Receipt, ...] = ()
        self._destroyed = False
        #: Why a `wait` after `destroy` has no exit to give.
        self._no_exit: NoExit = "unknown"

    def __enter__(self) -> Container:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.destroy()

    def __repr__(self) -> str:
        return f"<Container {self._id}>"

    # --- what it is ----------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The container's id, which is its name."""
        return self._id

    @property
    def state(self) -> str:
        """creating, created, isolated, ready, running, stopped, destroying; lost or broken where
        its supervisor is gone; destroyed where nothing is left of it."""
        entry = self._entry()
        if entry is not None:
            return entry.state
        return "destroyed" if self._created or self._destroyed else "creating"

    @property
    def exit(self) -> Exit | None:
        """How it ended, or None while it has not; also after `destroy`."""
        if self._exit is None:
            entry = self._entry()
            if entry is not None and entry.record is not None:
                return entry.record.exit
        return self._exit

    @property
    def receipts(self) -> tuple[Receipt, ...]:
        """What was really applied of what was asked; complete once `limit` was called."""
        entry = self._entry()
        if entry is not None and entry.record is not None:
            self._receipts = entry.record.receipts
        return self._receipts

    def inspect(self) -> dict[str, Any]:
        """The record as plain data, with `state` as `ps` shows it.

        Raises:
            ContainerNotFoundError: nothing is left of it.
            RecordError: the record can't be read.
        """
        entry = self._entry()
        if entry is None:
            raise ContainerNotFoundError(
                f"cannot find container {self._id!r}: there is none of that name",
                container=self._id,
            )
        if entry.record is None:
            return {"id": self._id, "state": entry.state, "problem": entry.problem}
        plain: dict[str, Any] = wire.encode(entry.record)
        return {**plain, "state": entry.state}

    def _entry(self) -> Entry | None:
        if self._destroyed:
            # What has that name now is another container.
            return None
        return self._host.registry.entry(self._id)

    # --- operations ----------------------------------------------------------------------------

    def create(self) -> None:
        """Make identity, record, group; nothing runs.

        Raises:
            UnsupportedError: the driver or this machine can't do what was asked; nothing was made.
            ContainerExistsError: the id is in use.
            CreateError: nothing is left.
        """
        self._host.operate("create", self)

    def isolate(self) -> Isolated:
        """Build the walls; the command does not run yet.

        Raises:
            IsolationError: a wall could not be built.
            StateError: not in state created.
        """
        result: Isolated = self._host.operate("isolate", self)
        return result

    def limit(self, **limits: Any) -> tuple[Receipt, ...]:
        """Put the spec's limits in force; or others, also while the command runs.

        Args:
            limits: memory_bytes, memory_swap_bytes, cpus, pids (execdrv.limits.Limits); none: the
                spec's.
        Raises:
            LimitError: none has changed.
            StateError: not in state isolated, ready or running.
        """
        wanted = Limits(**limits) if limits else None
        result: tuple[Receipt, ...] = self._host.operate("limit", self, limits=wanted)
        return result

    def start(self) -> ProcessId:
        """Run the command. Returns its process.

        Raises:
            CommandNotFoundError, CommandNotExecutableError, StartError: it does not run.
            StateError: not in state ready.
        """
        result: ProcessId = self._host.operate("start", self)
        return result

    def signal(self, signum: int) -> None:
        """Send a signal to the command.

        Raises:
            StateError: it does not run.
        """
        self._host.operate("signal", self, signum=signum)

    def destroy(self) -> None:
        """End and remove everything. Repeatable; how it ended is kept for `wait`.

        All other operations are refused afterwards, with StateError.

        Raises:
            CleanupError: something is left; it can be called again.
        """
        if not self._destroyed:
            self._host.operate("destroy", self)

    def wait(self, timeout_s: float | None = None) -> Exit:
        """Wait for the end; again and again, also after `destroy`.

        Args:
            timeout_s: seconds, at least 0; None: for ever.
        Raises:
            TimeoutError: it has not ended.
            StartError: its command did not start, or was not started when somebody destroyed it.
            StateError: it is destroyed, and was never started, or its end was told to nobody.
            SupervisorLostError: the supervisor died, and so the container.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        # One answer comes; the other threads that wait take it from the first.
        patience_s = -1 if timeout_s is None else max(0.0, timeout_s)
        if not self._wait_lock.acquire(timeout=patience_s):
            raise self._not_ended(timeout_s)
        try:
            if self._exit is None:
                if not _is_readable(self.fileno(), deadline):
                    raise self._not_ended(timeout_s)
                self._exit = self._take_exit()
            return self._exit
        except SupervisorLostError as error:
            if self._destroyed or self.state != "destroyed":
                raise
            raise self._no_exit_error("unknown") from error
        finally:
            self._wait_lock.release()

    def _not_ended(self, timeout_s: float | None) -> TimeoutError:
        return TimeoutError(f"container {self._id!r} has not ended in {timeout_s:g} s")

    def _take_exit(self) -> Exit:
        """The answer to `wait`, which has come."""
        connection, self._waiting = self._waiting, None
        try:
            if connection is None:
                raise SupervisorLostError(f"cannot wait for container {self._id!r}: it is gone")
            return wire.decode(Exit, connection.finish("wait", timeout_s=PATIENCE_S))
        except SupervisorLostError:
            entry = self._entry()
            if entry is None or entry.record is None or entry.record.exit is None:
                raise
            return entry.record.exit
        finally:
            if connection is not None and connection is not self._starter:
                connection.close()

    def fileno(self) -> int:
        """A descriptor that is readable once the container has ended (for select and the like).

        Raises:
            StateError: it is destroyed.
            SupervisorLostError: the container's supervisor is gone.
        """
        with self._asking_lock:
            if self._waiting is None:
                if self._destroyed:
                    raise self._no_exit_error(self._no_exit)
                connection = self._starter if self._starter is not None else self._connect()
                connection.begin("wait")
                self._waiting = connection
            return self._waiting.fileno()

    def _no_exit_error(self, why: NoExit) -> ExecdrvError:
        """What a `wait` for a destroyed container gets that has no exit to give."""
        if why == "lost":
            return SupervisorLostError(
                f"cannot wait for container {self._id!r}: its supervisor died before it told "
                "how the command ended",
                container=self._id,
                operation="wait",
            )
        reason = "was never started" if why == "never started" else "nobody has kept how it ended"
        return StateError(
            f"cannot wait for container {self._id!r}: it is destroyed, and {reason}",
            container=self._id,
            operation="wait",
            state="destroyed",
            allowed=["running", "stopped"],
        )

    # --- for the dispatcher --------------------------------------------------------------------

    def perform(self, operation: str, argument: Any = None) -> Any:
        """Ask the supervisor; called by the dispatcher alone, below all wrappers."""
        try:
            if operation == "destroy":
                self._destroy()
                return True
            if self._destroyed:
                raise self._destroyed_error(operation)
            if operation == "create":
                self._create()
                return True
            plain = None if argument is None else wire.encode(argument)
            answer = self._ask(operation, plain)
        except SupervisorLostError as error:
            if operation == "destroy" or self.state != "destroyed":
                raise
            # By another handle.
            raise self._destroyed_error(operation) from error
        except ExecdrvError as error:
            raise self._host.explain(error, self._spec) from error.__cause__
        match operation:
            case "isolate":
                return wire.decode(Isolated, answer)
            case "limit":
                return wire.decode(tuple[Receipt, ...], answer)
            case "start":
                return wire.decode(ProcessId, answer)
        return True

    def _destroyed_error(self, operation: str) -> StateError:
        allowed = list(TRANSITIONS[operation])
        return StateError(
            f"cannot {operation} container {self._id!r}: it is destroyed, not {', '.join(allowed)}",
            container=self._id,
            operation=operation,
            state="destroyed",
            allowed=allowed,
        )

    def ask_starter(self, operation: str, argument: Any = None) -> Any:
        """Ask over the starter's own connection, which is there before the container is."""
        if self._starter is None:
            raise StateError(
                f"cannot {operation} container {self._id!r}: another process has made it",
                container=self._id,
                operation=operation,
            )
        return self._starter.request(operation, argument, timeout_s=self._patience)

    @property
    def _patience(self) -> float:
        return self._host.deadline_s + PATIENCE_S

    def _create(self) -> None:
        self.ask_starter("create")
        self._created = True

    def _ask(self, operation: str, argument: Any) -> Any:
        if not self._created:
            return self.ask_starter(operation, argument)
        connection = self._connect()
        try:
            return connection.request(operation, argument, timeout_s=self._patience)
        finally:
            connection.close()

    def _connect(self) -> Connection:
        return launcher.connect(self._host.registry.path_of(self._id))

    def _destroy(self) -> None:
        if not self._created:
            self._no_exit = "never started"
        else:
            # Asked before: afterwards nobody is there who knows how it ended.
            if self._exit is None:
                with contextlib.suppress(ExecdrvError):
                    self.fileno()
            try:
                self._ask("destroy", None)
            except (DeadlineError, SupervisorLostError) as error:
                if isinstance(error, DeadlineError):
                    self._kill_supervisor()
                self._keep_exit()
                self._collect()
            else:
                self._keep_exit()
        self.release()

    def _keep_exit(self) -> None:
        """Take the answer to `wait`, or learn why there is none, before the record goes."""
        if not self._wait_lock.acquire(blocking=False):
            # The thread that waits takes it.
            return
        try:
            if self._exit is None:
                self._exit = self._take_exit()
        except StartError:
            self._no_exit = "never started"
        except SupervisorLostError:
            # Without an entry it was somebody else who destroyed it.
            self._no_exit = "unknown" if self._entry() is None else "lost"
        except ExecdrvError:
            self._no_exit = "unknown"
        finally:
            self._wait_lock.release()

    def _collect(self) -> None:
        """The supervisor is gone: what it left below this process, then what the record names."""
        self._host.end_orphans()
        with contextlib.suppress(ContainerNotFoundError):
            self._host.collect(self._id)

    def _kill_supervisor(self) -> None:
        """It does not answer within its deadline: its death ends the container."""
        from execdrv.linux import procfs

        entry = self._entry()
        if entry is not None and entry.record is not None:
            supervisor = entry.record.supervisor
            procfs.send_signal(supervisor, 9)
            end = time.monotonic() + PATIENCE_S
            while procfs.is_running(supervisor) and time.monotonic() < end:
                time.sleep(0.002)

    def release(self) -> None:
        """Give up a container that was never created: its supervisor ends."""
        self._destroyed = True
        self._host.forget(self)
        self.close()

    def close(self) -> None:
        """Close this handle's descriptors; the container is not touched. Repeatable.

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

    def wait_gone(self, timeout_s: float) -> bool:
        """Whether the supervisor that this process started has exited."""
        if self._starter is None:
            return True
        return self._starter.wait_end(timeout_s)


def _is_readable(fd: int, deadline: float | None) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLHUP)
    while True:
        patience_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        if poll.poll(None if patience_s is None else patience_s * 1000):
            return True
        if deadline is not None and time.monotonic() >= deadline:
            return False
