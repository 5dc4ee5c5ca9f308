"""Reports side by side: `diff` of two, and the matrix of guarantees and drivers of several.

Pure: reports in, plain data and text out. Reports of different catalogues are never mixed, for an
id may mean less in one; those of different machines are marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from execdrv.errors import UsageError
from execdrv.guarantees.catalogue import DOMAINS, load_catalogue
from execdrv_conformance.report.markdown import table
from execdrv_conformance.report.words import printable, shorten
from execdrv_conformance.verdict import Verdict

Report = Mapping[str, Any]

#: What stands in a cell of the matrix for each verdict.
CELLS: dict[Verdict, str] = {
    "PROVEN": "proven",
    "ABSENT-CONFIRMED": "absent",
    "INCIDENTAL": "absent",
    "PARTIAL-CONFIRMED": "partial",
    "NOT-APPLICABLE": "-",
    "UNCLAIMED": "unclaimed",
    "KNOWN-FAILING": "known failing",
    "VIOLATED": "FALSE CLAIM",
    "UNDER-CLAIMED": "FALSE CLAIM",
    "FAILS-OPEN": "FALSE CLAIM",
    "CONFLICT": "CONFLICT",
    "UNTESTABLE": "UNTESTABLE",
    "STALE": "STALE",
    "EXPIRED": "EXPIRED",
    "KIT-ERROR": "KIT ERROR",
    "UNPROVEN-HOST": "not here",
    "UNCALIBRATED": "not here",
    "FLAKY": "flaky",
    "NOT-RUN": "not run",
}
#: Cells by what they stand for: as colours of a terminal, and for the exit status.
GOOD = ("proven",)
BAD = ("FALSE CLAIM", "CONFLICT", "UNTESTABLE", "STALE", "EXPIRED", "KIT ERROR")
OPEN = ("not here", "flaky", "not run")
_NOT_SELECTED = "not run"

_COLOURS = {**dict.fromkeys(GOOD, "32"), **dict.fromkeys(BAD, "1;31"), **dict.fromkeys(OPEN, "33")}

_LEGEND = (
    "proven: declared and shown by two observers; absent: declared so, and shown so; "
    "... if: on a condition of the spec, as declared; "
    "partial: just what is said to be open is open; not here: this machine can't show it; "
    "FALSE CLAIM: it is not as the driver says"
)


# --- diff --------------------------------------------------------------------------------------


def diff_reports(old: Report, new: Report) -> list[str]:
    """What has changed between two reports, one line a guarantee; empty: the same verdicts.

    Raises:
        UsageError: they are of different catalogues.
    """
    refuse_mix([old, new])
    before = {entry["id"]: entry for entry in old["checks"]}
    after = {entry["id"]: entry for entry in new["checks"]}
    lines = []
    for id in load_catalogue():
        one, other = before.get(id), after.get(id)
        if one is None and other is not None:
            lines.append(f"{id}: only in the new one, {other['verdict']}")
        elif other is None and one is not None:
            lines.append(f"{id}: only in the old one, {one['verdict']}")
        elif one is not None and other is not None and one["verdict"] != other["verdict"]:
            lines.append(
                f"{id}: {one['verdict']} -> {other['verdict']}: {shorten(other['reason'])}"
            )
    return [printable(line) for line in lines]


def refuse_mix(reports: Sequence[Report]) -> None:
    """Raise UsageError for reports of different catalogues."""
    versions = sorted({str(report["kit"]["catalogue"]) for report in reports})
    if len(versions) > 1:
        raise UsageError(
            f"cannot compare reports of different catalogues: {', '.join(versions)}",
            hint="run the older one again with this kit",
        )


def are_same_machine(one: Report, other: Report) -> bool:
    """Whether two reports say that they are of the same machine in the same state."""
    return describe_machine(one) == describe_machine(other) and (
        one["machine"]["facts"] == other["machine"]["facts"]
    )


def describe_machine(report: Report) -> str:
    """A machine in a few words."""
    machine = report["machine"]
    words = [machine["id"], machine.get("distribution", ""), machine.get("kernel", "")]
    return printable(", ".join(word for word in words if word))


# --- the matrix --------------------------------------------------------------------------------


def compare_reports(reports: Sequence[Report], *, only_different: bool = False) -> dict[str, Any]:
    """The matrix as plain data.

    Raises:
        UsageError: the reports are of different catalogues.
    """
    refuse_mix(reports)
    machines = _number_machines(reports)
    drivers = [
        {
            "label": label,
            "target": report["driver"]["declaration"]["target"],
            "version": report["driver"]["declaration"]["version"],
            "machine": machine,
            "run": report["run"]["name"],
            "counts": report["counts"]["verdicts"],
        }
        for report, label, machine in zip(
            reports, _name_columns(reports, machines), machines, strict=True
        )
    ]
    columns = [{entry["id"]: entry for entry in report["checks"]} for report in reports]
    rows: list[dict[str, Any]] = [
        {
            "id": id,
            "domain": guarantee.domain,
            "profile": guarantee.profile,
            "title": guarantee.title,
            "provisional": guarantee.provisional,
            "cells": [describe_cell(column.get(id)) for column in columns],
        }
        for id, guarantee in load_catalogue().items()
        if any(id in column for column in columns)
    ]
    if only_different:
        rows = [row for row in rows if _is_different(row["cells"])]
    return {
        "catalogue": reports[0]["kit"]["catalogue"] if reports else "",
        "machines": {
            f"m{number}": describe_machine(report)
            for number, report in dict(zip(machines, reports, strict=True)).items()
        },
        "drivers": drivers,
        "domains": {
            domain: [report["counts"]["domains"][domain] for report in reports]
            for domain in DOMAINS
            if any(row["domain"] == domain for row in rows)
        },
        "rows": rows,
    }


def _is_different(cells: Iterable[Mapping[str, str]]) -> bool:
    return len({cell["cell"].removesuffix(" if") for cell in cells}) > 1


def _number_machines(reports: Sequence[Report]) -> list[int]:
    """1 for the first report's machine, and so on; the same number for the same machine."""
    found: list[Report] = []
    numbers = []
    for report in reports:
        for number, known in enumerate(found, start=1):
            if are_same_machine(known, report):
                numbers.append(number)
                break
        else:
            found.append(report)
            numbers.append(len(found))
    return numbers


