"""From findings to a verdict: the one place that decides, pure and total.

The order of judging is written once, in `judge`; the first line that matches wins. Whatever is
judged is in a Question, so that a stored report is judged again without a machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from execdrv.guarantees.types import Kind
from execdrv_conformance.finding import NOTHING, Finding, State
from execdrv_conformance.verdict import CLASSES, Verdict, worst

#: A declaration for one spec: a `when` is enforced or absent once its condition is known.
Declared = Literal["enforced", "absent", "partial", "unclaimed", "not-applicable"]

#: What became of a request for something declared absent.
Request = Literal["refused", "open", "unfinished"]


@attrs.frozen(kw_only=True)
class Question:
    """All that the verdict of one guarantee in one case depends on."""

    kind: Kind
    declared: Declared
    #: For `absent`: it may hold by luck.
    incidental: bool = False
    #: For `partial`: names of the parts that remain open.
    remains: tuple[str, ...] = ()
    #: Why the kit failed; empty if it did not.
    kit_error: str = ""
    #: Why it never ran; empty if it did.
    not_run: str = ""
    #: What this machine lacks, in words.
    lacking: tuple[str, ...] = ()
    inside: Finding = NOTHING
    outside: Finding = NOTHING
    #: The same with no isolation; needed for kinds isolating and limit where the driver holds.
    control_inside: Finding = NOTHING
    control_outside: Finding = NOTHING
    #: For `absent`: what became of the requests.
    request: Request | None = None
    #: What was answered to the request that was not refused as it must be.
    request_saw: str = ""


@attrs.frozen
class Judgement:
    """A verdict with its reason, in one line."""

    verdict: Verdict
    reason: str


Both = Literal["holds", "violated", "unfinished", "nothing", "conflict"]


def combine(inside: State, outside: State) -> Both:
    """What two observers say together; one that has nothing to see leaves it to the other."""
    if "unfinished" in (inside, outside):
        return "unfinished"
    if inside == "nothing":
        return outside
    if outside in ("nothing", inside):
        return inside
    return "conflict"


def is_calibrated(question: Question) -> bool:
    """Whether each observer that says "holds" says "violated" where nothing is isolated."""
    pairs = (
        (question.inside, question.control_inside),
        (question.outside, question.control_outside),
    )
    return all(control.state == "violated" for own, control in pairs if own.state == "holds")


def judge(question: Question) -> Judgement:
    """The verdict; total over every question."""
    if question.kit_error:
        return Judgement("KIT-ERROR", question.kit_error)
    if question.not_run:
        return Judgement("NOT-RUN", question.not_run)
    if question.declared == "not-applicable":
        return Judgement("NOT-APPLICABLE", "the driver's mechanism has no such thing")
    if question.declared == "unclaimed":
        would = _judge_measured(attrs.evolve(question, declared="enforced"))
        return Judgement("UNCLAIMED", f"would be {would.verdict}: {would.reason}")
    return _judge_measured(question)


def _judge_measured(question: Question) -> Judgement:
    if question.lacking:
        return Judgement("UNPROVEN-HOST", "this machine lacks " + "; ".join(question.lacking))
    own = combine(question.inside.state, question.outside.state)
    calibrates = question.kind in ("isolating", "limit") and own == "holds"
    if own == "unfinished":
        return Judgement("UNTESTABLE", _unfinished(question.inside, question.outside))
    if own == "nothing":
        return Judgement("UNTESTABLE", "no observer has anything to see")
    if question.request == "unfinished":
        return Judgement("UNTESTABLE", f"the request: {question.request_saw}")
    if calibrates and "unfinished" in (
        question.control_inside.state,
        question.control_outside.state,
    ):
        why = _unfinished(question.control_inside, question.control_outside)
        return Judgement("UNTESTABLE", f"the control: {why}")
    if question.declared == "absent" and question.request == "open":
        return Judgement("FAILS-OPEN", question.request_saw)
    if own == "conflict":
        return Judgement("CONFLICT", _say(question.inside, question.outside))
    if calibrates and not is_calibrated(question):
        said = _say(question.control_inside, question.control_outside)
        return Judgement("UNCALIBRATED", f"with no isolation: {said}")
    return _judge_declared(question, own)


def _judge_declared(question: Question, own: Both) -> Judgement:
    said = _say(question.inside, question.outside)
    if question.declared == "enforced":
        return Judgement("PROVEN" if own == "holds" else "VIOLATED", said)
    if question.declared == "partial":
        if own == "holds":
            return Judgement("UNDER-CLAIMED", f"declared in part, and holds in full: {said}")
        failed = {*question.inside.parts, *question.outside.parts}
        if failed and failed == set(question.remains):
            return Judgement("PARTIAL-CONFIRMED", said)
        return Judgement("VIOLATED", f"more is open than what is said to remain: {said}")
    if own == "violated":
        return Judgement("ABSENT-CONFIRMED", said)
    if question.incidental:
        return Judgement("INCIDENTAL", said)
    return Judgement("UNDER-CLAIMED", f"declared absent: {said}")


def _say(inside: Finding, outside: Finding) -> str:
    words = [
        f"{name} saw: {finding.saw}"
        for name, finding in (("inside", inside), ("outside", outside))
        if finding.state != "nothing"
    ]
    return "; ".join(words)


def _unfinished(inside: Finding, outside: Finding) -> str:
    return "; ".join(one.saw for one in (inside, outside) if one.state == "unfinished")


def judge_together(judgements: list[Judgement]) -> Judgement:
    """One verdict for a guarantee that was measured under several specs.

    A part that is absent by a condition which is false there, as declared, takes nothing from what
    is proven where the condition is true.
    """
    verdict = worst([judgement.verdict for judgement in judgements])
    reasons = [one.reason for one in judgements if one.verdict == verdict]
    return Judgement(verdict, reasons[0])


def settle_declaration(
    status: Mapping[str, Any], conditions: Mapping[str, bool]
) -> tuple[Declared, bool, tuple[str, ...]]:
    """A declared status with its condition known: declaration, incidental, remains.

    Args:
        status: a status as plain data (Status.to_plain).
        conditions: truth of the named conditions for the spec that was run.
    """
    kind = status.get("kind")
    incidental = bool(status.get("incidental", False))
    remains = tuple(status.get("parts", ()))
    if kind == "when":
        kind = "enforced" if conditions.get(status.get("condition", ""), False) else "absent"
    if kind not in ("enforced", "absent", "partial", "unclaimed", "not-applicable"):
        raise ValueError(f"there is no status {kind!r}")
    declared: Declared = kind
    return declared, incidental, remains


def apply_baseline(
    judgement: Judgement, entry: Mapping[str, Any] | None, *, today: str
) -> Judgement:
    """Rename a verdict by a line of the baseline; never into a proof.

    Args:
        entry: `reason`, `issue`, `expires` (YYYY-MM-DD) and perhaps `flaky`; None: no line.
        today: YYYY-MM-DD.
    """
    if entry is None or CLASSES[judgement.verdict] == "kit":
        return judgement
    if str(entry["expires"]) < today:
        return Judgement("EXPIRED", f"the baseline's line expired on {entry['expires']}")
    why = f"{entry['reason']} ({entry['issue']})"
    if entry.get("flaky"):
        if judgement.verdict == "PROVEN":
            return Judgement("FLAKY", why)
        if CLASSES[judgement.verdict] == "fail":
            return Judgement("KNOWN-FAILING", f"{why}; now {judgement.verdict}")
        return judgement
    if CLASSES[judgement.verdict] == "fail":
        return Judgement("KNOWN-FAILING", f"{why}; {judgement.verdict}: {judgement.reason}")
    if CLASSES[judgement.verdict] == "incomplete":
        return judgement
    return Judgement("STALE", f"the baseline says that it fails, but it is {judgement.verdict}")
