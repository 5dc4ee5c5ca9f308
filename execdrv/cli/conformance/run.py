"""`execdrv conformance run`: measures what a driver guarantees, and judges it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from execdrv.cli.conformance.measure import measure, run_directory
from execdrv.cli.conformance.option import (
    STATUSES,
    add_driver_options,
    add_selection,
    check_writable,
    read_driver,
    select,
    write_file,
)
from execdrv.cli.output import complain, write_error, write_out

if TYPE_CHECKING:
    from argparse import Namespace

    from execdrv.cli.parser import Parser


def fill_parser(parser: Parser) -> None:
    """The options of `run`."""
    parser.description = "Measure what a driver guarantees, in a stand-in host, and judge it."
    parser.add_argument("driver", metavar="DRIVER", help="an installed driver, or MODULE:CLASS")
    parser.add_argument(
        "ids", metavar="ID", nargs="*", help="only these ids or domains (mem, net.*)"
    )
    add_selection(parser)
    add_driver_options(parser)
    parser.add_argument("--baseline", metavar="FILE", help="known failures, JSON or TOML")
    parser.add_argument("--out", metavar="FILE", help="write the report with its evidence, as JSON")
    parser.add_argument("--junit", metavar="FILE", help="write the verdicts as JUnit XML")
    parser.add_argument("--markdown", metavar="FILE", help="write the report as Markdown")
    parser.add_argument(
        "--suggest", action="store_true", help="print an Offers table of what was measured"
    )
    parser.add_argument(
        "--allow-incomplete", action="store_true", help="what can't be shown here is no failure"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show every verdict")
    parser.finish(
        examples=[
            "execdrv conformance run native",
            "execdrv conformance run mydrv pid 'net.*' --seed 7",
            "execdrv conformance run mydrv --profile base --suggest",
        ],
        notes=STATUSES,
    )


def execute(options: Namespace) -> int:
    """Measure, write the reports that were asked for, and say how it went."""
    from execdrv_conformance.baseline import load_baseline
    from execdrv_conformance.report.junit import format_junit
    from execdrv_conformance.report.markdown import format_markdown
    from execdrv_conformance.report.model import format_report
    from execdrv_conformance.report.text import format_summary
    from execdrv_conformance.suggest import suggest_offers
    from execdrv_conformance.verdict import (
        EXIT_INCOMPLETE,
        EXIT_NOTHING_SELECTED,
        EXIT_PROVEN,
    )

    ids = select(options)
    if not ids:
        complain("nothing is selected: no guarantee with a check is all that was asked for")
        return EXIT_NOTHING_SELECTED
    baseline = load_baseline(options.baseline) if options.baseline is not None else {}
    outputs = {"out": format_report, "junit": format_junit, "markdown": format_markdown}
    for name in outputs:
        check_writable(getattr(options, name), name)
    with run_directory() as directory:
        report = measure(
            read_driver(options.driver, options.driver_options),
            ids,
            options,
            directory=directory,
            baseline=baseline,
            verbose=options.verbose,
        )
    for name, make in outputs.items():
        if (path := getattr(options, name)) is not None:
            write_file(path, make(report), name)
    text = format_summary(report, allow_incomplete=options.allow_incomplete)
    if options.suggest:
        # The table alone on stdout, for a file.
        write_error(text)
        write_out(suggest_offers(report))
    else:
        write_out(text)
    status: int = report["conclusion"]["exit_status"]
    return EXIT_PROVEN if options.allow_incomplete and status == EXIT_INCOMPLETE else status
