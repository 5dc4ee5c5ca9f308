"""An Offers table of what was measured, for an author who begins. Pure text from a report.

Reasons are the author's to write: they begin with TODO. What could not be measured is `unclaimed`,
never guessed. The text is Python that makes a valid Offers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from execdrv.guarantees.catalogue import load_catalogue
from execdrv.guarantees.facts import SPEC_FACTS
from execdrv.guarantees.types import CATALOGUE_VERSION, PROFILES
from execdrv_conformance.declaration import Declaration
from execdrv_conformance.finding import Finding
from execdrv_conformance.judge import Question, judge

_HEAD = """\
from execdrv.offers import Offers, absent, enforced, not_applicable, partial, unclaimed, when

# What was measured of {target} ({name} {version}) by run {run}, seed {seed}.
# What begins with TODO is yours to write; what is unclaimed could not be measured.
OFFERS = Offers(
    {{
"""


def suggest_offers(report: Mapping[str, Any]) -> str:
    """The table as source text, ids beating the line of their profile."""
    driver = report["driver"]["declaration"]
    entries = {entry["id"]: entry for entry in report["checks"]}
    declaration = Declaration.from_plain(driver)
    catalogue = load_catalogue()
    statuses = {
        id: suggest_status(entries[id], declaration, report["machine"]["facts"])
        if id in entries
        else 'unclaimed("not measured")'
        for id in catalogue
    }
    lines = [
        _HEAD.format(
            target=driver["target"],
            name=driver["name"],
            version=driver["version"],
            run=report["run"]["name"],
            seed=report["run"]["seed"],
        )
    ]
    for profile in PROFILES:
        own = {id: statuses[id] for id, entry in catalogue.items() if entry.profile == profile}
        common, count = Counter(own.values()).most_common(1)[0]
        lines.append(f"        # {profile}: {PROFILES[profile]}\n")
        if count > 1:
            lines.append(f'        "{profile}": {common},\n')
        for id, status in own.items():
            if count == 1 or status != common:
                lines += [*_remarks(entries.get(id)), f'        "{id}": {status},\n']
    lines.append(f'    }},\n    catalogue="{CATALOGUE_VERSION}",\n)\n')
    return "".join(lines)


def _remarks(entry: Mapping[str, Any] | None) -> Iterator[str]:
    fields = sorted(
        {field for case in (entry or {"cases": ()})["cases"] for field in case["left_out"]}
    )
    if fields:
        yield f"        # measured without {', '.join(fields)}, which the driver does not offer:\n"


def suggest_status(
    entry: Mapping[str, Any], declaration: Declaration, machine: Mapping[str, bool]
) -> str:
    """The status that what was measured stands for, as source text."""
    declared = entry["declared"]
    if declared["kind"] == "not-applicable":
        return _call("not_applicable", declared["reason"])
    if entry["lacking"]:
        return _call("unclaimed", f"this machine lacks {'; '.join(entry['lacking'])}")
    found = {case["case"]: _measure(entry, case) for case in entry["cases"]}
    verdicts = set(found.values())
    if kept := _keep_declared(entry, found, declaration, machine):
        return kept
    if verdicts == {"PROVEN"}:
        return "enforced()"
    if verdicts == {"VIOLATED"}:
        return _say_violated(entry)
    if verdicts == {"PROVEN", "VIOLATED"}:
        names = list(SPEC_FACTS)
        if fitting := _find_conditions(entry, found, declaration, machine, names=names):
            return f'when("{fitting[0]}", {_quote("TODO: why not otherwise")})'
        return _call("absent", "TODO: it holds in some cases only")
    odd = next((v for v in found.values() if v not in ("PROVEN", "VIOLATED")), "not measured")
    return _call("unclaimed", f"TODO: it was {odd}")


def _keep_declared(
    entry: Mapping[str, Any],
    found: Mapping[str, str],
    declaration: Declaration,
    machine: Mapping[str, bool],
) -> str:
    """What is declared with a condition or in part, if it is just what was measured."""
    declared = entry["declared"]
    if declared["kind"] == "when" and declared["condition"] in _find_conditions(
        entry, found, declaration, machine, names=[declared["condition"]]
    ):
        return f'when("{declared["condition"]}", {_quote(declared["reason"])})'
    if entry["verdict"] == "PARTIAL-CONFIRMED":
        return _say_partial(declared["reason"], declared["remains"], declared["parts"])
    return ""


def _measure(entry: Mapping[str, Any], case: Mapping[str, Any]) -> str:
    """The verdict that a case would have if the guarantee were claimed."""
    question = Question(
        kind=entry["kind"],
        declared="enforced",
        inside=_read_finding(case["inside"]),
        outside=_read_finding(case["outside"]),
        control_inside=_read_finding(case["control_inside"]),
        control_outside=_read_finding(case["control_outside"]),
    )
    return judge(question).verdict


def _read_finding(plain: Mapping[str, Any]) -> Finding:
    return Finding(plain["state"], plain["saw"], tuple(plain["parts"]))


def _say_violated(entry: Mapping[str, Any]) -> str:
    guarantee = load_catalogue()[entry["id"]]
    known = [name for name, _ in guarantee.parts]
    parts = {
        part
        for case in entry["cases"]
        for side in ("inside", "outside")
        for part in case[side]["parts"]
    }
    declared = entry["declared"]
    if parts and parts < set(known):
        remains = "; ".join(text for name, text in guarantee.parts if name in parts)
        return _say_partial("TODO: why", remains, [name for name in known if name in parts])
    if declared["kind"] == "absent":
        return _call("absent", declared["reason"])
    return _call("absent", "TODO: why")


def _say_partial(reason: str, remains: str, parts: Iterable[str]) -> str:
    named = "".join(f"{_quote(part)}, " for part in parts).rstrip()
    return f"partial({_quote(reason)}, remains={_quote(remains)}, parts=({named}))"


def _find_conditions(
    entry: Mapping[str, Any],
    found: Mapping[str, str],
    declaration: Declaration,
    machine: Mapping[str, bool],
    *,
    names: Iterable[str],
) -> list[str]:
    """The named conditions that are true in just the cases in which it holds."""
    truths = {
        case["case"]: declaration.conditions(case["asked"], machine) for case in entry["cases"]
    }
    wanted = {"PROVEN": True, "VIOLATED": False}
    return [
        name
        for name in names
        if all(truths[case].get(name) is wanted.get(verdict) for case, verdict in found.items())
    ]


def _call(name: str, reason: str) -> str:
    return f"{name}({_quote(reason)})"


def _quote(text: str) -> str:
    return json.dumps(text)
