"""`execdrv conformance verify`: whether each verdict of a report follows from its evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from execdrv.cli.output import visible, write_out
from execdrv.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from execdrv.cli.parser import Parser


def fill_parser(parser: Parser) -> None:
    """The arguments of `verify`."""
    parser.description = (
        "Recompute every verdict of a report from the evidence in it alone; exit status 1 if any "
        "does not follow."
    )
    parser.add_argument("reports", metavar="REPORT", nargs="+", help="reports")
    parser.finish(examples=["execdrv conformance verify report.json"])


def execute(options: Namespace) -> int:
    """Judge each report once more, and print what does not follow."""
    import json

    from execdrv_conformance.report.model import verify_report

    status = 0
    for path in options.reports:
        try:
            with open(path, encoding="utf-8") as file:
                report = json.load(file)
        except (OSError, ValueError) as error:
            words = error.strerror if isinstance(error, OSError) else str(error)
            raise UsageError(f"cannot read report {path!r}: {words}") from error
        faults = verify_report(report)
        for fault in faults:
            write_out(visible(f"{path}: {fault}") + "\n")
        if faults:
            status = 1
            write_out(visible(f"{path}: it does not follow from its evidence") + "\n")
        else:
            count = len(report["checks"])
            write_out(visible(f"{path}: all {count} verdicts follow from the evidence") + "\n")
    return status
