"""Jobs of a check's own: one that speaks on a line of the kit's, and one that must not come to be.

An agent is always the same command; what is about the command itself, its streams or its failure
needs others. Runs in the stand-in host's worker, for scenarios.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from execdrv.container import Container
from execdrv.driver import Exit
from execdrv.errors import ExecdrvError
from execdrv_conformance.agent import AgentError, Line
from execdrv_conformance.bench import Bench, describe_error

#: Seconds for one line of a job.
LINE_TIMEOUT_S = 10.0


@attrs.frozen(kw_only=True)
class Job:
    """A running command, and the kit's end of its line."""

    container: Container
    line: Line

    @property
    def pid(self) -> int:
        """The process that spoke last, by the kernel's word."""
        return self.line.writer

    def hear(self, *, timeout_s: float = LINE_TIMEOUT_S) -> bytes:
        """One line.

        Raises:
            AgentError: it said none in time, or has ended.
        """
        return self.line.receive_line(time.monotonic() + timeout_s)

    def tell(self, data: bytes) -> None:
        """Write to its standard input."""
        self.line.send(data, timeout_s=LINE_TIMEOUT_S)


@contextlib.contextmanager
def start_job(bench: Bench, argv: list[Any], **fields: Any) -> Iterator[Job]:
    """A command of the driver whose standard input, and output if nothing else is said, is a line.

    Raises:
        ExecdrvError: it was not started.
    """
    line = Line()
    with contextlib.closing(line):
        fields = {"stdin": line.theirs, "stdout": line.theirs, "stderr": None, **fields}
        with bench.start(argv, **fields) as container:
            line.theirs.close()
            yield Job(container=container, line=line)


def hear_or_nothing(job: Job) -> bytes | None:
    """One line, or None for a job that has ended without it or is silent."""
    try:
        return job.hear()
    except AgentError:
        return None


def read_all(fds: Mapping[str, int], *, timeout_s: float) -> dict[str, bytes]:
    """Read several pipes to their ends, as they fill.

    Raises:
        TimeoutError: one is still open.
    """
    deadline = time.monotonic() + timeout_s
    found = {name: bytearray() for name in fds}
    names = {fd: name for name, fd in fds.items()}
    while names:
        ready, _, _ = select.select(list(names), [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(f"{', '.join(names.values())} not at an end in {timeout_s:g} s")
        for fd in ready:
            data = os.read(fd, 1 << 16)
            found[names[fd]] += data
            if not data:
                del names[fd]
    return {name: bytes(data) for name, data in found.items()}


def provoke(act: Callable[[], Any]) -> dict[str, Any]:
    """Do what should fail, and say how it did: `error` with its classes, or None.

    An exception that is none of execdrv's is an answer too: an untyped one.
    """
    try:
        returned = act()
    except ExecdrvError as error:
        return {"error": describe_error(error)}
    except Exception as error:
        classes = [cls.__name__ for cls in type(error).__mro__]
        return {"error": {"classes": classes, "message": str(error)}}
    return {"error": None, "returned": describe_end(returned)}


def describe_end(returned: Any) -> str:
    """How a job ended, in few words."""
    if isinstance(returned, Exit):
        return f"{returned.reason}, status {returned.status}"
    return repr(returned)[:80]


def provoke_run(bench: Bench, argv: list[Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Ask for a run that should be refused; `ran`: whether the command did anything.

    The command writes a word to a file of the kit's that is its standard output.
    """
    path = bench.scratch / f"{bench.nonce()}.ran"
    with open(path, "w+b") as output:
        command = argv if argv is not None else ["/bin/echo", "ran"]
        streams = {"stdout": output, "stderr": None}
        answer = provoke(lambda: bench.run(command, **{**streams, **fields}))
        answer["ran"] = os.fstat(output.fileno()).st_size > 0
    path.unlink()
    return answer


def explain_answer(answer: Mapping[str, Any], *, wanted: tuple[str, ...]) -> str:
    """Why an answer of `provoke` is not the typed refusal that was wanted; empty if it is.

    Args:
        wanted: names of error classes, one of which it must be; a fault of the driver never is.
    """
    if answer.get("ran"):
        return "the command ran"
    error = answer["error"]
    if error is None:
        return f"no error ({answer.get('returned')})"
    classes = error["classes"]
    if "ExecdrvError" not in classes or "DriverBugError" in classes:
        return f"untyped {classes[0]}: {error['message'][:120]}"
    if not set(wanted) & set(classes):
        return f"{classes[0]}, not {' or '.join(wanted)}: {error['message'][:120]}"
    return ""
