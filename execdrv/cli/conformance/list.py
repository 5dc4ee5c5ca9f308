"""`execdrv conformance list`: the guarantees, with profile, kind and what is known of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from execdrv.cli.output import write_json, write_table
from execdrv.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from execdrv.cli.parser import Parser


def fill_parser(parser: Parser) -> None:
    """The options of `list`."""
    parser.description = "List the guarantees, with profile, kind and what is known of each."
    parser.add_argument("reports", metavar="REPORT", nargs="*", help="reports, for --stale")
    parser.add_argument(
        "--without-mutant",
        action="store_true",
        help="only those that no broken driver turns red: they are not scored",
    )
    parser.add_argument(
        "--stale", action="store_true", help="only those that no REPORT has a verdict for"
    )
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    parser.finish(
        examples=[
            "execdrv conformance list --without-mutant",
            "execdrv conformance list --stale reports/*.json",
        ]
    )


def execute(options: Namespace) -> int:
    """Print the guarantees that were asked for."""
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
