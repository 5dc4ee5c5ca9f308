"""What the command says: lines on stderr, tables and JSON on stdout.

All text of others (names, errors, arguments) goes through `visible`: no byte of it reaches a
terminal as a control character. stdout and stderr are written by descriptor: the interpreter's own
objects are missing where the caller closed them. Knows no subcommand.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from types import FrameType
from typing import Any

from execdrv.errors import ExecdrvError, UnsupportedError

#: How long work may take before its progress is shown to who is not at a terminal.
PATIENCE_S = 1.0


def visible(text: str) -> str:
    r"""The text with every character that does not print written as an escape (``\x1b``)."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    number = ord(char)
    if 0xDC80 <= number <= 0xDCFF:
        # A byte that is no text in the file system encoding (surrogateescape).
        return f"\\x{number - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def quoted(words: Iterable[bytes | str]) -> str:
    """Words as a shell would take them, control characters shown."""
    import shlex

    return " ".join(visible(shlex.quote(os.fsdecode(word))) for word in words)


# --- streams -----------------------------------------------------------------------------------


def write_out(text: str) -> None:
    """Write to stdout.

    Raises:
        OSError: it can't be written (BrokenPipeError: its reader is gone).
    """
    _write(1, text)


def write_error(text: str) -> None:
    """Write to stderr; where that fails, nobody can be told."""
    with contextlib.suppress(OSError):
        _write(2, text)


def _write(fd: int, text: str) -> None:
    data = memoryview(text.encode("utf-8", "backslashreplace"))
    while data:
        data = data[os.write(fd, data) :]


def complain(message: str) -> None:
    """One line on stderr, whatever the message holds."""
    write_error(f"execdrv: {visible(message)}\n")


def describe_error(error: Exception) -> str:
    """An error as one line: what, and what to do."""
    if isinstance(error, ExecdrvError):
        parts = [error.message or type(error).__name__, error.hint, *_more_about(error)]
        return "; ".join(part for part in parts if part)
    if isinstance(error, OSError):
        place = f": {os.fsdecode(error.filename)!r}" if error.filename else ""
        return f"cannot go on: {(error.strerror or str(error)).lower()}{place}"
    return (
        f"cannot go on: {type(error).__name__}: {error}; "
        "this is a fault of execdrv or of a plugin: --debug shows where"
    )


def _more_about(error: ExecdrvError) -> Iterator[str]:
    if isinstance(error, UnsupportedError):
        if error.alternatives and "drivers that could" not in error.hint:
            yield f"drivers that could: {', '.join(error.alternatives)}"
        if error.refusals and len(error.refusals) > 1:
            yield "--dry-run shows all"
    leftovers: list[str] = getattr(error, "leftovers", None) or []
    if len(leftovers) > 1:
        yield f"in all: {', '.join(leftovers)}"


# --- forms -------------------------------------------------------------------------------------


def write_json(data: Any) -> None:
    """Plain data on stdout, as JSON for people and programs; everything but ASCII escaped."""
    import json

    write_out(json.dumps(data, indent=2, allow_nan=False) + "\n")


def write_table(rows: Sequence[Sequence[str]]) -> None:
    """Rows in columns, the first one the head; values are made visible."""
    shown = [[visible(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in shown) for column in range(len(shown[0]) - 1)]
    lines = (
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in shown
    )
    write_out("".join(f"{line.rstrip()}\n" for line in lines))


def format_rough_size(size_bytes: int) -> str:
    """A size as people compare it: 3.4M."""
    size = float(size_bytes)
    for suffix in ("", "K", "M", "G"):
        if size < 1024:
            return f"{size:.0f}{suffix}" if not suffix or size >= 100 else f"{size:.1f}{suffix}"
        size /= 1024
    return f"{size:.1f}T"


def format_age(seconds: float) -> str:
    """A time span in its largest unit: 40s, 5m, 3h, 2d."""
    for suffix, factor in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= factor:
            return f"{int(seconds // factor)}{suffix}"
    return f"{max(0, int(seconds))}s"


# --- progress ----------------------------------------------------------------------------------


class Progress:
    """Shows on stderr how work goes on: at once at a terminal, else if it takes over a second.

    A context manager; uses the alarm clock, so only for the one thread of the command, and while
    no supervisor is being forked.
    """

    def __init__(self, what: str = "making a root file system") -> None:
        self._what = what
        self._lines: list[str] = []
        self._shown = sys.stderr is not None and os.isatty(2)
        self._ends_at = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_clock()

    def __call__(self, line: str) -> None:
        """Something begins that takes time."""
        if not self._shown and not self._ends_at:
            self._ends_at = time.monotonic() + PATIENCE_S
            signal.signal(signal.SIGALRM, self._on_alarm)
            signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
        self._lines.append(line)
        if self._shown:
            self._show()

    def _on_alarm(self, _signum: int, _frame: FrameType | None) -> None:
        self._shown = True
        self._show()

    def _show(self) -> None:
        for line in self._lines:
            complain(f"{self._what}: {line}")
        self._lines.clear()

    def _stop_clock(self) -> None:
        if self._ends_at:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            self._ends_at = 0.0
