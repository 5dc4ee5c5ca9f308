"""Frames over a Unix stream socket: a length, JSON, and descriptors beside the first byte.

A blocking connection (`Connection`) for callers, and a buffered one (`Peer`) for event loops. A
connection that an exception interrupted (Ctrl-C too) is closed and never used again: the next
call would read the previous answer. Only the fork server takes descriptors; to everybody else a
driver's code may send some, and the kernel drops what a receiver has no room for.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

from execdrv import wire
from execdrv.errors import DeadlineError, SupervisorLostError

#: Version of the requests; a supervisor and a caller of different versions refuse each other.
PROTOCOL_VERSION = 1
#: SCM_MAX_FD of the kernel: descriptors in one message.
MAX_FDS = 253

_CHUNK = 1 << 18
_FDS_SPACE = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)


def send_frame(sock: socket.socket, data: Any, fds: Sequence[int] = ()) -> None:
    """Send one frame; blocks as the socket does."""
    payload = wire.dumps(data)
    frame = memoryview(wire.HEADER.pack(len(payload)) + payload)
    sent = 0
    if fds:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        sent = sock.sendmsg([frame], rights, socket.MSG_NOSIGNAL)
    while sent < len(frame):
        sent += sock.send(frame[sent:], socket.MSG_NOSIGNAL)


class FrameBuffer:
    """Bytes and descriptors that have come, until they are whole frames.

    Args:
        takes_fds: whether descriptors are let in; they are the buffer's until `next_frame` gives
            them out. Each frame must then bring some: a read goes on from a message without any
            into one that has some (unix(7)), and could not tell whose they are.
    """

    def __init__(self, *, takes_fds: bool = False) -> None:
        self._space = _FDS_SPACE if takes_fds else 0
        self._bytes = bytearray()
        self._fds: list[int] = []

    def receive(self, sock: socket.socket) -> bool:
        """Take what is there; False at the end of file. BlockingIOError as the socket raises it."""
        data, ancillary, _, _ = sock.recvmsg(_CHUNK, self._space, socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds = array.array("i")
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
                self._fds += fds
        self._bytes += data
        return bool(data)

    def next_frame(self) -> tuple[Any, list[int]] | None:
        """The next whole frame and the descriptors that came with it, or None.

        The descriptors are then the caller's to close.

        Raises:
            WireError: no frame of ours; `close` closes what came with it.
        """
        size = wire.HEADER.size
        if len(self._bytes) < size:
            return None
        (length,) = wire.HEADER.unpack_from(self._bytes)
        if length > wire.MAX_FRAME_BYTES:
            raise wire.WireError(f"cannot read a frame of {length} bytes: too long")
        if len(self._bytes) < size + length:
            return None
        payload = bytes(memoryview(self._bytes)[size : size + length])
        del self._bytes[: size + length]
        data = wire.loads(payload)
        fds, self._fds = self._fds, []
        return data, fds

    def close(self) -> None:
        """Close descriptors that came and were not taken."""
        _close_all(self._fds)
        self._fds = []


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


class Connection:
    """A caller's connection to a supervisor: one request and its answer at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def request(self, operation: str, arguments: Any = None, *, timeout_s: float | None) -> Any:
        """Ask, and wait for the answer.

        Raises:
            SupervisorLostError: the supervisor is gone.
            DeadlineError: no answer came in `timeout_s` seconds.
            ExecdrvError: what the supervisor answered.
        """
        self.begin(operation, arguments, timeout_s=timeout_s)
        return self.finish(operation, timeout_s=timeout_s)

    def fileno(self) -> int:
        """Readable when an answer, or the end, is there; -1 when closed."""
        return self._socket.fileno()

    def wait_end(self, timeout_s: float) -> bool:
        """Whether the other side closes within `timeout_s` seconds; answers are dropped."""
        deadline = time.monotonic() + timeout_s
        with contextlib.suppress(ConnectionError):
            try:
                while True:
                    self._socket.settimeout(max(0.001, deadline - time.monotonic()))
                    if not self._socket.recv(_CHUNK):
                        return True
            except TimeoutError:
                return False
        return True

    def begin(
        self, operation: str, arguments: Any = None, *, timeout_s: float | None = None
    ) -> socket.socket:
        """Ask without waiting; the socket is readable when the answer is there.

        Raises:
            SupervisorLostError, DeadlineError: as `request`.
        """
        frame = {"version": PROTOCOL_VERSION, "op": operation, "args": arguments}
        with self._closing_on_failure(operation, timeout_s):
            send_frame(self._socket, frame)
        return self._socket

    def finish(self, operation: str, *, timeout_s: float | None) -> Any:
        """The answer to what was begun.

        Raises:
            SupervisorLostError, DeadlineError, ExecdrvError: as `request`.
        """
        with self._closing_on_failure(operation, timeout_s):
            answer = self._receive()
        # Outside the block: an answer may be a DeadlineError itself.
        if "error" in answer:
            raise wire.decode_error(answer["error"])
        return answer["ok"]

    @contextlib.contextmanager
    def _closing_on_failure(self, operation: str, timeout_s: float | None) -> Iterator[None]:
        """Never use a connection again that an exception interrupted, Ctrl-C included."""
        try:
            self._socket.settimeout(timeout_s)
            yield
        except BaseException as error:
            self.close()
            if isinstance(error, TimeoutError):
                raise DeadlineError(
                    f"cannot {operation} the container: no answer in {timeout_s:g} s",
                    operation=operation,
                ) from error
            # Another thread may have closed it.
            closed = isinstance(error, OSError) and error.errno == errno.EBADF
            if closed or isinstance(error, ConnectionError):
                raise SupervisorLostError(
                    f"cannot {operation} the container: its supervisor is gone",
                    operation=operation,
                ) from error
            raise

    def _receive(self) -> Any:
        buffer = FrameBuffer()
        while (frame := buffer.next_frame()) is None:
            if not buffer.receive(self._socket):
                raise ConnectionResetError
        return frame[0]

    def close(self) -> None:
        """Repeatable."""
        self._socket.close()


