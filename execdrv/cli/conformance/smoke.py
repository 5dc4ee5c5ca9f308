"""`execdrv conformance smoke`: in some seconds, whether the binding is wrong or the driver is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from execdrv.cli.conformance.measure import ProgressBar, run_directory
from execdrv.cli.conformance.option import add_driver_options, choose_seed, read_driver
from execdrv.cli.output import visible, write_out
from execdrv.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from execdrv.cli.parser import Parser


def fill_parser(parser: Parser) -> None:
    """The options of `smoke`."""
    parser.description = (
        "Run one `true` on this machine and a handful of checks in a stand-in host, in some "
        "seconds; says whether the binding is wrong or the driver is."
    )
    parser.add_argument("driver", metavar="DRIVER", help="an installed driver, or MODULE:CLASS")
    add_driver_options(parser)
    parser.add_argument("--seed", metavar="N", type=int, help="of nonces and sizes")
    parser.finish(examples=["execdrv conformance smoke mypackage.driver:MyDriver"])


def execute(options: Namespace) -> int:
    """One `true` on this machine, then a handful of checks if it worked."""
    from execdrv.rootfs import make_root
    from execdrv_conformance.report.text import format_failures, format_line
    from execdrv_conformance.session import UnusableDriverError
    from execdrv_conformance.smoke import conclude_smoke, run_smoke, try_binding
    from execdrv_conformance.verdict import EXIT_FAILURES, EXIT_INCOMPLETE

    driver = read_driver(options.driver, options.driver_options)
    begun = time.monotonic()
    root = make_root(["python3"]).path
    trial = try_binding(driver, state=options.root, root=root)
    name = "OK" if not trial.blame else "FAILED"
    write_out(visible(f"{name:<17} on this machine: {trial.words}") + "\n")
    if trial.hint:
        write_out(visible(f"{'':<17} {trial.hint}") + "\n")
    report = None
    if not trial.blame:
        with run_directory() as directory, ProgressBar(driver.target, verbose=False) as bar:
            try:
                report = run_smoke(
                    driver,
                    directory=directory,
                    seed=choose_seed(options),
                    root=root,
                    progress=bar,
                )
            except UnusableDriverError as error:
                raise UsageError(str(error)) from error
        write_out("".join(f"{format_line(entry)}\n" for entry in report["checks"]))
        failures = format_failures(report)
        write_out(f"\n{failures}" if failures else "")
    took_s = time.monotonic() - begun
    words = conclude_smoke(trial, report)
    write_out(visible(f"{driver.target}: {words} ({took_s:.1f} s)") + "\n")
    if trial.blame == "machine":
        return EXIT_INCOMPLETE
    if trial.blame or report is None:
        return EXIT_FAILURES
    status: int = report["conclusion"]["exit_status"]
    return status
