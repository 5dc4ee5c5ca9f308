"""`execdrv conformance repro`: runs checks again, and shows all that was asked, seen and judged."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from execdrv.cli.conformance.option import add_driver_options, choose_seed, read_driver
from execdrv.cli.output import write_json, write_out
from execdrv.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from execdrv.cli.parser import Parser


def fill_parser(parser: Parser) -> None:
    """The options of `repro`."""
    parser.description = "Run one check again, and show all that was asked, seen and judged."
    parser.add_argument("ids", metavar="ID", nargs="+", help="a guarantee")
    parser.add_argument("--driver", metavar="NAME", help="the driver, or MODULE:CLASS")
    add_driver_options(parser)
    parser.add_argument("--seed", metavar="N", type=int, help="that of the run to be repeated")
    parser.add_argument("--keep", action="store_true", help="keep the evidence, and say where")
    parser.finish(
        examples=["execdrv conformance repro mem.limit-oom --driver mydrv --seed 7 --keep"],
        notes=["EXECDRV_DRIVER names the driver without --driver; else it is native"],
    )


def execute(options: Namespace) -> int:
    """Run the checks with the seed, and print their evidence."""
    from execdrv_conformance.report.model import format_report
    from execdrv_conformance.report.text import explain_entry, last_line
    from execdrv_conformance.run import run_driver
    from execdrv_conformance.select import select_ids
    from execdrv_conformance.session import UnusableDriverError
    from execdrv_conformance.store import (
        make_run_directory,
        release_run,
        remove_run_directory,
    )

    target = options.driver or os.environ.get("EXECDRV_DRIVER") or "native"
    driver = read_driver(target, options.driver_options)
    ids = select_ids(ids=options.ids)
    directory = make_run_directory()
    try:
        report = run_driver(driver, ids=ids, seed=choose_seed(options), directory=directory)
        for entry in report["checks"]:
            write_out(
                explain_entry(entry, driver=report["driver"]["declaration"], seed=options.seed)
                + "\n\n"
            )
        for key, evidence in report["evidence"].items():
            write_out(f"evidence {key}:\n")
            write_json({"checks": evidence.get("checks"), "calls": evidence.get("calls")})
        if options.keep:
            (directory / "report.json").write_text(format_report(report))
    except UnusableDriverError as error:
        raise UsageError(str(error)) from error
    finally:
        if options.keep:
            release_run(directory)
        else:
            remove_run_directory(directory)
    if options.keep:
        write_out(f"kept: {directory} (`execdrv conformance sweep` removes it)\n")
    write_out(f"{last_line(report)}\n")
    status: int = report["conclusion"]["exit_status"]
    return status