def _name_columns(reports: Sequence[Report], machines: Sequence[int]) -> list[str]:
    """Drivers by name; with the machine where there are several, numbered if still the same."""
    names = [report["driver"]["declaration"]["target"].rpartition(":")[2] for report in reports]
    if len(set(machines)) > 1:
        names = [f"{name}@m{machine}" for name, machine in zip(names, machines, strict=True)]
    return [
        f"{name}#{names[:at].count(name) + 1}" if names.count(name) > 1 else name
        for at, name in enumerate(names)
    ]


def describe_cell(entry: Mapping[str, Any] | None) -> dict[str, str]:
    """A cell: what stands in it, the verdict, and why."""
    if entry is None:
        return {"cell": _NOT_SELECTED, "verdict": "", "why": "the report does not have it"}
    cell = CELLS[entry["verdict"]]
    why = entry["reason"]
    declared = entry["declared"]
    if declared["kind"] == "when" and cell in ("proven", "absent"):
        cell += " if"
        why = f"declared when {declared['condition']}; else: {declared.get('reason', '')}"
    elif cell in ("absent", "partial", "-"):
        why = declared.get("reason", "") or why
    return {"cell": cell, "verdict": entry["verdict"], "why": why}


def has_bad_cells(matrix: Mapping[str, Any]) -> bool:
    """Whether any driver is not as it says, or could not be measured."""
    return any(cell["cell"] in BAD for row in matrix["rows"] for cell in row["cells"])


