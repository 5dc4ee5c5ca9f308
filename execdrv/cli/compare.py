"""`execdrv compare`: what several drivers really guarantee, side by side.

Runs the conformance kit for drivers that are named, and reads reports that are named; the kit makes
the matrix. The control arm, which has no driver, is measured once for all of them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from execdrv.cli.output import complain, write_json, write_out
from execdrv.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from execdrv.cli.parser import Parser


def fill_parser(parser: Parser) -> None:
    """The options of `compare`."""
    from execdrv.cli.conformance.option import add_selection

    parser.add_argument(
        "sources",
        metavar="DRIVER|REPORT.json",
        nargs="*",
        help="drivers to be measured, and reports of runs (default: all drivers that work here)",
    )
    parser.add_argument(
        "--id",
        metavar="ID",
        dest="ids",
        action="append",
        default=[],
        help="measure only this id or domain; repeatable",
    )
    add_selection(parser)
    parser.add_argument(
        "--only-different", action="store_true", help="show only where the drivers differ"
    )
    parser.add_argument("--reports", metavar="DIR", help="keep the reports of what is run in DIR")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--markdown", action="store_true", help="print the matrix as Markdown")
    shape.add_argument("--json", action="store_true", help="print the matrix as JSON")
    parser.finish(
        examples=[
            "execdrv compare native lxc chroot",
            "execdrv compare native.json mydrv --only-different",
            "execdrv compare --id 'mem.*' --markdown >memory.md",
        ],
        notes=["exit status: 1 if a driver is not as it says, or could not be measured"],
    )


def execute(options: Namespace) -> int:
    """Print the matrix."""
    from execdrv_conformance.compare import (
        compare_reports,
        format_markdown,
        format_text,
        has_bad_cells,
        refuse_mix,
    )

    sources = options.sources or _list_drivers()
    stored = {source: _read(source) for source in sources if _is_report(source)}
    refuse_mix(list(stored.values()))
    measured = _measure([one for one in sources if one not in stored], options)
    reports = [stored[one] if one in stored else measured[one] for one in sources]
    matrix = compare_reports(reports, only_different=options.only_different)
    if options.json:
        write_json(matrix)
    elif options.markdown:
        write_out(format_markdown(matrix))
    else:
        colour = os.isatty(1) and not os.environ.get("NO_COLOR")
        write_out(format_text(matrix, colour=colour))
    return 1 if has_bad_cells(compare_reports(reports)) else 0


def _is_report(source: str) -> bool:
    return source.endswith(".json") or "/" in source


def _read(path: str) -> dict[str, Any]:
    from execdrv_conformance.report.model import read_report

    return read_report(path)


def _list_drivers() -> list[str]:
    """The installed drivers that can work here."""
    from execdrv.cli.survey import survey

    found = [one.name for one in survey() if one.is_driver and one.problem is None]
    if not found:
        raise UsageError("cannot compare: no driver works here", hint="see `execdrv drivers`")
    return found


def _measure(drivers: list[str], options: Namespace) -> dict[str, dict[str, Any]]:
    """The report of each driver, run one after the other."""
    from execdrv.cli.conformance.measure import interruptible, measure, run_directory
    from execdrv.cli.conformance.option import read_driver, select, write_file
    from execdrv_conformance.report.model import format_report
    from execdrv_conformance.report.words import find_name

    if not drivers:
        return {}
    if options.reports is not None and not os.path.isdir(options.reports):
        raise UsageError(f"cannot use option '--reports' with {options.reports!r}: no directory")
    ids = select(options)
    if not ids:
        raise UsageError("cannot compare: nothing is selected")
    found = {}
    with interruptible(), run_directory() as directory:
        control = directory / "control"
        control.mkdir(mode=0o755)
        for number, driver in enumerate(dict.fromkeys(drivers)):
            folder = directory / f"driver-{number}"
            folder.mkdir(mode=0o755)
            folder.chmod(0o755)
            found[driver] = report = measure(
                read_driver(driver, []), ids, options, directory=folder, control=control
            )
            if report["run"]["left_over"]:
                complain(f"{driver}: left on the machine: {report['run']['left_over'][0]}")
            if options.reports is not None:
                path = os.path.join(options.reports, f"{find_name(driver)}.json")
                write_file(path, format_report(report), "reports")
    return found
