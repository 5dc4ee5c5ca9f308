"""The front end's handle of a stand-in host: starts it, asks it, ends it.

Runs outside, in the command or in a pytest worker. The stand-in host is executed, not forked: the
front end may have threads, and its memory is none of the jobs' business.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from execdrv_conformance.standin.guard import Guard, make_guard
from execdrv_conformance.standin.key import remove_keys
from execdrv_conformance.standin.tree import copy_tree

_PROGRAM = """\
import json, sys
sys.path[:] = json.loads(sys.argv[3])
from execdrv_conformance.standin.main import main
main(int(sys.argv[1]), sys.argv[2])
"""

START_TIMEOUT_S = 30.0
#: Seconds for a stand-in host to end its containers by itself.
CLOSE_TIMEOUT_S = 10.0


class StandInError(Exception):
    """There is no stand-in host, or it has ended; the message says why."""


class StandIn:
    """One stand-in host.

    Args:
        name: `xdc-RUN-N`: of its groups, host name and directory.
        directory: the run's directory.
        root: a root file system with Python, to be copied.
    """

    def __init__(self, name: str, *, directory: Path, root: str) -> None:
        self.name = name
        self.scratch = directory / name
        self._root = root
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None
        self._channel: socket.socket | None = None
        self._buffer = b""
        #: Guard groups that could not be made, and groups that could not be removed.
        self.problems: list[str] = []

    def start(self) -> None:
        """Make it and wait until it is ready.

        Raises:
            StandInError: it can't be made here.
        """
        self.scratch.mkdir(mode=0o755, parents=True)
        self.scratch.chmod(0o755)
        copy_tree(Path(self._root), self.scratch / "root")
        for name in ("tmp", "var/tmp"):
            # In the cached root, which all share, nobody may write; this copy is the run's own.
            (self.scratch / "root" / name).chmod(0o1777)
        self._guard = make_guard(self.name)
        self.problems += self._guard.problems
        ours, theirs = socket.socketpair()
        request = {
            "run": self.name,
            "guard": list(self._guard.directories),
            "scratch": str(self.scratch),
        }
        path = [os.path.abspath(entry) for entry in sys.path if entry]
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-c", _PROGRAM, str(theirs.fileno())),
                    *(json.dumps(request), json.dumps(path)),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._channel = ours
        answer = self._receive(START_TIMEOUT_S)
        if "ready" not in answer:
            self.close()
            raise StandInError(str(answer.get("failed", answer)))

    def ask(self, request: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """One request and its answer.

        Raises:
            StandInError: it has ended, or took longer: then it is ended.
        """
        if self._channel is None:
            raise StandInError("the stand-in host has ended")
        try:
            self._channel.settimeout(timeout_s)
            self._channel.sendall(json.dumps(request).encode() + b"\n")
            return self._receive(timeout_s)
        except (StandInError, OSError) as error:
            self.close(kill=True)
            raise StandInError(str(error)) from error

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        if self._channel is None:
            raise StandInError("the stand-in host has ended")
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            patience_s = deadline - time.monotonic()
            if patience_s <= 0:
                raise StandInError(f"no answer in {timeout_s:g} s")
            self._channel.settimeout(patience_s)
            try:
                data = self._channel.recv(1 << 20)
            except TimeoutError:
                continue
            if not data:
                raise StandInError("the stand-in host ended")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        """End its processes; whoever waits for an answer learns it. For another thread."""
        if (running := self._process) is not None:
            running.kill()

    def close(self, *, kill: bool = False) -> None:
        """End it and remove what it was given. Repeatable.

        Args:
            kill: it does not answer: do not wait for it to end its containers.
        """
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05 if kill else CLOSE_TIMEOUT_S)
            # Pid 1 inside dies with it, and with that every process there.
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._guard is not None:
            self.problems += [f"left over: {path}" for path in self._guard.remove()]
            self._guard = None
        self.problems += [f"left over: key {key}" for key in remove_keys(f"{self.name}-")]
        shutil.rmtree(self.scratch, ignore_errors=True)
        if self.scratch.exists():
            self.problems.append(f"left over: {self.scratch}")
