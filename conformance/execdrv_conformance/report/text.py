"""A report as text for a terminal, and a failed check in the order in which one asks about it.

Pure: reports in, text out; no colours. Every word of a job or a driver is made printable.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from execdrv_conformance.report.words import (
    count_words,
    describe_fields,
    describe_time,
    printable,
    shorten,
)

if TYPE_CHECKING:
    from execdrv_conformance.result import Result
    from execdrv_conformance.session import Session

#: What is wrong most likely, where the verdict itself says it.
_CAUSES = {
    "UNDER-CLAIMED": "the driver keeps it, and its offers say that it does not",
    "FAILS-OPEN": "the driver takes the request without looking at it",
    "CONFLICT": "what the job says is forged, or a setting is there without an effect",
    "UNTESTABLE": "the job or the driver ended or hung before the probe had answered",
    "UNCALIBRATED": "this machine keeps it for everybody, or the check can't tell",
    "STALE": "it was mended, or the machine changed: take the line out of the baseline",
    "EXPIRED": "the day has passed: mend it, or give the line of the baseline a new one",
    "KIT-ERROR": "a fault of the kit: please report it with the evidence",
}


def explain_failure(session: Session, result: Result) -> str:
    """Why a check of a running session has its verdict, in several lines."""
    from execdrv_conformance.report.model import describe_entry

    entry = describe_entry(
        result,
        declaration=session.known_declaration,
        evidence=session.evidence,
        machine=session.machine,
        request=session.requests.get(result.id),
        not_run="",
        baseline=session.baseline.get(result.id),
        took_s=None,
    )
    driver = {"target": session.driver.target, "options": session.driver.options}
    return explain_entry(entry, driver=driver, seed=session.seed)


def explain_entry(entry: Mapping[str, Any], *, driver: Mapping[str, Any], seed: int) -> str:
    """Why a guarantee has its verdict: the sentence, what was asked, what was seen and wanted.

    Args:
        driver: `target` and `options`.
    """
    case = find_telling_case(entry)
    rows = [
        (entry["verdict"], f"{entry['id']}: {entry['title']}"),
        ("asked", _say_asked(entry, case)),
        *_say_findings(case),
        ("wanted", _say_wanted(entry, case)),
        ("likely", _say_cause(entry)),
        ("repro", repro_command(entry["id"], driver=driver, seed=seed)),
    ]
    if not case or entry["verdict"] not in (case["verdict"], "UNCLAIMED"):
        rows.insert(1, ("reason", entry["reason"]))
    elif entry["verdict"] in ("FAILS-OPEN", "UNTESTABLE", "KIT-ERROR", "UNCLAIMED"):
        rows.insert(2, ("reason", case["reason"]))
    width = max(len(name) for name, _ in rows[1:])
    head, *rest = ((name, printable(shorten(text))) for name, text in rows if text)
    return "\n".join([f"{head[0]} {head[1]}", *(f"  {n.ljust(width)}  {t}" for n, t in rest)])


def find_telling_case(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The case that the verdict comes from; an empty one if nothing was measured."""
    cases: Sequence[dict[str, Any]] = entry["cases"]
    for case in cases:
        if case["verdict"] == entry["verdict"]:
            return case
    return cases[0] if cases and not entry["not_run"] else {}


def _say_asked(entry: Mapping[str, Any], case: Mapping[str, Any]) -> str:
    if not case:
        return ""
    words = describe_fields(case["asked"]) or "the driver's defaults"
    if case["left_out"]:
        out = ", ".join(f"{field} ({id})" for field, id in case["left_out"].items())
        words += f"; not asked, for the driver does not offer it: {out}"
    if entry["verdict"] == "FAILS-OPEN" and entry["request"]:
        return describe_fields(entry["request"]["requests"][-1]["fields"]) or words
    return f"{words} (case {case['case']})"


