"""How a run ended, for people (a line on stderr) and for programs (--result, --json).

The job's own end and a failure of execdrv are told apart in both. Pure, but for `ResultFile`, which
writes one file in one step.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from typing import Any

import attrs

from execdrv import wire
from execdrv.driver import Exit
from execdrv.errors import ExecdrvError, UsageError
from execdrv.limits import Receipt
from execdrv.spec import UNSET, ContainerSpec
from execdrv.units import format_bytes

RESULT_VERSION = 1
_FAILED = 125


@attrs.define(kw_only=True)
class Outcome:
    """What is known of a run so far."""

    driver: str
    spec: ContainerSpec | None = None
    container: str | None = None
    receipts: tuple[Receipt, ...] = ()
    #: How the job ended; None if that is not known.
    exit: Exit | None = None
    #: What failed in execdrv itself, not in the job.
    error: Exception | None = None

    @property
    def status(self) -> int:
        """The exit status of the command, 0 to 255."""
        if isinstance(self.error, ExecdrvError):
            return self.error.exit_status
        if self.error is not None or self.exit is None:
            return _FAILED
        return self.exit.status

    def to_plain(self) -> dict[str, Any]:
        """The outcome as plain data; see docs/cli.md."""
        exit_ = {} if self.exit is None else wire.encode(self.exit)
        for name in ("stdout", "stderr", "truncated"):
            exit_.pop(name, None)
        return {
            "version": RESULT_VERSION,
            "status": self.status,
            "container": self.container,
            "driver": self.driver,
            "exit": exit_ or None,
            "error": None if self.error is None else plain_error(self.error),
            "receipts": wire.encode(self.receipts),
            "spec": None if self.spec is None else wire.encode(self.spec),
        }

    def explain(self) -> str | None:
        """One line where the status alone would mislead; None where it says it all."""
        if self.exit is None:
            return None
        limits = self.spec.limits if self.spec is not None else None
        match self.exit.reason:
            case "oom":
                limit = limits.memory_bytes if limits is not None else None
                return f"killed: out of memory{f' (limit {format_bytes(limit)})' if limit else ''}"
            case "timeout":
                seconds = self.spec.timeout if self.spec is not None else UNSET
                return f"killed: it ran longer than its timeout of {seconds or 0:g} s"
            case "destroyed":
                return f"killed: somebody destroyed container {self.container!r}"
            case "lost":
                return f"lost: container {self.container!r} ended without telling how"
        return None


def plain_error(error: Exception) -> dict[str, Any]:
    """An error as plain data for reports."""
    encoded = wire.encode_error(error)
    return {
        "kind": type(error).__name__,
        "message": encoded["message"],
        "hint": encoded["hint"],
        "fields": encoded["fields"],
    }


class ResultFile:
    """The file of --result: replaced in one step, so that no reader sees half of it.

    Raises:
        UsageError: it can't be written there.
    """

    def __init__(self, path: str) -> None:
        self._name = path
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            mode = None
        except OSError as error:
            raise self._refusal(error) from error
        # A pipe, a device or a descriptor (/dev/fd/3) is written to, not replaced.
        special = os.path.abspath(path).startswith(("/dev/", "/proc/"))
        self._replaces = not special and (mode is None or stat.S_ISREG(mode))
        self._path = os.path.realpath(path) if self._replaces else path
        if not path or (mode is not None and stat.S_ISDIR(mode)):
            raise UsageError(f"cannot write the result to {path!r}: it is not a file")
        above = os.path.dirname(self._path)
        if self._replaces and not (os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK)):
            raise UsageError(
                f"cannot write the result to {path!r}: no file can be made in {above!r}"
            )

    def write(self, outcome: Outcome) -> None:
        """Write the outcome.

        Raises:
            UsageError: it can't be written; a file that was there is unchanged.
        """
        data = json.dumps(outcome.to_plain(), indent=2, allow_nan=False).encode("ascii") + b"\n"
        try:
            if self._replaces:
                self._replace(data)
            else:
                _write_all(os.open(self._path, os.O_WRONLY | os.O_CLOEXEC), data)
        except OSError as error:
            raise self._refusal(error) from error

    def _replace(self, data: bytes) -> None:
        above, name = os.path.split(self._path)
        draft = os.path.join(above, f".{name[:200]}.{os.getpid()}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(draft, flags, 0o666)
        try:
            _write_all(fd, data)
            os.rename(draft, self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise

    def _refusal(self, error: OSError) -> UsageError:
        reason = (error.strerror or str(error)).lower()
        return UsageError(f"cannot write the result to {self._name!r}: {reason}")


def _write_all(fd: int, data: bytes) -> None:
    """Write to a descriptor and close it."""
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)
