"""The report of one driver as plain data, and `verify_report`, which judges it once more.

A report holds all that its verdicts follow from: declaration, machine, evidence of every arm,
requests, baseline. `verify_report` recomputes each of them from there by the same functions, and
names every difference. Runs in the front end; no machine is looked at but in `make_report`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from execdrv.errors import UsageError
from execdrv.guarantees.catalogue import DOMAINS, load_catalogue
from execdrv.guarantees.types import CATALOGUE_VERSION, Guarantee
from execdrv.version import VERSION
from execdrv_conformance.check import Check
from execdrv_conformance.checks import load_checks
from execdrv_conformance.declaration import Declaration
from execdrv_conformance.finding import Finding
from execdrv_conformance.report.schema import find_faults
from execdrv_conformance.result import Measured, Result, find_lacking, judge_stored
from execdrv_conformance.session import Session
from execdrv_conformance.surroundings import describe_surroundings
from execdrv_conformance.verdict import CLASSES, exit_status

SCHEMA_VERSION = 1

#: Statuses by which a driver says that it keeps a guarantee, at least in some cases.
CLAIMS = ("enforced", "when", "partial")
#: Statuses of which a request is made, to see it refused.
_REQUESTED = ("absent", "unclaimed")
#: Keys of an entry that another kit of the same catalogue may put differently.
_OF_THE_KIT = ("title", "provisional", "scored", "mutants", "reason", "likely", "wanted", "level")


# --- making ------------------------------------------------------------------------------------


def make_report(
    session: Session, *, left_over: Iterable[str] = (), words: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The report of what a session has measured; what was selected and not run is NOT-RUN.

    Args:
        left_over: what the run has left on the machine, by name.
        words: how the ids were selected, as given.
    """
    if set(session.results) != set(session.ids):
        session.read_back()
    declaration = session.known_declaration
    noted = session.noted
    checks = [
        describe_entry(
            session.results[id],
            declaration=declaration,
            evidence=session.evidence,
            machine=session.machine,
            request=session.requests.get(id),
            not_run=_why_not_run(session.results[id]),
            baseline=session.baseline.get(id),
            took_s=session.took_s.get(id),
        )
        for id in session.ids
    ]
    report = {
        "schema": SCHEMA_VERSION,
        "kit": {
            "execdrv": VERSION,
            "catalogue": CATALOGUE_VERSION,
            "digest": digest_kit(),
            "catalogue_digest": digest_catalogue(),
        },
        "run": {
            "name": session.directory.name,
            "seed": session.seed,
            "started": noted["started"],
            "duration_s": round(time.monotonic() - noted["begun_s"], 1),
            "today": noted["today"],
            "problems": list(session.problems),
            "left_over": sorted(set(left_over)),
        },
        "selection": {"ids": list(session.ids), "words": dict(words or {})},
        "machine": {**session.machine, **describe_surroundings()},
        "driver": {"declaration": declaration.to_plain(), "digest": declaration.digest()},
        "baseline": {id: dict(entry) for id, entry in session.baseline.items()},
        "checks": checks,
        "evidence": {key: session.evidence[key] for key in sorted(session.evidence)},
    }
    plain: dict[str, Any] = json.loads(json.dumps(report))
    return conclude(plain)


def _why_not_run(result: Result) -> str:
    return result.reason if result.verdict == "NOT-RUN" else ""


def conclude(report: dict[str, Any]) -> dict[str, Any]:
    """The report with its counts and its conclusion, from its entries."""
    verdicts = [entry["verdict"] for entry in report["checks"]]
    counts = {verdict: verdicts.count(verdict) for verdict in CLASSES if verdict in verdicts}
    status = exit_status(verdicts, left_over=bool(report["run"]["left_over"]))
    return {
        **report,
        "counts": {"verdicts": counts, "domains": count_domains(report)},
        "conclusion": {"exit_status": status, "words": say_status(status)},
    }


def say_status(status: int) -> str:
    """What an exit status of a run means."""
    return {
        0: "all that was selected is proven, or honestly not claimed",
        1: "the driver is not as it says",
        5: "nothing was selected",
        10: "incomplete: not all of it could be shown here",
        11: "something of the run is left on the machine",
        12: "the kit itself failed",
    }[status]