def list_reasons(matrix: Mapping[str, Any]) -> Iterable[tuple[str, str, str, str]]:
    """Guarantee, driver, cell and why, of all that is not plainly proven, absent or irrelevant."""
    for row in matrix["rows"]:
        for driver, cell in zip(matrix["drivers"], row["cells"], strict=True):
            if cell["cell"] in (*BAD, *OPEN, "known failing", "partial", "unclaimed"):
                yield row["id"], driver["label"], cell["cell"], shorten(cell["why"])


def format_text(matrix: Mapping[str, Any], *, colour: bool) -> str:
    """The matrix for a terminal.

    Args:
        colour: with escape sequences.
    """
    labels = [printable(driver["label"]) for driver in matrix["drivers"]]
    cells = [[cell["cell"] for cell in row["cells"]] for row in matrix["rows"]]
    left = max([len("guarantee"), *(len(row["id"]) for row in matrix["rows"])])
    widths = [
        max([len(label), *(len(row[at]) for row in cells)]) for at, label in enumerate(labels)
    ]
    lines = [_say_catalogue(matrix), *_say_machines(matrix), ""]
    lines.append(_join_cells("guarantee", labels, left, widths, colour=False))
    domain = ""
    for row, words in zip(matrix["rows"], cells, strict=True):
        if row["domain"] != domain:
            domain = row["domain"]
            counts = [_say_count(count) for count in matrix["domains"][domain]]
            title = f"-- {domain}"
            lines.append(_join_cells(title, counts, left, widths, colour=False))
        lines.append(_join_cells(row["id"], words, left, widths, colour=colour))
    if not matrix["rows"]:
        lines.append("no difference")
    lines += ["", f"of a domain: proven/declared/in the catalogue. {_LEGEND}"]
    reasons = [f"  {id} {driver}: {cell}: {why}" for id, driver, cell, why in list_reasons(matrix)]
    if reasons:
        lines += ["", "why:", *map(printable, reasons)]
    return "\n".join(lines) + "\n"


def _say_catalogue(matrix: Mapping[str, Any]) -> str:
    return f"catalogue {matrix['catalogue']}, {len(matrix['rows'])} guarantees"


def _say_machines(matrix: Mapping[str, Any]) -> list[str]:
    machines = matrix["machines"]
    if len(machines) == 1:
        return [f"machine {text}" for text in machines.values()]
    return [
        "the reports are of different machines: a difference may be the machine's",
        *(f"  {name}: {text}" for name, text in machines.items()),
    ]


def _say_count(count: Mapping[str, int]) -> str:
    return f"{count['proven'] + count['provisional']}/{count['declared']}/{count['catalogue']}"


def _join_cells(
    title: str, words: Sequence[str], left: int, widths: Sequence[int], *, colour: bool
) -> str:
    shown = []
    for word, width in zip(words, widths, strict=True):
        code = _COLOURS.get(word.removesuffix(" if"), "") if colour else ""
        padded = word.ljust(width)
        shown.append(f"\x1b[{code}m{padded}\x1b[0m" if code else padded)
    return "  ".join([title.ljust(left), *shown]).rstrip()


def format_markdown(matrix: Mapping[str, Any]) -> str:
    """The matrix as a Markdown page."""
    labels = [driver["label"] for driver in matrix["drivers"]]
    parts = [
        f"{_say_catalogue(matrix)}.",
        "\n".join(f"- {line.strip()}" for line in _say_machines(matrix)),
        table(
            ("domain", "about", *labels),
            [
                (domain, DOMAINS[domain], *map(_say_count, counts))
                for domain, counts in matrix["domains"].items()
            ],
        ),
        table(
            ("guarantee", *labels),
            [(row["id"], *(cell["cell"] for cell in row["cells"])) for row in matrix["rows"]],
        ),
        f"Of a domain: proven/declared/in the catalogue. {_LEGEND}.",
    ]
    reasons = list(list_reasons(matrix))
    if reasons:
        parts.append(table(("guarantee", "driver", "cell", "why"), reasons))
    return "\n\n".join(parts) + "\n"
