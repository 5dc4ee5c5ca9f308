"""The kit's end of an agent: sends probes into a container and checks what comes back.

The line is a socket pair whose other end is the job's standard input and output; the kernel tells
with each message which process has written it (SCM_CREDENTIALS), so the kit finds the job by
itself and never asks the driver. Runs in the stand-in host.
"""

from __future__ import annotations

import importlib.resources
import json
import os
import select
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any, Final

#: Seconds for one probe, unless it says otherwise.
PROBE_TIMEOUT_S: Final = 10.0
#: Most bytes of one answer: a flood is no answer.
_MOST_BYTES: Final = 8 << 20

#: Reads a program of N bytes from standard input, and runs it. Short: argv is visible to all.
BOOTSTRAP: Final = (
    "import sys;f=sys.stdin.buffer;n=int(f.readline());"
    "exec(compile(f.read(n),'agent','exec'),{'__name__':'probe'})"
)
#: Where the kit's root file system, and the machine it was made from, have their interpreter.
_CREDENTIALS: Final = struct.Struct("iii")


class AgentError(Exception):
    """The agent is gone, is silent, or says what it can't."""


def read_source(module: str) -> str:
    """The text of a module of probes."""
    return (importlib.resources.files("execdrv_conformance.probes") / f"{module}.py").read_text()


class Line:
    """A socket pair; one end is for a job."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._buffer = b""
        #: The process that wrote last, as this pid namespace numbers it.
        self.writer = 0
        self.received = 0

    def close(self) -> None:
        """Close both ends. Repeatable."""
        self.ours.close()
        self.theirs.close()

    def send(self, data: bytes, *, timeout_s: float) -> None:
        """Write all of it."""
        self.ours.settimeout(timeout_s)
        try:
            self.ours.sendall(data)
        except OSError as error:
            raise AgentError(f"the agent takes nothing: {error}") from error

    def receive_line(self, deadline: float) -> bytes:
        """One line without its end.

        Args:
            deadline: of time.monotonic().
        """
        while b"\n" not in self._buffer:
            patience_s = deadline - time.monotonic()
            if patience_s <= 0 or not select.select([self.ours], [], [], patience_s)[0]:
                raise AgentError("the agent said nothing in time")
            try:
                data, ancillary, _, _ = self.ours.recvmsg(65536, 256)
            except OSError as error:
                raise AgentError(f"the agent is gone: {error}") from error
            if not data:
                raise AgentError("the agent ended")
            for level, kind, content in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    self.writer = _CREDENTIALS.unpack(content[: _CREDENTIALS.size])[0]
                elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    _close_received(content)
            self.received += len(data)
            if self.received > _MOST_BYTES:
                raise AgentError(f"the agent said more than {_MOST_BYTES} bytes")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def _close_received(content: bytes) -> None:
    for offset in range(0, len(content) - 3, 4):
        os.close(struct.unpack_from("i", content, offset)[0])


class Agent:
    """A running agent.

    Args:
        line: the kit's end of its standard streams.
        nonce: the word that it must put into each line.
    """

    def __init__(self, line: Line, nonce: str) -> None:
        self.line = line
        self.nonce = nonce
        #: The job's process, as the observer sees it; 0 until it has said hello.
        self.pid = 0
        #: The same process, as it numbers itself.
        self.inner_pid = 0
        self._sequence = 0
        self._loaded: set[str] = set()

    def greet(self, *, timeout_s: float) -> None:
        """Send the program and wait until it runs."""
        program = read_source("agent").encode()
        self.line.send(b"%d\n" % len(program) + program, timeout_s=timeout_s)
        hello = self._receive(time.monotonic() + timeout_s)
        inner = hello.get("hello")
        if not isinstance(inner, int) or hello.get("seq") != 0:
            raise AgentError(f"the agent's first line is no greeting: {hello!r}")
        self.inner_pid = inner
        self.pid = self.line.writer

    def call(
        self, probe: str, arguments: Mapping[str, Any], *, timeout_s: float = PROBE_TIMEOUT_S
    ) -> dict[str, Any]:
        """Run a probe.

        Args:
            probe: `module:function` of the package `probes`.
            arguments: its keyword arguments, as JSON can carry them.
        Returns:
            The facts of all its lines together.
        Raises:
            AgentError: it did not finish, or a line is missing or not its own.
        """
        self.begin(probe, arguments)
        return self.finish(timeout_s=timeout_s)

    def begin(self, probe: str, arguments: Mapping[str, Any]) -> None:
        """Ask for a probe and do not wait for it."""
        module = probe.partition(":")[0]
        if module not in self._loaded:
            self._send({"load": module, "source": read_source(module)})
            self._loaded.add(module)
        self._send({"call": probe, "arguments": dict(arguments)})

    def next_fact(self, *, timeout_s: float = PROBE_TIMEOUT_S) -> dict[str, Any]:
        """One fact of the probe that runs, before it has ended."""
        line = self._receive(time.monotonic() + timeout_s)
        fact = line.get("fact")
        if not isinstance(fact, dict):
            raise AgentError(f"the probe ended: {line.get('error') or 'no more facts'}")
        return fact

    def finish(self, *, timeout_s: float = PROBE_TIMEOUT_S, seen: int = 0) -> dict[str, Any]:
        """Wait for the end of the probe.

        Args:
            seen: facts that `next_fact` has taken.
        """
        deadline = time.monotonic() + timeout_s
        facts: dict[str, Any] = {}
        count = seen
        while True:
            line = self._receive(deadline)
            if "fact" in line and isinstance(line["fact"], dict):
                facts.update(line["fact"])
                count += 1
                continue
            if line.get("error"):
                raise AgentError(f"the probe failed: {line['error']}")
            if line.get("plan") != count:
                raise AgentError(f"the probe planned {line.get('plan')!r} facts and said {count}")
            return facts

    def close(self) -> None:
        """End the agent by the end of its input. Repeatable."""
        self.line.close()

    def _send(self, request: dict[str, Any]) -> None:
        self.line.send(json.dumps(request).encode() + b"\n", timeout_s=PROBE_TIMEOUT_S)

    def _receive(self, deadline: float) -> dict[str, Any]:
        text = self.line.receive_line(deadline)
        try:
            line = json.loads(text)
        except ValueError as error:
            raise AgentError(f"the agent said {text[:200]!r}: not a line of its own") from error
        if not isinstance(line, dict) or line.get("nonce") != self.nonce:
            raise AgentError(f"a line without the agent's nonce: {text[:200]!r}")
        if "hello" not in line:
            self._sequence += 1
            if line.get("seq") != self._sequence:
                raise AgentError(f"line {self._sequence} is missing: {text[:200]!r}")
        return line
