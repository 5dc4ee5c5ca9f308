"""The supervisor's side of `execdrv-init`: everything that speaks with it.

Runs in the supervisor, which holds the other end of the init's gate; the numbered steps of both
sides stand at the top of execdrv-init.c. Knows bytes and one socket: nothing of drivers, of
namespaces, or of how the init came to run. unix(7), credentials(7).

     init                                          supervisor
  1. READY (its pid comes from the kernel)    ->
  2. waits                                    <-   ORDER, once the walls and the limits stand
  3. checks it, closes what is not the job's
  4. the forked job: JOB (its pid likewise)   ->   opens what it wants of /proc/PID
  5. STARTED, or FAILED and exit 125          ->
  6. EXITED                                   ->
     keeps the job a zombie until             <-   release_pid(), or close()
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from typing import Final

from execdrv.errors import DeadlineError, StartError
from execdrv.init.binary import open_init
from execdrv.init.failure import error_of
from execdrv.init.message import (
    HEADER,
    MESSAGE_BYTES_MAX,
    Exited,
    Failed,
    Job,
    Message,
    Ready,
    Started,
    parse_message,
    protocol_error,
)
from execdrv.init.order import Order, encode_order

__all__ = [
    "Exited",
    "Failed",
    "Gate",
    "Job",
    "Message",
    "Order",
    "Ready",
    "Started",
    "encode_order",
    "error_of",
    "open_init",
]

_CREDENTIALS: Final = struct.Struct("=iII")


class Gate:
    """The supervisor's end of the gate. Its end of file ends the init, and so the container.

    Never blocks but in `send_order` and `receive`, which take a time limit.
    """

    def __init__(self, gate: socket.socket) -> None:
        """Takes over `gate`: a connected stream socket whose other end the init has."""
        gate.setblocking(False)
        gate.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket = gate
        self._received = bytearray()
        self._sender_pid = 0
        #: No message will come any more.
        self.eof = False

    @classmethod
    def pair(cls) -> tuple[Gate, int]:
        """A gate, and the descriptor for the init: close-on-exec, to be closed by the caller."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(ours), theirs.detach()

    def fileno(self) -> int:
        """The descriptor to wait on: readable when `receive_available` has something to do."""
        return self._socket.fileno()

    def close(self) -> None:
        """Ends the init. May be called again."""
        self._socket.close()

    def send_order(self, order: Order, *, timeout_s: float = 30.0) -> None:
        """Opens the gate.

        Raises:
            SpecError: as `encode_order`; nothing was sent.
            DeadlineError: the init did not take the whole order in time; it has not run anything.
            StartError: the init has ended. A FAILED of it may still be received.
        """
        rest = memoryview(encode_order(order))
        deadline = time.monotonic() + timeout_s
        while rest:
            try:
                rest = rest[self._socket.send(rest, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                if not self._wait(select.POLLOUT, deadline):
                    raise DeadlineError(
                        f"cannot start the job: the init did not take its order in {timeout_s:g} s"
                    ) from None
            except OSError as error:  # EPIPE, ECONNRESET
                raise StartError(
                    "cannot start the job: its init has ended before it had the whole order",
                    errno=error.errno,
                ) from error

    def release_pid(self) -> None:
        """Lets the init reap the job: from now on its pid may be given to another process."""
        with contextlib.suppress(OSError):  # the init has ended, or has a byte already
            self._socket.send(b"r", socket.MSG_NOSIGNAL)

    def receive(self, timeout_s: float) -> Message | None:
        """The next message, or None at the end of file.

        Raises:
            DeadlineError: none came in `timeout_s` seconds.
            StartError: what came is no message.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            message = self._next_message()
            if message is not None or self.eof:
                return message
            if not self._read_chunk() and not self._wait(select.POLLIN, deadline):
                raise DeadlineError(f"cannot hear of the init: it was silent for {timeout_s:g} s")

    def receive_available(self) -> list[Message]:
        """All messages that are there already, without waiting; sets `eof` at the end of file.

        Raises:
            StartError: what came is no message.
        """
        messages = []
        while True:
            message = self._next_message()
            if message is not None:
                messages.append(message)
            elif not self._read_chunk():
                return messages

    def _wait(self, events: int, deadline: float) -> bool:
        poll = select.poll()
        poll.register(self._socket, events)
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))

    def _read_chunk(self) -> bool:
        """Reads what one sender has sent; False if nothing is there or nothing will come."""
        if self.eof:
            return False
        try:
            # No room for descriptors: what nobody should send is dropped by the kernel.
            data, ancillary, _, _ = self._socket.recvmsg(
                MESSAGE_BYTES_MAX, socket.CMSG_SPACE(_CREDENTIALS.size), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return False
        except ConnectionResetError:  # the init ended with bytes of ours unread
            data, ancillary = b"", []
        if not data:
            self.eof = True
            if self._received:
                raise protocol_error(f"it ends after {len(self._received)} bytes")
            return False
        sender_pid = 0
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                sender_pid = _CREDENTIALS.unpack(value)[0]
        # Each message is one packet, and unix(7) joins no two senders' in one read: a message in
        # two parts has one sender.
        if self._received and sender_pid != self._sender_pid:
            raise protocol_error("two processes have sent one")
        self._sender_pid = sender_pid
        self._received += data
        return True

    def _next_message(self) -> Message | None:
        if len(self._received) < HEADER.size:
            return None
        kind, length = HEADER.unpack_from(self._received)
        if length > MESSAGE_BYTES_MAX:
            raise protocol_error(f"it claims {length} bytes")
        end = HEADER.size + length
        if len(self._received) < end:
            return None
        payload = bytes(self._received[HEADER.size : end])
        del self._received[:end]
        return parse_message(kind, payload, sender_pid=self._sender_pid)