class Peer:
    """An event loop's end of a connection: never blocks, keeps what could not be sent yet.

    Args:
        sock: the connection; its end is this object's to close.
        takes_fds: as for FrameBuffer.
    """

    def __init__(self, sock: socket.socket, *, takes_fds: bool = False) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._incoming = FrameBuffer(takes_fds=takes_fds)
        self._outgoing = bytearray()
        #: Nothing more will come.
        self.eof = False

    def fileno(self) -> int:
        return self.socket.fileno()

    @property
    def has_outgoing(self) -> bool:
        """Whether to wait for room to send."""
        return bool(self._outgoing)

    def receive(self) -> list[tuple[Any, list[int]]]:
        """All whole frames that are there, with descriptors that are the caller's; sets `eof`.

        Raises:
            WireError: the peer does not speak this protocol; no descriptor is handed out.
        """
        frames: list[tuple[Any, list[int]]] = []
        try:
            while self._incoming.receive(self.socket):
                while (frame := self._incoming.next_frame()) is not None:
                    frames.append(frame)
            self.eof = True
        except BlockingIOError:
            pass
        except ConnectionError:
            self.eof = True
        except wire.WireError:
            for _, fds in frames:
                _close_all(fds)
            raise
        return frames

    def send(self, data: Any) -> None:
        """Queue a frame, and send what the socket takes now."""
        payload = wire.dumps(data)
        self._outgoing += wire.HEADER.pack(len(payload)) + payload
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes now."""
        try:
            while self._outgoing:
                sent = self.socket.send(self._outgoing[:_CHUNK], socket.MSG_NOSIGNAL)
                del self._outgoing[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._outgoing.clear()
            self.eof = True

    def finish(self, timeout_s: float) -> None:
        """Send all that is left, blocking for at most `timeout_s` seconds (more than 0)."""
        if not self._outgoing:
            return
        with contextlib.suppress(OSError):
            self.socket.settimeout(timeout_s)
            self.socket.sendall(self._outgoing, socket.MSG_NOSIGNAL)

    def close(self) -> None:
        """Repeatable."""
        self._incoming.close()
        self.socket.close()
