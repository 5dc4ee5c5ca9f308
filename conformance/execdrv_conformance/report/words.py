"""Words of reports: text of others made harmless, and numbers as people read them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from execdrv_conformance.verdict import CLASSES, Verdict

#: More of an observer's words than this is in the JSON report alone.
MOST_WORDS = 600


def printable(text: str) -> str:
    r"""The text with every character that does not print written as an escape (``\x1b``).

    Jobs and drivers choose what is in it: no byte of theirs may reach a terminal or an XML parser
    as anything but text.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    return ascii(char)[1:-1]


def shorten(text: str) -> str:
    """At most MOST_WORDS characters."""
    return text if len(text) <= MOST_WORDS else f"{text[: MOST_WORDS - 3]}..."


def count_words(counts: Mapping[str, int]) -> str:
    """Counts by verdict: what is good first, what is worst last."""
    order: list[Verdict] = sorted(
        CLASSES, key=lambda verdict: (verdict != "PROVEN", list(CLASSES).index(verdict))
    )
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in order if counts.get(verdict))


def describe_fields(fields: Mapping[str, Any]) -> str:
    """Fields of a spec in one line."""
    return ", ".join(f"{name}={value!r}" for name, value in fields.items())


def describe_time(seconds: float) -> str:
    """0.4 s, 34 s, 2 min 5 s."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def find_name(text: str) -> str:
    """A driver's target as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.") or "driver"
