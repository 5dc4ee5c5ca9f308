"""`execdrv conformance sweep`: removes what runs have left that were killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from execdrv.cli.output import complain, visible, write_out

if TYPE_CHECKING:
    from argparse import Namespace

    from execdrv.cli.parser import Parser


def fill_parser(parser: Parser) -> None:
    """The options of `sweep`."""
    parser.description = (
        "Remove groups and directories xdc-... of runs that are dead, nothing else."
    )
    parser.add_argument("--dry-run", action="store_true", help="only show it")
    parser.finish(examples=["execdrv conformance sweep --dry-run"])


def execute(options: Namespace) -> int:
    """Remove it, or only show it, and print what it is."""
    from execdrv_conformance.sweep import sweep
    from execdrv_conformance.verdict import EXIT_LEAK

    swept = sweep(dry_run=options.dry_run)
    verb = "would remove" if options.dry_run else "removed"
    write_out("".join(visible(f"{verb} {path}") + "\n" for path in swept.removed))
    write_out("".join(visible(f"alive {path}") + "\n" for path in swept.alive))
    for line in swept.left:
        complain(f"left {line}")
    counts = f"{len(swept.removed)}, alive {len(swept.alive)}, left {len(swept.left)}"
    write_out(f"{verb} {counts}\n")
    return EXIT_LEAK if swept.left else 0
