"""The supervisor's side of one container's init: its binary, its gate, and the steps at the gate.

A driver starts a process that executes `memfd` with the number of `gate_fd` as its argument (see
execdrv.linux.spawn.exec_init), waits for it in `isolate` and opens the gate in `start`; afterwards
the supervisor alone listens to the gate. Runs in the supervisor. The protocol is in protocol.py.
"""

from __future__ import annotations

import os

from execdrv.errors import IsolationError, StartError
from execdrv.init.protocol import Exited, Failed, Gate, Job, Order, Ready, Started, error_of
from execdrv.linux.procfs import ProcessId, detect_process

#: How long an init may take for a step that needs no more than a few milliseconds.
STEP_TIMEOUT_S = 20.0


class InitLink:
    """One init and its gate.

    Args:
        memfd: the sealed init binary (execdrv.init.open_init), borrowed.
    """

    def __init__(self, memfd: int) -> None:
        self.memfd = memfd
        #: Our end of the socket pair.
        self.gate, self._gate_fd = Gate.pair()
        #: The job's first process, once it was started.
        self.job: ProcessId | None = None
        #: How the job ended, once the init has said so.
        self.exited: Exited | None = None

    @property
    def gate_fd(self) -> int:
        """The init's end, for the process that executes the init."""
        return self._gate_fd

    def release(self) -> None:
        """Close the init's end here, so that its death reads as end of file."""
        if self._gate_fd >= 0:
            os.close(self._gate_fd)
            self._gate_fd = -1

    def close(self) -> None:
        """Close both ends: an init that still runs ends itself. Repeatable."""
        self.release()
        self.gate.close()

    def wait_ready(self, *, timeout_s: float = STEP_TIMEOUT_S) -> None:
        """Wait until the init stands at its gate.

        Raises:
            IsolationError: it ended, or said nothing for `timeout_s` seconds.
        """
        self.release()
        try:
            message = self.gate.receive(timeout_s)
        except TimeoutError as error:
            raise IsolationError(
                f"cannot isolate the container: its init said nothing for {timeout_s:g} s"
            ) from error
        if not isinstance(message, Ready):
            raise IsolationError("cannot isolate the container: its init ended before it was ready")

    def open_gate(self, process: Order, *, timeout_s: float = STEP_TIMEOUT_S) -> ProcessId:
        """Give the init its order, and wait until the command runs.

        Returns:
            The job's first process, as this pid namespace numbers it.
        Raises:
            StartError: the command does not run; see execdrv.init.protocol.error_of.
        """
        self.gate.send_order(process)
        job: ProcessId | None = None
        while True:
            try:
                message = self.gate.receive(timeout_s)
            except TimeoutError as error:
                raise StartError(
                    f"cannot start the command: the init said nothing for {timeout_s:g} s"
                ) from error
            match message:
                case Job(pid=pid):
                    # The init keeps the job unreaped until the gate closes, so this holds.
                    job = detect_process(pid)
                case Started() if job is not None:
                    self.job = job
                    return job
                case Failed() as failed:
                    raise error_of(failed, process.argv[0])
                case _:
                    raise StartError("cannot start the command: the init ended")

    def receive_exit(self) -> None:
        """Take what the init has said since the start, without waiting; sets `exited`."""
        for message in self.gate.receive_available():
            if isinstance(message, Exited):
                self.exited = message
