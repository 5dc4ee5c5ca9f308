"""`execdrv conformance`: what a driver really guarantees, measured by the kit.

Only reads the command line and shows what the kit returns; the kit is imported by who runs it. Exit
statuses are the kit's, and those of pytest where they mean the same: 0 all proven or honestly not
claimed, 1 failures, 2 interrupted, 4 wrongly used, 5 nothing selected, 10 incomplete, 11 something
is left on the machine, 12 the kit failed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from execdrv.cli.output import (
    complain,
    describe_error,
    visible,
    write_error,
    write_json,
    write_out,
    write_table,
)
from execdrv.errors import ExecdrvError, UsageError

if TYPE_CHECKING:
    from argparse import Namespace
    from pathlib import Path

    from execdrv.cli.parser import Parser
    from execdrv.driver import DriverRef
    from execdrv_conformance.run import Step

#: As in the kit's verdict module, which is not loaded for a wrong command line.
_INTERRUPTED = 2
_KIT_ERROR = 12
#: Seconds between two lines of progress where no terminal is.
_PATIENCE_S = 15.0

_STATUSES = (
    "exit status: 0 all proven or honestly not claimed, 1 failures, 2 interrupted, 4 wrongly used,",
    "  5 nothing selected, 10 incomplete, 11 something is left on the machine, 12 the kit failed",
)


def fill_parser(parser: Parser) -> None:
    """The subcommands of `conformance` and their options."""
    kinds = parser.add_subparsers(dest="action", metavar="ACTION")
    _fill_run(kinds.add_parser("run", help="measure a driver and judge it"))
    _fill_smoke(
        kinds.add_parser("smoke", help="a few seconds: is the binding wrong, or the driver")
    )
    _fill_repro(kinds.add_parser("repro", help="run one check again and show its evidence"))
    _fill_list(kinds.add_parser("list", help="list the guarantees that have checks"))
    diff = kinds.add_parser("diff", help="say what differs between two reports")
    diff.description = "Say which verdicts differ between two reports; exit status 1 if any does."
    diff.add_argument("old", metavar="OLD", help="a report")
    diff.add_argument("new", metavar="NEW", help="another one")
    diff.finish(examples=["execdrv conformance diff before.json after.json"])
    verify = kinds.add_parser("verify", help="judge reports once more, from their evidence")
    verify.description = (
        "Recompute every verdict of a report from the evidence in it alone; exit status 1 if any "
        "does not follow."
    )
    verify.add_argument("reports", metavar="REPORT", nargs="+", help="reports")
    verify.finish(examples=["execdrv conformance verify report.json"])
    sweep = kinds.add_parser("sweep", help="remove what killed runs have left")
    sweep.description = "Remove groups and directories xdc-... of runs that are dead, nothing else."
    sweep.add_argument("--dry-run", action="store_true", help="only show it")
    sweep.finish(examples=["execdrv conformance sweep --dry-run"])
    parser.finish(
        examples=[
            "execdrv conformance smoke mydrv",
            "execdrv conformance run mydrv --out report.json",
            "execdrv conformance run mypackage.driver:MyDriver --profile base",
            "execdrv conformance repro mem.limit-oom --driver mydrv --keep",
        ],
        notes=_STATUSES,
    )


def _fill_run(run: Parser) -> None:
    run.description = "Measure what a driver guarantees, in a stand-in host, and judge it."
    run.add_argument("driver", metavar="DRIVER", help="an installed driver, or MODULE:CLASS")
    run.add_argument("ids", metavar="ID", nargs="*", help="only these ids or domains (mem, net.*)")
    add_selection(run)
    _add_driver_options(run)
    run.add_argument("--baseline", metavar="FILE", help="known failures, JSON or TOML")
    run.add_argument("--out", metavar="FILE", help="write the report with its evidence, as JSON")
    run.add_argument("--junit", metavar="FILE", help="write the verdicts as JUnit XML")
    run.add_argument("--markdown", metavar="FILE", help="write the report as Markdown")
    run.add_argument(
        "--suggest", action="store_true", help="print an Offers table of what was measured"
    )
    run.add_argument(
        "--allow-incomplete", action="store_true", help="what can't be shown here is no failure"
    )
    run.add_argument("-v", "--verbose", action="store_true", help="show every verdict")
    run.finish(
        examples=[
            "execdrv conformance run native",
            "execdrv conformance run mydrv pid 'net.*' --seed 7",
            "execdrv conformance run mydrv --profile base --suggest",
        ],
        notes=_STATUSES,
    )


def add_selection(parser: Parser) -> None:
    """Options that say what is measured, and how."""
    parser.add_argument(
        "--profile",
        metavar="NAME",
        dest="profiles",
        action="append",
        default=[],
        help="only base, fs, limits, container, hardened or hostile; repeatable",
    )
    parser.add_argument("-k", "--match", metavar="WORD", default="", help="only ids with this word")
    parser.add_argument(
        "--no-hostile", action="store_true", help="without the adversarial checks (esc.*)"
    )
    parser.add_argument("--seed", metavar="N", type=int, help="of nonces, sizes and order")
    parser.add_argument(
        "-n",
        "--workers",
        metavar="N",
        type=int,
        help="how many at once (default: half the cpus, 4 at most)",
    )


def _add_driver_options(parser: Parser) -> None:
    parser.add_argument(
        "--driver-option",
        metavar="KEY=VALUE",
        dest="driver_options",
        action="append",
        default=[],
        help="an option that only this driver knows; repeatable",
    )


def _fill_smoke(smoke: Parser) -> None:
    smoke.description = (
        "Run one `true` on this machine and a handful of checks in a stand-in host, in some "
        "seconds; says whether the binding is wrong or the driver is."
    )
    smoke.add_argument("driver", metavar="DRIVER", help="an installed driver, or MODULE:CLASS")
    _add_driver_options(smoke)
    smoke.add_argument("--seed", metavar="N", type=int, help="of nonces and sizes")
    smoke.finish(examples=["execdrv conformance smoke mypackage.driver:MyDriver"])


def _fill_repro(repro: Parser) -> None:
    repro.description = "Run one check again, and show all that was asked, seen and judged."
    repro.add_argument("ids", metavar="ID", nargs="+", help="a guarantee")
    repro.add_argument("--driver", metavar="NAME", help="the driver, or MODULE:CLASS")
    _add_driver_options(repro)
    repro.add_argument("--seed", metavar="N", type=int, help="that of the run to be repeated")
    repro.add_argument("--keep", action="store_true", help="keep the evidence, and say where")
    repro.finish(
        examples=["execdrv conformance repro mem.limit-oom --driver mydrv --seed 7 --keep"],
        notes=["EXECDRV_DRIVER names the driver without --driver; else it is native"],
    )


def _fill_list(listing: Parser) -> None:
    listing.description = "List the guarantees, with profile, kind and what is known of each."
    listing.add_argument("reports", metavar="REPORT", nargs="*", help="reports, for --stale")
    listing.add_argument(
        "--without-mutant",
        action="store_true",
        help="only those that no broken driver turns red: they are not scored",
    )
    listing.add_argument(
        "--stale", action="store_true", help="only those that no REPORT has a verdict for"
    )
    listing.add_argument("--json", action="store_true", help="print the list as JSON")
    listing.finish(
        examples=[
            "execdrv conformance list --without-mutant",
            "execdrv conformance list --stale reports/*.json",
        ]
    )


def execute(options: Namespace) -> int:
    """Do what was asked."""
    actions = {
        "run": _run,
        "smoke": _smoke,
        "repro": _repro,
        "list": _list,
        "diff": _diff,
        "verify": _verify,
        "sweep": _sweep,
    }
    if options.action is None:
        raise UsageError(
            "cannot read the command line: conformance needs an action",
            hint=f"actions are {', '.join(actions)}",
        )
    try:
        with interruptible():
            return actions[options.action](options)
    except KeyboardInterrupt:
        complain("interrupted: no report was written, and all was ended")
        return _INTERRUPTED
    except (ExecdrvError, BrokenPipeError):
        raise
    except Exception as error:
        if options.debug:
            raise
        complain(f"the kit failed: {describe_error(error)}")
        return _KIT_ERROR


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends a run as SIGINT does, by KeyboardInterrupt: what it has made is removed first.

    A second signal is not heard: cutting the removal short would leave things on the machine.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)

    def interrupt(_number: int, _frame: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- run ---------------------------------------------------------------------------------------


def _run(options: Namespace) -> int:
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
        _check_writable(getattr(options, name), name)
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


def select(options: Namespace, ids: list[str] | None = None) -> list[str]:
    """The ids that the options mean."""
    from execdrv_conformance.select import select_ids

    return select_ids(
        profiles=options.profiles,
        ids=options.ids if ids is None else ids,
        hostile=not options.no_hostile,
        substring=options.match,
    )


def measure(
    driver: DriverRef,
    ids: list[str],
    options: Namespace,
    *,
    directory: Path,
    baseline: dict[str, dict[str, Any]] | None = None,
    control: Path | None = None,
    verbose: bool = False,
) -> dict[str, Any]:
    """Run the checks of a driver, with progress on stderr.

    Raises:
        UsageError: the driver can't be loaded; a number is out of range.
    """
    from execdrv_conformance.run import default_workers, run_driver
    from execdrv_conformance.session import UnusableDriverError

    workers = default_workers() if options.workers is None else options.workers
    if workers < 1:
        raise UsageError(f"cannot use option '--workers' with {workers}: at least one is needed")
    words = {
        "profiles": options.profiles,
        "match": options.match,
        "hostile": not options.no_hostile,
    }
    try:
        with ProgressBar(driver.target, verbose=verbose) as bar:
            return run_driver(
                driver,
                ids=ids,
                seed=choose_seed(options),
                directory=directory,
                workers=workers,
                baseline=baseline,
                control=control,
                progress=bar,
                words=words,
            )
    except UnusableDriverError as error:
        raise UsageError(str(error), hint="`execdrv drivers` lists those installed") from error


def choose_seed(options: Namespace) -> int:
    """The seed that was given, else one by chance; kept for who asks again."""
    if options.seed is None:
        options.seed = int.from_bytes(os.urandom(4), "big")
    return int(options.seed)


def read_driver(target: str, words: list[str]) -> DriverRef:
    """A driver with its options."""
    from execdrv.cli.request import parse_driver_option
    from execdrv.driver import DriverRef

    return DriverRef(target=target, options=dict(map(parse_driver_option, words)))


@contextlib.contextmanager
def run_directory() -> Iterator[Path]:
    """A run directory that is removed in the end."""
    from execdrv_conformance.store import make_run_directory, remove_run_directory

    directory = make_run_directory()
    try:
        yield directory
    finally:
        remove_run_directory(directory)


def _check_writable(path: str | None, option: str) -> None:
    """Refuse a file that can't be written before minutes are spent."""
    if path is not None and not os.access(os.path.dirname(os.path.abspath(path)), os.W_OK):
        raise UsageError(
            f"cannot use option '--{option}' with {path!r}: its directory can't be written"
        )


