"""The baseline: known failures, each with its reason, its issue and the day its excuse ends.

Pure, but for the file. A baseline only renames failures; what it says is judged like all else: a
line whose check does not fail is STALE, one whose day has passed is EXPIRED, and both fail.
"""

from __future__ import annotations

import datetime
import difflib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from execdrv.errors import UsageError
from execdrv.guarantees.catalogue import load_catalogue

_WORDS = ("reason", "issue", "expires")
_FLAGS = ("flaky",)


def load_baseline(path: str | Path) -> dict[str, dict[str, Any]]:
    """The lines of a baseline file by id: `reason`, `issue`, `expires`, and perhaps `flaky`.

    Args:
        path: JSON, or TOML if its name ends so.
    Raises:
        UsageError: it can't be read, or a line of it can't be right.
    """
    name = str(path)
    try:
        text = Path(path).read_text()
        data = tomllib.loads(text) if name.endswith(".toml") else json.loads(text)
    except OSError as error:
        raise UsageError(f"cannot read baseline {name!r}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"cannot read baseline {name!r}: {error}") from error
    try:
        return parse_baseline(data)
    except UsageError as error:
        raise UsageError(f"cannot use baseline {name!r}: {error}", hint=error.hint) from error


def parse_baseline(data: Any) -> dict[str, dict[str, Any]]:
    """The same from plain data.

    Raises:
        UsageError: a line can't be right.
    """
    if not isinstance(data, Mapping):
        raise UsageError("it is no table of ids")
    catalogue = load_catalogue()
    for id in data:
        if id not in catalogue:
            near = difflib.get_close_matches(str(id), catalogue, 1)
            raise UsageError(
                f"there is no guarantee {id!r}",
                hint=f"did you mean {near[0]!r}?" if near else "`list` shows all",
            )
    return {id: _parse_line(id, line) for id, line in data.items()}


def _parse_line(id: str, line: Any) -> dict[str, Any]:
    if not isinstance(line, Mapping):
        raise UsageError(f"{id}: its line is no table")
    if odd := sorted(set(line) - {*_WORDS, *_FLAGS}):
        raise UsageError(f"{id}: a line has no {odd[0]!r}", hint=f"it has {', '.join(_WORDS)}")
    # TOML has dates of its own.
    plain = {k: v.isoformat() if isinstance(v, datetime.date) else v for k, v in line.items()}
    for word in _WORDS:
        if not isinstance(plain.get(word), str) or not plain[word].strip():
            raise UsageError(f"{id}: its line has no {word!r}", hint="every excuse has all three")
    if not isinstance(plain.get("flaky", False), bool):
        raise UsageError(f"{id}: 'flaky' is true or false")
    try:
        day = datetime.date.fromisoformat(plain["expires"])
    except ValueError as error:
        raise UsageError(f"{id}: 'expires' is no day (YYYY-MM-DD): {plain['expires']!r}") from error
    return {**plain, "expires": day.isoformat()}
