"""`execdrv conformance diff`: which verdicts differ between two reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from execdrv.cli.output import complain, write_out

if TYPE_CHECKING:
    from argparse import Namespace

    from execdrv.cli.parser import Parser


def fill_parser(parser: Parser) -> None:
    """The arguments of `diff`."""
    parser.description = "Say which verdicts differ between two reports; exit status 1 if any does."
    parser.add_argument("old", metavar="OLD", help="a report")
    parser.add_argument("new", metavar="NEW", help="another one")
    parser.finish(examples=["execdrv conformance diff before.json after.json"])


def execute(options: Namespace) -> int:
    """Print a line for each verdict that differs."""
    from execdrv_conformance.compare import are_same_machine, diff_reports
    from execdrv_conformance.report.model import read_report

    old, new = read_report(options.old), read_report(options.new)
    lines = diff_reports(old, new)
    write_out("".join(f"{line}\n" for line in lines))
    if not are_same_machine(old, new):
        complain("the reports are of different machines")
    count = len(lines)
    write_out(f"{count} {'guarantee differs' if count == 1 else 'guarantees differ'}\n")
    return 1 if lines else 0
