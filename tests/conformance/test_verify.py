"""`verify_report`: every verdict follows from the evidence, or it is named."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reportkit import (
    ABSENT,
    OWN,
    REFUSED,
    SHARED,
    copy,
    declaration_of,
    entry_of,
    evidence_of,
    make,
    verdicts_of,
)

from execdrv_conformance.report import model
from execdrv_conformance.report.model import conclude, verify_report
from execdrv_conformance.store import read_json, write_json

Report = dict[str, Any]


@pytest.fixture
def good(tmp_path: Path) -> Report:
    return make(tmp_path / "good")


@pytest.fixture
def liar(tmp_path: Path) -> Report:
    return make(tmp_path / "liar", driver=evidence_of(SHARED, codes_right=False))


@pytest.fixture
def honest(tmp_path: Path) -> Report:
    return make(
        tmp_path / "honest",
        driver=evidence_of(SHARED),
        declaration=declaration_of(pid__ns=ABSENT, pid__hidden=ABSENT),
        requests={"pid.ns": REFUSED, "pid.hidden": REFUSED},
    )


def test_reports_as_they_are_made_verify(good: Report, liar: Report, honest: Report) -> None:
    assert verify_report(good) == verify_report(liar) == verify_report(honest) == []


def test_reports_of_every_kind_of_gap_verify(tmp_path: Path) -> None:
    line = {"reason": "r", "issue": "#1", "expires": "2027-01-01"}
    reports = [
        make(tmp_path / "a", done=()),
        make(tmp_path / "b", lacking=("ns.pid",)),
        make(tmp_path / "c", driver={"lost": "it hung"}),
        make(tmp_path / "d", driver=evidence_of(SHARED), baseline={"pid.ns": line}),
        make(tmp_path / "e", baseline={"pid.ns": line}),
        make(tmp_path / "f", control=evidence_of(OWN)),
    ]
    assert [verify_report(report) for report in reports] == [[]] * len(reports)
    assert [verdicts_of(report)["pid.ns"] for report in reports] == [
        "NOT-RUN",
        "UNPROVEN-HOST",
        "UNTESTABLE",
        "KNOWN-FAILING",
        "STALE",
        "UNCALIBRATED",
    ]


def lift_verdict(report: Report) -> None:
    for entry in report["checks"]:
        entry.update(verdict="PROVEN", **{"class": "green"})
    report.update(conclude(report))


def lift_cases(report: Report) -> None:
    lift_verdict(report)
    for entry in report["checks"]:
        for case in entry["cases"]:
            case["verdict"] = "PROVEN"
            for side in ("inside", "outside"):
                if case[side]["state"] == "violated":
                    case[side]["state"] = "holds"


def claim_lack(report: Report) -> None:
    entry = entry_of(report, "pid.ns")
    entry.update(verdict="UNPROVEN-HOST", lacking=["pid namespaces that we may make"])
    entry["class"] = "incomplete"
    report.update(conclude(report))


def drop_entry(report: Report) -> None:
    report["checks"] = [entry for entry in report["checks"] if entry["id"] != "pid.ns"]
    report.update(conclude(report))


def excuse(report: Report) -> None:
    line = {"reason": "r", "issue": "#1", "expires": "2027-01-01"}
    entry = entry_of(report, "pid.ns")
    entry.update(verdict="KNOWN-FAILING", baseline=line)
    entry["class"] = "neutral"
    report.update(conclude(report))


def declare_absent(report: Report) -> None:
    report["driver"]["declaration"]["statuses"]["pid.ns"] = ABSENT
    entry = entry_of(report, "pid.ns")
    entry.update(verdict="ABSENT-CONFIRMED", declared=ABSENT)
    entry["class"] = "neutral"
    report.update(conclude(report))


def count_wrong(report: Report) -> None:
    report["counts"]["verdicts"] = {"PROVEN": 3}


def conclude_wrong(report: Report) -> None:
    report["conclusion"] = {"exit_status": 0, "words": "fine"}


def double(report: Report) -> None:
    report["checks"].append(entry_of(report, "pid.hidden"))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lift_verdict, "pid.ns: the report says PROVEN, the evidence says VIOLATED"),
        (lift_cases, "pid.hidden: the report says PROVEN, the evidence says VIOLATED"),
        (claim_lack, "pid.ns: the report says UNPROVEN-HOST, the evidence says VIOLATED"),
        (drop_entry, "pid.ns: it was selected, and is there 0 times"),
        (excuse, "pid.ns: its line of the baseline is another one"),
        (declare_absent, "the declaration was changed"),
        (declare_absent, "pid.ns: no request is stored"),
        (count_wrong, "counts do not follow"),
        (conclude_wrong, "conclusion do not follow"),
        (double, "pid.hidden: it was selected, and is there 2 times"),
    ],
)
def test_what_was_changed_in_a_bad_report_is_named(
    liar: Report, change: Callable[[Report], None], word: str
) -> None:
    changed = copy(liar)
    change(changed)
    assert word in "\n".join(verify_report(changed))


def test_changed_evidence_is_a_changed_verdict(good: Report, honest: Report) -> None:
    """One fact of each observer of each arm, one after the other."""
    worse = {"inside": SHARED["pid.ns"]["inside"], "outside": SHARED["pid.ns"]["outside"]}
    for side, facts in worse.items():
        changed = copy(good)
        changed["evidence"]["driver/plain"]["checks"]["pid.ns"][side] = facts
        assert "pid.ns: the report says PROVEN" in "\n".join(verify_report(changed))
        changed = copy(good)
        changed["evidence"]["control/plain"]["checks"]["pid.ns"][side] = OWN["pid.ns"][side]
        assert "UNCALIBRATED" in "\n".join(verify_report(changed))
    changed = copy(honest)
    entry_of(changed, "pid.ns")["request"]["requests"][0]["ran"] = True
    assert "FAILS-OPEN" in "\n".join(verify_report(changed))


def test_words_alone_are_compared_too(good: Report) -> None:
    changed = copy(good)
    entry_of(changed, "pid.ns")["cases"][0]["inside"]["saw"] = "something nicer"
    assert any("something nicer" in fault for fault in verify_report(changed))


def test_a_report_of_another_kit_is_judged_and_told(
    good: Report, liar: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "digest_kit", lambda: "another")
    changed = copy(good)
    entry_of(changed, "pid.ns")["cases"][0]["inside"]["saw"] = "older words"
    assert verify_report(changed) == []
    lift_verdict(liar)
    assert "this kit is not the one" in verify_report(liar)[-1]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda r: r.update(schema=2), "its schema is 2"),
        (lambda r: r["kit"].update(catalogue="2025.1"), "its catalogue is '2025.1'"),
    ],
)
def test_other_versions_are_refused(
    good: Report, change: Callable[[Report], None], word: str
) -> None:
    change(good)
    (fault,) = verify_report(good)
    assert word in fault


def test_whatever_the_report_holds_nothing_is_raised(good: Report) -> None:
    """Each value in turn is replaced by what it can't be."""

    def places(value: Any, path: tuple[Any, ...] = ()) -> Any:
        yield path
        children: Any = ()
        if isinstance(value, dict):
            children = value.items()
        elif isinstance(value, list):
            children = enumerate(value)
        for name, child in children:
            yield from places(child, (*path, name))

    paths = [
        path
        for path in places(good)
        # Each of these has hundreds that are alike.
        if path and path[:3] != ("driver", "declaration", "statuses") and path[0] != "counts"
    ]
    changed = copy(good)
    for path, junk in itertools.product(paths, (None, {"x": 1})):
        *above, last = path
        holder: Any = changed
        for name in above:
            holder = holder[name]
        kept = holder[last]
        holder[last] = junk
        assert isinstance(verify_report(changed), list)
        holder[last] = kept
    assert verify_report(changed) == []


@pytest.mark.parametrize("junk", [None, [], "", 1, {}, {"schema": 1}, {"schema": 1, "kit": 2}])
def test_what_is_no_report_is_told(junk: Any) -> None:
    assert verify_report(junk)


def test_evidence_has_the_order_of_the_report_from_the_beginning(tmp_path: Path) -> None:
    """Words of a verdict may name what a table holds: the same words, whoever reads it."""
    write_json(tmp_path / "file", {"b": 1, "a": {"d": 2, "c": 3}})
    found = read_json(tmp_path / "file")
    assert (list(found), list(found["a"])) == (["a", "b"], ["c", "d"])
