"""What a run says of one guarantee: the verdict with all that it was judged from.

Plain values; `judge_stored` recomputes a verdict from stored evidence alone, for the session as it
runs and for `verify` later: there is one way to a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from execdrv.guarantees.facts import MACHINE_FACTS
from execdrv.guarantees.types import Guarantee
from execdrv_conformance.check import Check
from execdrv_conformance.declaration import Declaration
from execdrv_conformance.finding import NOTHING, Arm, Facts, Finding, find
from execdrv_conformance.judge import (
    Judgement,
    Question,
    Request,
    apply_baseline,
    judge,
    judge_together,
    settle_declaration,
)
from execdrv_conformance.verdict import CLASSES, Verdict

#: Evidence by arm and case: `driver/walls`.
Evidence = Mapping[str, Mapping[str, Any]]


@attrs.frozen(kw_only=True)
class Measured:
    """One guarantee in one case."""

    case: str
    declared: str
    judgement: Judgement
    inside: Finding
    outside: Finding
    control_inside: Finding
    control_outside: Finding


@attrs.frozen(kw_only=True)
class Result:
    """One guarantee."""

    id: str
    verdict: Verdict
    reason: str
    #: Whether it counts: a provisional id is measured and shown.
    scored: bool
    one_sided: bool
    measured: tuple[Measured, ...]

    @property
    def is_failure(self) -> bool:
        """Whether the run fails by it; an id that is not scored can fail one, and proves none."""
        kind = CLASSES[self.verdict]
        return kind == "kit" or kind == "fail"


def needs_control(guarantee: Guarantee, inside: Finding, outside: Finding) -> bool:
    """Whether a verdict hangs on what the same probe says with no isolation."""
    return guarantee.kind in ("isolating", "limit") and "holds" in (inside.state, outside.state)


def read_findings(
    check: Check, evidence: Evidence, *, arm: str, case: str, declaration: Declaration
) -> tuple[Finding, Finding, str, dict[str, Any]]:
    """What both observers found in one arm, the kit's error, and the fields that were asked."""
    gathered = evidence.get(f"{arm}/{case}")
    if gathered is None:
        return NOTHING, NOTHING, "", {}
    if "lost" in gathered:
        lost = Finding("unfinished", str(gathered["lost"]))
        return lost, lost, "", {}
    if "checks" not in gathered:
        return NOTHING, NOTHING, _say_failed(gathered), {}
    own: Mapping[str, Any] = gathered["checks"].get(check.id, {"error": "it was not gathered"})
    asked = dict(own.get("asked", gathered.get("asked", {})))
    values = Arm(
        name=arm,
        inside=Facts(own.get("inside") or {}),
        outside=Facts(own.get("outside") or {}, source="the observer"),
        asked=Facts(asked, source="the spec"),
        canaries=Facts(gathered.get("canaries", {}), source="the stand-in host"),
        defaults=Facts(declaration.defaults, source="the declaration"),
    )
    error = str(own.get("error", ""))
    inside = find(check.inside, values, error or str(own.get("inside_error", "")))
    outside = find(check.outside, values, error or str(own.get("outside_error", "")))
    if impostor := str(own.get("impostor", "")):
        # Whatever it says, the observer says the opposite: it was not the job that spoke.
        outside = Finding("holds" if inside.state == "violated" else "violated", impostor)
    return inside, outside, str(own.get("kit_error", "")), asked


def read_requests(stored: Mapping[str, Any] | None) -> tuple[Request | None, str]:
    """What became of requests for what is declared absent."""
    if stored is None:
        return None, ""
    if "requests" not in stored:
        return "unfinished", str(stored.get("lost") or _say_failed(stored))
    for request in stored["requests"]:
        classes = request["error"] or []
        if request["ran"]:
            return "open", f"{request['fields']} was accepted, and the command ran"
        if "UnsupportedError" not in classes:
            said = f"{classes[0]}: {request['message']}" if classes else "nothing"
            return "open", f"{request['fields']} was answered by {said}"
        if request["left"]:
            return "open", f"{request['fields']} was refused, and {request['left'][0]} is left"
    return "refused", ""


