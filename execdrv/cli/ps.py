"""`execdrv ps`: the containers of a state directory, lost and broken ones too. Changes nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from execdrv import wire
from execdrv.cli.output import format_age, quoted, visible, write_json, write_out, write_table
from execdrv.registry import Registry
from execdrv.state import Entry

if TYPE_CHECKING:
    from argparse import Namespace

    from execdrv.cli.parser import Parser


def fill_parser(parser: Parser) -> None:
    """The options of `ps`."""
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    parser.add_argument("-q", "--names", action="store_true", help="print ids only")
    parser.finish(
        examples=["execdrv ps", "execdrv ps --json", "execdrv ps -q | xargs execdrv destroy"],
        notes=[
            "states: creating, created, isolated, ready, running, stopped, destroying;",
            "lost: its supervisor died (`execdrv gc` removes it); broken: its record is unreadable",
        ],
    )


def execute(options: Namespace) -> int:
    """Print the list."""
    registry = Registry(options.root)
    if options.names:
        write_out("".join(f"{visible(name)}\n" for name in registry.names()))
        return 0
    entries = registry.entries()
    if options.json:
        write_json([plain(entry) for entry in entries])
        return 0
    rows = [("ID", "DRIVER", "STATE", "AGE", "COMMAND"), *map(_row, entries)]
    write_table(rows)
    return 0


def plain(entry: Entry) -> dict[str, Any]:
    """One container as plain data."""
    record = entry.record
    if record is None:
        return {"id": entry.id, "state": entry.state, "problem": entry.problem}
    return {
        "id": entry.id,
        "state": entry.state,
        "driver": record.driver.target,
        "created_at": record.created_at,
        "age_s": _age_s(record.created_at),
        "command": wire.encode(record.spec.argv),
        "exit": wire.encode(record.exit),
    }


def _age_s(created_at: float) -> float:
    # The clock may have been set back.
    return round(max(0.0, time.time() - created_at), 3)


def _row(entry: Entry) -> tuple[str, ...]:
    record = entry.record
    if record is None:
        return entry.id, "-", entry.state, "-", entry.problem
    age = format_age(_age_s(record.created_at))
    return entry.id, record.driver.target, entry.state, age, quoted(record.spec.argv)
