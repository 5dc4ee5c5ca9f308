"""A container as its user sees it: a handle that asks the container's supervisor.

Operations go through the hooks (execdrv.dispatch), so that wrappers see them; the dispatcher comes
back to `perform`. Runs in the user's process, in any of its threads; it keeps no state but what its
client has (execdrv.supervisor.client): connections and, when the container is gone, how it ended.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

from execdrv import wire
from execdrv.driver import Exit, Isolated
from execdrv.errors import (
    ContainerNotFoundError,
    DeadlineError,
    ExecdrvError,
    StateError,
    SupervisorLostError,
)
from execdrv.limits import Limits, Receipt
from execdrv.linux.procfs import ProcessId
from execdrv.spec import ContainerSpec
from execdrv.state import TRANSITIONS
from execdrv.supervisor.client import Client

if TYPE_CHECKING:
    from types import TracebackType

    from execdrv.host import Host


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
        self._client = Client(host.registry, id, starter=starter, deadline_s=host.deadline_s)
        self._receipts: tuple[Receipt, ...] = ()

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
        return self._client.state

    @property
    def exit(self) -> Exit | None:
        """How it ended, or None while it has not; also after `destroy`."""
        if self._client.exit is None:
            entry = self._client.entry()
            if entry is not None and entry.record is not None:
                return entry.record.exit
        return self._client.exit

    @property
    def receipts(self) -> tuple[Receipt, ...]:
        """What was really applied of what was asked; complete once `limit` was called."""
        entry = self._client.entry()
        if entry is not None and entry.record is not None:
            self._receipts = entry.record.receipts
        return self._receipts

    def inspect(self) -> dict[str, Any]:
        """The record as plain data, with `state` as `ps` shows it.

        Raises:
            ContainerNotFoundError: nothing is left of it.
            RecordError: the record can't be read.
        """
        entry = self._client.entry()
        if entry is None:
            raise ContainerNotFoundError(
                f"cannot find container {self._id!r}: there is none of that name",
                container=self._id,
            )
        if entry.record is None:
            return {"id": self._id, "state": entry.state, "problem": entry.problem}
        plain: dict[str, Any] = wire.encode(entry.record)
        return {**plain, "state": entry.state}

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
        if not self._client.is_destroyed:
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
        return self._client.wait(timeout_s)

    def fileno(self) -> int:
        """A descriptor that is readable once the container has ended (for select and the like).

        Raises:
            StateError: it is destroyed.
            SupervisorLostError: the container's supervisor is gone.
        """
        return self._client.fileno()

    # --- for the dispatcher --------------------------------------------------------------------

    def perform(self, operation: str, argument: Any = None) -> Any:
        """Ask the supervisor; called by the dispatcher alone, below all wrappers."""
        try:
            if operation == "destroy":
                self._destroy()
                return True
            if self._client.is_destroyed:
                raise self._destroyed_error(operation)
            if operation == "create":
                self._client.create()
                return True
            plain = None if argument is None else wire.encode(argument)
            answer = self._client.ask(operation, plain)
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

    def _destroy(self) -> None:
        client = self._client
        if client.is_created:
            # Asked before: afterwards nobody is there who knows how it ended.
            if client.exit is None:
                with contextlib.suppress(ExecdrvError):
                    client.fileno()
            try:
                client.ask("destroy")
            except (DeadlineError, SupervisorLostError) as error:
                if isinstance(error, DeadlineError):
                    client.kill_supervisor()
                client.keep_exit()
                self._collect()
            else:
                client.keep_exit()
        self.release()

    def _collect(self) -> None:
        """The supervisor is gone: what it left below this process, then what the record names."""
        self._host.end_orphans()
        with contextlib.suppress(ContainerNotFoundError):
            self._host.collect(self._id)

    # --- for the host --------------------------------------------------------------------------

    def ask_starter(self, operation: str) -> Any:
        """Ask the supervisor that this process started, before `create`: `check` or `plan`."""
        return self._client.ask_starter(operation)

    def release(self) -> None:
        """Give up a container that was never created: its supervisor ends."""
        self._client.is_destroyed = True
        self._host.forget(self)
        self.close()

    def close(self) -> None:
        """Close this handle's descriptors; the container is not touched. Repeatable.

        One that a thread waits on is closed by that thread, when its answer has come.
        """
        self._client.close()

    def forget_parent(self) -> None:
        """In a forked child of the user's program: threads that held locks are not here."""
        self._client.forget_parent()

    def wait_gone(self, timeout_s: float) -> bool:
        """Whether the supervisor that this process started has exited."""
        return self._client.wait_gone(timeout_s)