def _say_failed(answer: Mapping[str, Any]) -> str:
    """The last line of what the stand-in host's worker says of its own failure."""
    said = str(answer.get("failed") or answer.get("refused") or "there was no answer")
    return said.strip().splitlines()[-1]


def find_lacking(
    guarantee: Guarantee, machine: Mapping[str, Any], *, unavailable: str
) -> tuple[str, ...]:
    """What a guarantee needs that is not here, in words.

    Args:
        machine: what the stand-in host said of the machine, or why there is none.
        unavailable: why the driver can't work on this machine at all; empty: it can.
    """
    if "facts" not in machine or machine.get("lost"):
        return (f"a stand-in host ({say_no_standin(machine)})",)
    if unavailable:
        return (f"what the driver needs ({unavailable})",)
    needed = (*guarantee.needs, *guarantee.proof_needs)
    return tuple(MACHINE_FACTS[name] for name in needed if not machine["facts"].get(name, False))


def say_no_standin(machine: Mapping[str, Any]) -> str:
    """Why there is no stand-in host, in one line."""
    return str(machine.get("lost") or _say_failed(machine)).strip().splitlines()[-1]


def judge_stored(
    check: Check,
    guarantee: Guarantee,
    *,
    declaration: Declaration,
    evidence: Evidence,
    machine: Mapping[str, bool],
    lacking: tuple[str, ...],
    request: Mapping[str, Any] | None,
    not_run: str = "",
    baseline: Mapping[str, Any] | None = None,
    today: str,
) -> Result:
    """The result of one check, from what is stored."""
    measured = tuple(
        _measure_case(
            check,
            guarantee,
            case.name,
            declaration=declaration,
            evidence=evidence,
            machine=machine,
            request=request,
            known=Question(
                kind=guarantee.kind, declared="unclaimed", not_run=not_run, lacking=lacking
            ),
        )
        for case in check.cases
    )
    together = judge_together([one.judgement for one in measured])
    final = apply_baseline(together, baseline, today=today)
    return Result(
        id=check.id,
        verdict=final.verdict,
        reason=final.reason,
        scored=not guarantee.provisional,
        one_sided=check.inside is None or check.outside is None,
        measured=measured,
    )


def _measure_case(
    check: Check,
    guarantee: Guarantee,
    case: str,
    *,
    declaration: Declaration,
    evidence: Evidence,
    machine: Mapping[str, bool],
    request: Mapping[str, Any] | None,
    known: Question,
) -> Measured:
    """One guarantee in one case: `known`, with what its evidence says, judged."""
    inside, outside, kit_error, asked = read_findings(
        check, evidence, arm="driver", case=case, declaration=declaration
    )
    control_inside, control_outside, control_error = NOTHING, NOTHING, ""
    if needs_control(guarantee, inside, outside):
        control_inside, control_outside, control_error, _ = read_findings(
            check, evidence, arm="control", case=case, declaration=declaration
        )
    declared, incidental, remains = settle_declaration(
        declaration.statuses.get(check.id, {"kind": "unclaimed"}),
        declaration.conditions(asked, machine),
    )
    asked_for, saw = read_requests(request if declared == "absent" else None)
    question = attrs.evolve(
        known,
        declared=declared,
        incidental=incidental,
        remains=remains,
        kit_error=kit_error or control_error,
        inside=inside,
        outside=outside,
        control_inside=control_inside,
        control_outside=control_outside,
        request=asked_for,
        request_saw=saw,
    )
    return Measured(
        case=case,
        declared=declared,
        judgement=judge(question),
        inside=inside,
        outside=outside,
        control_inside=control_inside,
        control_outside=control_outside,
    )
