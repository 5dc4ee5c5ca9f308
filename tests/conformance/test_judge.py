"""The judge is total, and each row of the design's table is what it says."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import attrs
import pytest

from execdrv.guarantees.types import Kind
from execdrv_conformance.finding import NOTHING, Finding, State
from execdrv_conformance.judge import (
    Declared,
    Judgement,
    Question,
    Request,
    apply_baseline,
    combine,
    judge,
    judge_together,
    settle_declaration,
)
from execdrv_conformance.verdict import CLASSES, MEANINGS, Verdict, exit_status, worst

HOLDS = Finding("holds", "h")
VIOLATED = Finding("violated", "v")
UNFINISHED = Finding("unfinished", "u")
STATES: tuple[State, ...] = get_args(State)


def ask(declared: Declared = "enforced", **fields: Any) -> Verdict:
    fields.setdefault("kind", "functional")
    return judge(Question(declared=declared, **fields)).verdict


def calibrated(inside: Finding = HOLDS, outside: Finding = HOLDS, **fields: Any) -> dict[str, Any]:
    return {
        "kind": "isolating",
        "inside": inside,
        "outside": outside,
        "control_inside": VIOLATED,
        "control_outside": VIOLATED,
    } | fields


def test_every_question_has_a_verdict_with_a_reason() -> None:
    """The whole product; what is proven is proven by somebody who saw it."""
    count = 0
    for (
        kind,
        declared,
        inside,
        outside,
        control_in,
        control_out,
        request,
        lacking,
    ) in itertools.product(
        get_args(Kind),
        get_args(Declared),
        STATES,
        STATES,
        STATES,
        STATES,
        (None, *get_args(Request)),
        ((), ("swap",)),
    ):
        question = Question(
            kind=kind,
            declared=declared,
            inside=Finding(inside, "in"),
            outside=Finding(outside, "out"),
            control_inside=Finding(control_in, "cin"),
            control_outside=Finding(control_out, "cout"),
            request=request,
            request_saw="asked",
            lacking=lacking,
        )
        found = judge(question)
        count += 1
        assert found.verdict in CLASSES
        assert found.reason
        if found.verdict == "PROVEN":
            assert declared == "enforced"
            assert not lacking
            assert "holds" in (inside, outside)
            assert not {inside, outside} & {"violated", "unfinished"}
            if kind in ("isolating", "limit"):
                assert inside != "holds" or control_in == "violated"
                assert outside != "holds" or control_out == "violated"
        if lacking and declared not in ("not-applicable", "unclaimed"):
            assert found.verdict == "UNPROVEN-HOST"
        if CLASSES[found.verdict] == "green":
            assert found.verdict == "PROVEN"
    assert count == 4 * 5 * 4**4 * 4 * 2


@pytest.mark.parametrize(
    ("inside", "outside", "wanted"),
    [
        ("holds", "holds", "holds"),
        ("violated", "violated", "violated"),
        ("holds", "violated", "conflict"),
        ("violated", "holds", "conflict"),
        ("nothing", "holds", "holds"),
        ("violated", "nothing", "violated"),
        ("unfinished", "holds", "unfinished"),
        ("violated", "unfinished", "unfinished"),
        ("nothing", "nothing", "nothing"),
    ],
)
def test_two_observers_agree_or_conflict(inside: State, outside: State, wanted: str) -> None:
    assert combine(inside, outside) == wanted


ROWS: list[tuple[Declared, dict[str, Any], Verdict]] = [
    ("enforced", calibrated(), "PROVEN"),
    ("enforced", calibrated(VIOLATED, VIOLATED), "VIOLATED"),
    ("enforced", calibrated(HOLDS, VIOLATED), "CONFLICT"),
    ("enforced", calibrated(UNFINISHED, HOLDS), "UNTESTABLE"),
    ("enforced", calibrated(lacking=("swap",)), "UNPROVEN-HOST"),
    ("enforced", calibrated(control_inside=HOLDS, control_outside=HOLDS), "UNCALIBRATED"),
    # An observer that can't tell with from without proves nothing, whatever the other one can.
    ("enforced", calibrated(control_outside=HOLDS), "UNCALIBRATED"),
    ("enforced", calibrated(control_inside=NOTHING, control_outside=NOTHING), "UNCALIBRATED"),
    ("enforced", calibrated(control_inside=UNFINISHED), "UNTESTABLE"),
    ("enforced", {"kind": "functional", "inside": HOLDS}, "PROVEN"),
    ("enforced", {"kind": "hygiene", "outside": HOLDS}, "PROVEN"),
    ("enforced", {"kind": "functional"}, "UNTESTABLE"),
    # A violated arm stays so whatever the control says.
    ("enforced", calibrated(VIOLATED, VIOLATED, control_inside=UNFINISHED), "VIOLATED"),
    ("absent", calibrated(VIOLATED, VIOLATED, request="refused"), "ABSENT-CONFIRMED"),
    ("absent", calibrated(request="refused"), "UNDER-CLAIMED"),
    ("absent", calibrated(incidental=True), "INCIDENTAL"),
    ("absent", calibrated(VIOLATED, VIOLATED, incidental=True), "ABSENT-CONFIRMED"),
    ("absent", calibrated(VIOLATED, VIOLATED, request="open"), "FAILS-OPEN"),
    ("absent", calibrated(request="open"), "FAILS-OPEN"),
    ("absent", calibrated(UNFINISHED, HOLDS, request="open"), "UNTESTABLE"),
    ("absent", calibrated(HOLDS, VIOLATED, request="open"), "FAILS-OPEN"),
    ("absent", calibrated(VIOLATED, VIOLATED, request="unfinished"), "UNTESTABLE"),
    ("absent", calibrated(lacking=("swap",)), "UNPROVEN-HOST"),
    ("absent", calibrated(control_inside=HOLDS), "UNCALIBRATED"),
    ("unclaimed", calibrated(), "UNCLAIMED"),
    ("unclaimed", calibrated(VIOLATED, VIOLATED), "UNCLAIMED"),
    ("unclaimed", calibrated(not_run="deselected"), "NOT-RUN"),
    ("not-applicable", calibrated(VIOLATED, VIOLATED), "NOT-APPLICABLE"),
    ("not-applicable", calibrated(lacking=("swap",)), "NOT-APPLICABLE"),
    ("not-applicable", calibrated(not_run="deselected"), "NOT-RUN"),
    ("enforced", calibrated(not_run="deselected"), "NOT-RUN"),
    ("enforced", calibrated(kit_error="boom", not_run="deselected"), "KIT-ERROR"),
]


@pytest.mark.parametrize(("declared", "fields", "wanted"), ROWS)
def test_rows_of_the_table(declared: Declared, fields: dict[str, Any], wanted: Verdict) -> None:
    assert ask(declared, **fields) == wanted


@pytest.mark.parametrize(
    ("failed", "remains", "wanted"),
    [
        (("both",), ("both",), "PARTIAL-CONFIRMED"),
        (("both", "supervisor"), ("both",), "VIOLATED"),
        (("supervisor",), ("both",), "VIOLATED"),
        ((), ("both",), "VIOLATED"),
        ((), (), "VIOLATED"),
    ],
)
def test_partial_is_confirmed_only_by_the_parts_it_names(
    failed: tuple[str, ...], remains: tuple[str, ...], wanted: Verdict
) -> None:
    finding = Finding("violated", "v", failed)
    assert ask("partial", kind="hygiene", outside=finding, remains=remains) == wanted


def test_partial_that_holds_in_full_is_under_claimed() -> None:
    assert ask("partial", kind="hygiene", outside=HOLDS, remains=("both",)) == "UNDER-CLAIMED"


def test_of_several_specs_the_worst_counts_and_a_false_condition_takes_nothing() -> None:
    proven, absent = Judgement("PROVEN", "p"), Judgement("ABSENT-CONFIRMED", "a")
    bad = Judgement("VIOLATED", "v")
    assert judge_together([proven, absent]) == proven
    assert judge_together([absent, absent]) == absent
    assert judge_together([proven, bad, absent]) == bad
    assert judge_together([Judgement("UNDER-CLAIMED", "u"), proven]).verdict == "UNDER-CLAIMED"


def test_a_condition_makes_enforced_or_absent() -> None:
    status = {"kind": "when", "condition": "net-own"}
    assert settle_declaration(status, {"net-own": True})[0] == "enforced"
    assert settle_declaration(status, {"net-own": False})[0] == "absent"
    assert settle_declaration(status, {})[0] == "absent"
    with pytest.raises(ValueError, match="no status"):
        settle_declaration({"kind": "maybe"}, {})


ENTRY = {"reason": "kernel bug", "issue": "#7", "expires": "2026-12-31"}


@pytest.mark.parametrize(
    ("verdict", "entry", "today", "wanted"),
    [
        ("VIOLATED", ENTRY, "2026-11-25", "KNOWN-FAILING"),
        ("CONFLICT", ENTRY, "2026-12-31", "KNOWN-FAILING"),
        ("VIOLATED", ENTRY, "2027-01-01", "EXPIRED"),
        ("PROVEN", ENTRY, "2026-11-25", "STALE"),
        ("ABSENT-CONFIRMED", ENTRY, "2026-11-25", "STALE"),
        ("UNPROVEN-HOST", ENTRY, "2026-11-25", "UNPROVEN-HOST"),
        ("KIT-ERROR", ENTRY, "2026-11-25", "KIT-ERROR"),
        ("PROVEN", ENTRY | {"flaky": True}, "2026-11-25", "FLAKY"),
        ("VIOLATED", ENTRY | {"flaky": True}, "2026-11-25", "KNOWN-FAILING"),
        ("UNPROVEN-HOST", ENTRY | {"flaky": True}, "2026-11-25", "UNPROVEN-HOST"),
        ("PROVEN", None, "2026-11-25", "PROVEN"),
    ],
)
def test_a_baseline_only_renames(
    verdict: Verdict, entry: dict[str, Any] | None, today: str, wanted: Verdict
) -> None:
    assert apply_baseline(Judgement(verdict, "r"), entry, today=today).verdict == wanted


def test_no_line_of_a_baseline_makes_a_proof() -> None:
    for verdict, flaky in itertools.product(CLASSES, (False, True)):
        found = apply_baseline(
            Judgement(verdict, "r"), ENTRY | {"flaky": flaky}, today="2026-11-25"
        )
        assert found.verdict != "PROVEN"


def test_every_verdict_has_a_class_and_a_meaning() -> None:
    assert set(get_args(Verdict)) == set(CLASSES) == set(MEANINGS)


def test_worst_puts_failures_before_gaps_before_proofs() -> None:
    assert worst(["PROVEN", "UNPROVEN-HOST"]) == "UNPROVEN-HOST"
    assert worst(["UNPROVEN-HOST", "VIOLATED", "PROVEN"]) == "VIOLATED"
    assert worst(["VIOLATED", "KIT-ERROR"]) == "KIT-ERROR"
    assert worst(["PROVEN", "ABSENT-CONFIRMED"]) == "PROVEN"


@pytest.mark.parametrize(
    ("verdicts", "left", "allow", "wanted"),
    [
        (["PROVEN", "ABSENT-CONFIRMED", "NOT-APPLICABLE"], False, False, 0),
        (["PROVEN", "UNPROVEN-HOST"], False, False, 10),
        (["PROVEN", "UNPROVEN-HOST"], False, True, 0),
        (["PROVEN", "NOT-RUN"], False, False, 10),
        (["PROVEN", "VIOLATED", "UNPROVEN-HOST"], True, False, 1),
        (["PROVEN"], True, False, 11),
        (["PROVEN", "KIT-ERROR", "VIOLATED"], True, False, 12),
        ([], False, False, 5),
    ],
)
def test_exit_statuses(verdicts: list[Verdict], left: bool, allow: bool, wanted: int) -> None:
    assert exit_status(verdicts, left_over=left, allow_incomplete=allow) == wanted


def test_a_mutated_judge_is_seen() -> None:
    """What `verify` does: any change of one stored finding changes a verdict or its reason."""
    question = Question(declared="enforced", **calibrated())
    base = judge(question)
    for name in ("inside", "outside", "control_inside", "control_outside"):
        for finding in (VIOLATED, UNFINISHED, HOLDS):
            changed = attrs.evolve(question, **{name: finding})
            if changed != question:
                assert judge(changed).verdict != base.verdict