def write_file(path: str, text: str, option: str) -> None:
    """Write a file of the user's.

    Raises:
        UsageError: it can't be written.
    """
    try:
        with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(
            f"cannot use option '--{option}' with {path!r}: {error.strerror}"
        ) from error


class ProgressBar:
    """How far a run is, on stderr: one line that changes at a terminal, else a line now and then.

    A context manager.
    """

    def __init__(self, title: str, *, verbose: bool) -> None:
        self._title = visible(title)
        self._verbose = verbose
        self._moves = os.isatty(2) and not verbose
        self._spoke_at = time.monotonic()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._moves:
            write_error("\r\x1b[K")

    def __call__(self, step: Step) -> None:
        """One check is done."""
        result = step.result
        if self._verbose:
            name = f"{result.verdict:<17} {result.id}"
            write_error(visible(f"{name:<42} {result.reason}"[:300].rstrip()) + "\n")
        elif self._moves:
            write_error(f"\r\x1b[K{self._say(step)}")
        elif time.monotonic() - self._spoke_at > _PATIENCE_S:
            self._spoke_at = time.monotonic()
            complain(self._say(step))

    def _say(self, step: Step) -> str:
        done = step.done * 20 // max(1, step.total)
        left = "" if step.left_s is None else f", about {step.left_s:.0f} s left"
        bar = "#" * done + "." * (20 - done)
        return f"{self._title} [{bar}] {step.done}/{step.total}{left}  {step.result.id}"[:100]