def _say_findings(case: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not case:
        return
    for name in ("inside", "outside"):
        yield f"{name} saw", _say_finding(case[name])
    controls = [
        f"{name} saw {_say_finding(case[f'control_{name}'])}"
        for name in ("inside", "outside")
        if case[f"control_{name}"]["state"] != "nothing"
    ]
    if controls and case["verdict"] in ("UNCALIBRATED", "UNTESTABLE"):
        yield "with no isolation", "; ".join(controls)


def _say_finding(finding: Mapping[str, Any]) -> str:
    state = {
        "holds": "that it holds",
        "violated": "that it does not hold",
        "unfinished": "nothing to the end",
        "nothing": "nothing: it has nothing of its own to see",
    }[finding["state"]]
    return f"{state}: {finding['saw']}" if finding["saw"] else state


def _say_wanted(entry: Mapping[str, Any], case: Mapping[str, Any]) -> str:
    declared = entry["declared"]
    looks = "; ".join(f"{name}: {text}" for name, text in entry["wanted"].items() if text)
    kind = case.get("declared", declared["kind"])
    why = declared.get("reason", "")
    match kind:
        case "absent":
            wanted = "that it does not hold, and that a request is refused"
            return f"{wanted}, for it is declared absent ({why})"
        case "partial":
            return f"that only this is open: {declared.get('remains', '')}; {looks}"
        case "unclaimed":
            return f"nothing, for nothing is declared ({why}); {looks}"
    when = f" (declared when {declared['condition']})" if declared["kind"] == "when" else ""
    return f"{looks}{when}"


def _say_cause(entry: Mapping[str, Any]) -> str:
    known = _CAUSES.get(entry["verdict"], "")
    own = entry["likely"] if entry["verdict"] in ("VIOLATED", "CONFLICT", "UNCLAIMED") else ""
    return "; or: ".join(word for word in (own, known) if word)


def repro_command(id: str, *, driver: Mapping[str, Any], seed: int) -> str:
    """The command that runs one check again."""
    words = ["execdrv", "conformance", "repro", id, "--driver", driver["target"]]
    for name, value in driver["options"].items():
        words += ["--driver-option", f"{name}={value}"]
    return shlex.join([*words, "--seed", str(seed)])


# --- the whole report --------------------------------------------------------------------------


def format_line(entry: Mapping[str, Any]) -> str:
    """One guarantee in one line."""
    words = entry["reason"]
    if entry["class"] == "green":
        words = ""
    mark = "" if entry["scored"] else " (provisional)"
    line = f"{entry['verdict']:<17} {entry['id']}{mark}"
    return printable(f"{line:<42} {words}".rstrip()[:400])


def format_failures(report: Mapping[str, Any]) -> str:
    """Every failure in full, a blank line after each."""
    driver, seed = report["driver"]["declaration"], report["run"]["seed"]
    return "".join(
        f"{explain_entry(entry, driver=driver, seed=seed)}\n\n"
        for entry in report["checks"]
        if entry["class"] in ("fail", "kit")
    )


def format_gaps(report: Mapping[str, Any]) -> str:
    """What is incomplete, a line each."""
    gaps = [entry for entry in report["checks"] if entry["class"] == "incomplete"]
    return "".join(f"{format_line(entry)}\n" for entry in gaps)


def format_domains(report: Mapping[str, Any]) -> str:
    """proven/declared/catalogue of each domain, several to a line."""
    cells = []
    for domain, count in report["counts"]["domains"].items():
        more = f"+{count['provisional']}" if count["provisional"] else ""
        cells.append(f"{domain} {count['proven']}{more}/{count['declared']}/{count['catalogue']}")
    rows = [cells[at : at + 6] for at in range(0, len(cells), 6)]
    lines = ["".join(cell.ljust(16) for cell in row).rstrip() for row in rows]
    return "\n".join(["proven (+provisional) / declared / catalogue:", *lines]) + "\n"


def format_summary(report: Mapping[str, Any], *, allow_incomplete: bool = False) -> str:
    """The end of a run: failures, gaps, domains, problems, and the last line."""
    parts = [format_failures(report), format_gaps(report), format_domains(report)]
    problems = [*report["run"]["problems"], *report["run"]["left_over"]]
    parts.append("".join(f"the kit's own problem: {printable(line)}\n" for line in problems))
    parts.append(f"{last_line(report, allow_incomplete=allow_incomplete)}\n")
    return "".join(parts)


def last_line(report: Mapping[str, Any], *, allow_incomplete: bool = False) -> str:
    """Counts and conclusion."""
    run, conclusion = report["run"], report["conclusion"]
    counts = count_words(report["counts"]["verdicts"]) or "nothing"
    name = printable(report["driver"]["declaration"]["target"])
    words = conclusion["words"]
    if allow_incomplete and conclusion["exit_status"] == 10:
        words += ", which is allowed"
    took = describe_time(run["duration_s"])
    return f"{name}: {counts}; {words} ({took}, seed {run['seed']})"
