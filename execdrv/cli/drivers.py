"""`execdrv drivers`: the installed drivers and plugins, and what each offers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from execdrv.cli.output import visible, write_json, write_out, write_table

if TYPE_CHECKING:
    from argparse import Namespace

    from execdrv.cli.parser import Parser
    from execdrv.cli.survey import Found

#: Kinds of a status that a request passes with, at least in some cases.
_KEPT = ("enforced", "when", "partial")


def fill_parser(parser: Parser) -> None:
    """The options of `drivers`."""
    parser.add_argument("-v", "--verbose", action="store_true", help="show every guarantee")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.add_argument("--names", action="store_true", help="print names only, look at nothing")
    parser.add_argument("--no-plugins", action="store_true", help="only what execdrv itself brings")
    parser.finish(
        examples=["execdrv drivers", "execdrv drivers -v | grep net.", "execdrv drivers --json"]
    )


def execute(options: Namespace) -> int:
    """Print the list."""
    if options.names:
        from execdrv.plugins import list_entry_points

        names = {point.name for point in list_entry_points(plugins=not options.no_plugins)}
        write_out("".join(f"{visible(name)}\n" for name in sorted(names)))
        return 0
    from execdrv.cli.survey import survey

    found = survey(plugins=not options.no_plugins)
    if options.json:
        write_json([plain(one) for one in found])
        return 0
    drivers = [one for one in found if one.is_driver]
    rows = [("DRIVER", "VERSION", "FROM", "AVAILABLE")]
    for one in drivers:
        why = "yes" if one.problem is None else f"no: {one.problem}"
        rows.append((one.name, one.version or "-", ", ".join(one.providers), why))
    write_table(rows)
    for one in drivers:
        write_out(f"\n{one.name} offers:\n")
        write_out("".join(f"  {line}\n" for line in describe_offers(one, verbose=options.verbose)))
    others = [one for one in found if not one.is_driver]
    if others:
        write_out("\n")
        write_table([("PLUGIN", "FROM", "WHAT"), *map(_plugin_row, others)])
    return 0


def plain(found: Found) -> dict[str, Any]:
    """One driver or plugin as plain data."""
    return {
        "name": found.name,
        "kind": "driver" if found.is_driver else ("broken" if found.broken else "plugin"),
        "version": found.version,
        "distributions": list(found.providers),
        "available": found.is_driver and found.problem is None,
        "problem": found.problem,
        "wraps": list(found.wraps),
        "defaults": found.defaults,
        "options": found.options,
        **found.offers,
    }


def _plugin_row(found: Found) -> tuple[str, str, str]:
    what = f"wraps {', '.join(found.wraps)}" if found.wraps else "brings nothing"
    if found.broken:
        what = f"broken: {found.problem}"
    return found.name, ", ".join(found.providers), what


def describe_offers(found: Found, *, verbose: bool) -> Iterator[str]:
    """The offers for people: how many of each domain, or each one."""
    offers: dict[str, dict[str, Any]] = found.offers.get("offers", {})
    if verbose:
        for guarantee, status in offers.items():
            yield f"{guarantee:<22} {visible(describe_status(status))}"
        for name, text in found.options.items():
            yield f"--driver-option {name}=...  {visible(text)}"
        return
    kept: dict[str, list[bool]] = {}
    for guarantee, status in offers.items():
        kept.setdefault(guarantee.partition(".")[0], []).append(status["kind"] in _KEPT)
    counts = [f"{domain} {sum(flags)}/{len(flags)}" for domain, flags in kept.items()]
    cells = [counts[at : at + 8] for at in range(0, len(counts), 8)]
    for row in cells:
        yield "".join(cell.ljust(12) for cell in row).rstrip()


def describe_status(status: dict[str, Any]) -> str:
    """One status in words."""
    match status["kind"]:
        case "when":
            return f"when {status['condition']} (else: {status['reason']})"
        case "partial":
            return f"partial: {status['reason']} (remains: {status['remains']})"
        case "enforced":
            return "enforced"
    return f"{status['kind']}: {status['reason']}"