def count_domains(report: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Of each domain: proven and scored, proven and provisional, declared, in the catalogue."""
    statuses = report["driver"]["declaration"]["statuses"]
    found: dict[str, dict[str, int]] = {}
    for id in load_catalogue():
        domain = found.setdefault(
            id.partition(".")[0], {"proven": 0, "provisional": 0, "declared": 0, "catalogue": 0}
        )
        domain["catalogue"] += 1
        domain["declared"] += statuses.get(id, {}).get("kind") in CLAIMS
    for entry in report["checks"]:
        domain = found.get(entry["domain"], {})
        if entry["verdict"] == "PROVEN" and domain:
            domain["proven" if entry["scored"] else "provisional"] += 1
    return {domain: found[domain] for domain in DOMAINS if domain in found}


def describe_entry(
    result: Result,
    *,
    declaration: Declaration,
    evidence: Mapping[str, Any],
    machine: Mapping[str, Any],
    request: Mapping[str, Any] | None,
    not_run: str,
    baseline: Mapping[str, Any] | None,
    took_s: float | None,
) -> dict[str, Any]:
    """What a report says of one guarantee."""
    check, guarantee = load_checks()[result.id], load_catalogue()[result.id]
    return {
        "id": result.id,
        "domain": guarantee.domain,
        "profile": guarantee.profile,
        "kind": guarantee.kind,
        "level": guarantee.level,
        "title": guarantee.title,
        "verdict": result.verdict,
        "class": CLASSES[result.verdict],
        "reason": result.reason,
        "scored": result.scored,
        "provisional": guarantee.provisional_why,
        "mutants": list(guarantee.mutants),
        "one_sided": result.one_sided,
        "declared": dict(declaration.statuses.get(result.id, {"kind": "unclaimed"})),
        "lacking": list(find_lacking(guarantee, machine, unavailable=declaration.unavailable)),
        "not_run": not_run,
        "baseline": None if baseline is None else dict(baseline),
        "request": None if request is None else dict(request),
        "wanted": {"inside": guarantee.inside, "outside": guarantee.outside},
        "likely": check.likely,
        "took_s": took_s,
        "cases": [_describe_case(one, check, evidence) for one in result.measured],
    }


def _describe_case(one: Measured, check: Check, evidence: Mapping[str, Any]) -> dict[str, Any]:
    gathered = evidence.get(f"driver/{one.case}", {})
    own = gathered.get("checks", {}).get(check.id, {})
    return {
        "case": one.case,
        "declared": one.declared,
        "verdict": one.judgement.verdict,
        "reason": one.judgement.reason,
        "asked": dict(own.get("asked", {})),
        "left_out": dict(gathered.get("left_out", {})),
        "inside": _describe_finding(one.inside),
        "outside": _describe_finding(one.outside),
        "control_inside": _describe_finding(one.control_inside),
        "control_outside": _describe_finding(one.control_outside),
    }


def _describe_finding(finding: Finding) -> dict[str, Any]:
    return {"state": finding.state, "saw": finding.saw, "parts": list(finding.parts)}


@functools.cache
def digest_kit() -> str:
    """A hash of the kit's own sources."""
    top = Path(__file__).resolve().parent.parent
    hash = hashlib.sha256()
    for path in sorted(top.rglob("*.py")):
        hash.update(f"{path.relative_to(top)}\0".encode() + path.read_bytes() + b"\0")
    return hash.hexdigest()[:16]


@functools.cache
def digest_catalogue() -> str:
    """A hash of what the verdicts take from the catalogue."""
    plain = [_gist(entry) for entry in load_catalogue().values()]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:16]


def _gist(entry: Guarantee) -> list[Any]:
    return [entry.id, entry.title, entry.kind, entry.profile, entry.needs, entry.proof_needs]


# --- files -------------------------------------------------------------------------------------


def format_report(report: Mapping[str, Any]) -> str:
    """Canonical JSON: sorted keys, ASCII, one line for each value."""
    return json.dumps(report, sort_keys=True, indent=1, allow_nan=False) + "\n"


