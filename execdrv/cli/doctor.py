"""`execdrv doctor`: what this machine can and can't do for containers, with the way out.

A fact that lacks counts against the machine only if a built-in driver offers a guarantee that needs
it. Asks the kernel; changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from execdrv.cli.output import visible, write_json, write_out
from execdrv.guarantees.ids import IDS
from execdrv.machine import Finding, describe_machine

if TYPE_CHECKING:
    from argparse import Namespace

    from execdrv.cli.parser import Parser
    from execdrv.cli.survey import Found

#: What nothing works without.
_ALWAYS = ("kernel", "architecture", "root", "init")


def fill_parser(parser: Parser) -> None:
    """The options of `doctor`."""
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.add_argument(
        "--no-plugins", action="store_true", help="ask only what execdrv itself brings"
    )
    parser.finish(
        examples=["execdrv doctor"],
        notes=["exit status: 1 if something is lacking that a built-in driver needs"],
    )


def execute(options: Namespace) -> int:
    """Print what was found; 1 if something is lacking."""
    from execdrv.cli.survey import survey

    drivers = [one for one in survey(plugins=not options.no_plugins) if one.is_driver or one.broken]
    findings = [*describe_machine(), describe_init()]
    needs = list_needs(drivers, findings)
    lacking = [one for one in findings if not one.present and needs[one.name]]
    failed = [one for one in drivers if one.builtin and one.problem is not None]
    healthy = not lacking and not failed
    if options.json:
        write_json(
            {
                "ok": healthy,
                "machine": [
                    {**attrs.asdict(one), "needed_by": needs[one.name]} for one in findings
                ],
                "drivers": [
                    {"name": one.name, "available": one.problem is None, "problem": one.problem}
                    for one in drivers
                ],
            }
        )
        return 0 if healthy else 1
    write_out("".join(_describe(one, needs[one.name]) for one in findings))
    write_out("".join(_describe_driver(one) for one in drivers))
    names = [*(one.name for one in lacking), *(one.name for one in failed)]
    write_out(f"\nlacking: {', '.join(names)}\n" if names else "\nnothing is lacking\n")
    return 0 if healthy else 1


def describe_init() -> Finding:
    """Whether the init can be opened as an executable file in memory."""
    import os

    from execdrv.errors import ExecdrvError
    from execdrv.init import open_init

    text = "execdrv's own init, in a sealed file in memory"
    try:
        os.close(open_init())
    except ExecdrvError as error:
        return Finding(name="init", present=False, text=f"{text}: {error}", hint=error.hint)
    return Finding(name="init", present=True, text=text)


def list_needs(drivers: list[Found], findings: list[Finding]) -> dict[str, list[str]]:
    """Which built-in drivers need what was looked at, by its name."""
    needs: dict[str, list[str]] = {one.name: [] for one in findings}
    for driver in drivers:
        if driver.builtin:
            facts = {*_ALWAYS}
            for guarantee, status in driver.offers.get("offers", {}).items():
                if status["kind"] in ("enforced", "when", "partial") and guarantee in IDS:
                    facts.update(IDS[guarantee][1])
            for fact in facts:
                needs.setdefault(fact, []).append(driver.name)
    return needs


def _describe(finding: Finding, needed_by: list[str]) -> str:
    mark = "ok" if finding.present else ("LACKS" if needed_by else "no")
    line = f"{mark:<6} {finding.name:<15} {visible(finding.text)}\n"
    if finding.present:
        return line
    who = f" (needed by {', '.join(needed_by)})" if needed_by else " (no driver here needs it)"
    return f"{line}{'':<23}{visible(finding.hint)}{who}\n"


def _describe_driver(found: Found) -> str:
    if found.problem is None:
        return f"{'ok':<6} {'driver':<15} {found.name} {visible(found.version)}\n"
    mark = "LACKS" if found.builtin else "no"
    return f"{mark:<6} {'driver':<15} {visible(found.name)}: {visible(found.problem)}\n"