# --- smoke, repro ------------------------------------------------------------------------------


def _smoke(options: Namespace) -> int:
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


def _repro(options: Namespace) -> int:
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


# --- list, diff, verify, sweep -----------------------------------------------------------------


def _list(options: Namespace) -> int:
    from execdrv.guarantees.catalogue import load_catalogue
    from execdrv_conformance.checks import load_checks
    from execdrv_conformance.report.model import read_report

    if options.stale and not options.reports:
        raise UsageError(
            "cannot tell what is stale: no report is named",
            hint="execdrv conformance list --stale REPORT...",
        )
    if options.reports and not options.stale:
        raise UsageError("cannot use a report here: only --stale looks at reports")
    checks = load_checks()
    measured = {
        entry["id"]
        for path in options.reports
        for entry in read_report(path)["checks"]
        if entry["verdict"] not in ("NOT-RUN", "UNPROVEN-HOST")
    }
    found = [
        {
            "id": id,
            "profile": entry.profile,
            "kind": entry.kind,
            "check": id in checks,
            "one_sided": entry.one_sided,
            "mutants": list(entry.mutants),
            "provisional": entry.provisional_why,
        }
        for id, entry in load_catalogue().items()
        if not (options.without_mutant and entry.mutants and not entry.provisional_why)
        and not (options.stale and id in measured)
    ]
    if options.json:
        write_json(found)
        return 0
    rows = [("GUARANTEE", "PROFILE", "KIND", "CHECK", "MUTANTS")]
    rows += [
        (
            str(one["id"]),
            str(one["profile"]),
            str(one["kind"]),
            "one-sided" if one["check"] and one["one_sided"] else ("yes" if one["check"] else "no"),
            _say_mutants(one),
        )
        for one in found
    ]
    write_table(rows)
    return 0


def _say_mutants(one: dict[str, Any]) -> str:
    names = ", ".join(one["mutants"])
    if one["provisional"]:
        return f"{names + '; ' if names else ''}not scored: {one['provisional']}"
    return names


def _diff(options: Namespace) -> int:
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


def _verify(options: Namespace) -> int:
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


def _sweep(options: Namespace) -> int:
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