def read_report(path: str | Path) -> dict[str, Any]:
    """A report from a file; its form is looked at, its verdicts are not.

    Raises:
        UsageError: it can't be read, or is no report of this schema.
    """
    name = str(path)
    try:
        report = json.loads(Path(path).read_text())
    except OSError as error:
        raise UsageError(f"cannot read report {name!r}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"cannot read report {name!r}: {error}") from error
    if faults := find_version_faults(report) or find_faults(report):
        raise UsageError(
            f"cannot read report {name!r}: {faults[0]}",
            hint="it is written by `execdrv conformance run DRIVER --out FILE`",
        )
    found: dict[str, Any] = report
    return found


def find_version_faults(report: Any) -> list[str]:
    """Why this kit can't read a report at all; empty if it can."""
    if not isinstance(report, dict) or "schema" not in report:
        return ["it is no conformance report"]
    if report["schema"] != SCHEMA_VERSION:
        return [f"its schema is {report['schema']!r}, and this kit reads {SCHEMA_VERSION}"]
    kit = report.get("kit")
    catalogue = kit.get("catalogue") if isinstance(kit, dict) else None
    if catalogue != CATALOGUE_VERSION:
        return [f"its catalogue is {catalogue!r}, and this kit has {CATALOGUE_VERSION!r}"]
    return []


# --- judging once more -------------------------------------------------------------------------


def verify_report(report: Mapping[str, Any]) -> list[str]:
    """Every way in which a report does not follow from its own evidence; empty: it does.

    Total: whatever the report holds, it is told and not raised.
    """
    faults = find_version_faults(report) or find_faults(report)
    if faults:
        return faults
    declaration = Declaration.from_plain(report["driver"]["declaration"])
    found = []
    if report["driver"]["digest"] != declaration.digest():
        found.append("the declaration was changed: its digest is another one")
    listed = [entry["id"] for entry in report["checks"]]
    for id in report["selection"]["ids"]:
        if listed.count(id) != 1:
            found.append(f"{id}: it was selected, and is there {listed.count(id)} times")
    for entry in report["checks"]:
        found += [f"{entry['id']}: {words}" for words in _verify_entry(entry, report, declaration)]
    again = conclude(dict(report))
    found += [
        f"{name} do not follow from the verdicts"
        for name in ("counts", "conclusion")
        if again[name] != report[name]
    ]
    if found and not is_same_kit(report):
        found.append("this kit is not the one that wrote the report: its checks may have changed")
    return found


def is_same_kit(report: Mapping[str, Any]) -> bool:
    """Whether the sources of this kit are those of the report's."""
    kit = report["kit"]
    return bool(kit["digest"] == digest_kit() and kit["catalogue_digest"] == digest_catalogue())


def _verify_entry(
    entry: Mapping[str, Any], report: Mapping[str, Any], declaration: Declaration
) -> Sequence[str]:
    id = entry["id"]
    if id not in load_checks():
        return ["this kit has no such check"]
    if id not in report["selection"]["ids"]:
        return ["it was not selected"]
    if entry["baseline"] != report["baseline"].get(id):
        return ["its line of the baseline is another one than the baseline's"]
    try:
        again = judge_entry(entry, report, declaration)
    except Exception as error:  # evidence is text of others: whatever it breaks, it is named
        return [f"its evidence can't be judged: {type(error).__name__}: {error}"]
    found = [] if _has_request(entry) else ["no request is stored, though it is declared absent"]
    if again["verdict"] != entry["verdict"]:
        said = f"the report says {entry['verdict']}, the evidence says {again['verdict']}"
        return [*found, f"{said}: {again['reason']}"]
    ignored = {"took_s"} if is_same_kit(report) else {"took_s", *_OF_THE_KIT}
    for key in again:
        if key not in ignored and again[key] != entry.get(key):
            found += _compare(key, entry.get(key), again[key], is_same_kit(report))
    return found


def judge_entry(
    entry: Mapping[str, Any], report: Mapping[str, Any], declaration: Declaration
) -> dict[str, Any]:
    """An entry anew, from what is stored."""
    id = entry["id"]
    guarantee, machine = load_catalogue()[id], report["machine"]
    result = judge_stored(
        load_checks()[id],
        guarantee,
        declaration=declaration,
        evidence=report["evidence"],
        machine=machine["facts"],
        lacking=find_lacking(guarantee, machine, unavailable=declaration.unavailable),
        request=entry["request"],
        not_run=entry["not_run"],
        baseline=entry["baseline"],
        today=report["run"]["today"],
    )
    plain: dict[str, Any] = json.loads(
        json.dumps(
            describe_entry(
                result,
                declaration=declaration,
                evidence=report["evidence"],
                machine=machine,
                request=entry["request"],
                not_run=entry["not_run"],
                baseline=entry["baseline"],
                took_s=entry["took_s"],
            )
        )
    )
    return plain


def _has_request(entry: Mapping[str, Any]) -> bool:
    """Whether the request for what is declared absent is there, where one was made."""
    made = entry["declared"].get("kind") in _REQUESTED and not entry["lacking"]
    return entry["request"] is not None or not made or bool(entry["not_run"])


def _compare(key: str, said: Any, found: Any, same_kit: bool) -> list[str]:
    """In which words two values of an entry differ."""
    if key != "cases":
        return [f"{key} is {said!r} in the report, and {found!r} by the evidence"]
    if len(said) != len(found):
        return [f"{len(said)} cases are in the report, and {len(found)} in the check"]
    words = []
    for old, new in zip(said, found, strict=True):
        for name in new:
            one, other = old.get(name), new[name]
            if not same_kit and isinstance(other, dict) and "state" in other:
                one, other = (one or {}).get("state"), other["state"]
            if one != other and (same_kit or name != "reason"):
                words.append(
                    f"case {new['case']}: {name} is {one!r}, and {other!r} by the evidence"
                )
    return words
