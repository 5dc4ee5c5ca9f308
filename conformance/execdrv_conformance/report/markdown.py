"""A report as Markdown: a page a driver's author can put beside the code. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from execdrv.guarantees.catalogue import DOMAINS
from execdrv_conformance.report.text import explain_entry, last_line
from execdrv_conformance.report.words import printable, shorten


def format_markdown(report: Mapping[str, Any]) -> str:
    """The page."""
    driver, kit, machine = report["driver"]["declaration"], report["kit"], report["machine"]
    failures = [entry for entry in report["checks"] if entry["class"] in ("fail", "kit")]
    parts = [
        f"# Conformance of {escape(driver['target'])}",
        escape(last_line(report)) + ".",
        table(
            ("what", "which"),
            [
                ("driver", f"{driver['name']} {driver['version']}, contract {driver['contract']}"),
                ("catalogue", kit["catalogue"]),
                ("kit", f"execdrv {kit['execdrv']}, {kit['digest']}"),
                ("machine", f"{machine['id']}: {machine.get('kernel', 'unknown kernel')}"),
                ("begun", report["run"]["started"]),
            ],
        ),
        "## Domains",
        table(
            ("domain", "about", "proven", "provisional", "declared", "catalogue"),
            [
                (domain, DOMAINS[domain], *(str(count[name]) for name in _COUNTS))
                for domain, count in report["counts"]["domains"].items()
            ],
        ),
    ]
    if failures:
        seed = report["run"]["seed"]
        parts.append("## Failures")
        parts += [
            f"```text\n{explain_entry(one, driver=driver, seed=seed)}\n```" for one in failures
        ]
    parts += ["## Guarantees", table(("guarantee", "verdict", "seen"), map(_row, report["checks"]))]
    return "\n\n".join(parts) + "\n"


_COUNTS = ("proven", "provisional", "declared", "catalogue")


def _row(entry: Mapping[str, Any]) -> tuple[str, str, str]:
    notes = [
        *(["provisional"] if not entry["scored"] else []),
        *(["one-sided"] if entry["one_sided"] else []),
    ]
    verdict = f"{entry['verdict']} ({', '.join(notes)})" if notes else entry["verdict"]
    return entry["id"], verdict, shorten(entry["reason"])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; every cell is made harmless."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(escape(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def escape(text: str) -> str:
    """Text that means nothing to Markdown and HTML."""
    shown = printable(text)
    for special in ("\\", "`", "*", "_", "[", "]", "|", "#"):
        shown = shown.replace(special, f"\\{special}")
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
