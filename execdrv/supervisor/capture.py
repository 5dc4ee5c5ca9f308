"""Keeping a job's output: a pipe for each captured stream, drained as long as the job writes.

The job is never blocked by a reader that is slow, and memory is bounded: what exceeds the asked
number of bytes is read and dropped. Runs in the supervisor's event loop.
"""

from __future__ import annotations

import os

_CHUNK = 1 << 16
#: Chunks read at one go, so that one loud job leaves room for the loop's other work.
_CHUNKS_AT_ONCE = 64


class Capture:
    """One captured stream.

    Args:
        keep_bytes: how much to keep, from the beginning.
    """

    def __init__(self, keep_bytes: int) -> None:
        self._keep_bytes = keep_bytes
        self._kept = bytearray()
        self.truncated = False
        #: For the job: to be closed here once it runs.
        self.write_end: int
        self._read_end: int
        self._read_end, self.write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read_end, False)

    def fileno(self) -> int:
        return self._read_end

    def close_write_end(self) -> None:
        """Repeatable."""
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def drain(self, *, at_most: int = _CHUNKS_AT_ONCE) -> bool:
        """Read what is there, in bounded time; False at the end of file."""
        for _ in range(at_most):
            try:
                chunk = os.read(self._read_end, _CHUNK)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            room = self._keep_bytes - len(self._kept)
            self._kept += chunk[:room]
            self.truncated = self.truncated or len(chunk) > room
        return True

    def finish(self) -> bytes:
        """Read the rest of a stream that nobody of the job writes any more, and close it."""
        self.close_write_end()
        if self._read_end >= 0:
            # A pipe holds 1 MiB at most, so this ends even if the pipe was passed out of the job.
            self.drain()
            os.close(self._read_end)
            self._read_end = -1
        return bytes(self._kept)
