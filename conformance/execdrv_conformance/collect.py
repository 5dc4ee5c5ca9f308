"""Gathers the evidence of a case: runs its probes and scenarios, and writes down what was said.

Nothing is judged here. What a driver or a job does wrong becomes a line in the evidence; only what
the kit itself does wrong is a `kit_error`. Runs in the stand-in host's worker.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any

from execdrv.errors import ExecdrvError
from execdrv_conformance.agent import AgentError
from execdrv_conformance.bench import Bench, Look, to_plain
from execdrv_conformance.check import Case, Check, Gathered

#: Containers that one case may use up: probes that die take the rest with them.
MOST_CONTAINERS = 6


def collect(bench: Bench, case: Case, checks: Sequence[Check]) -> dict[str, Any]:
    """The evidence of one case in one arm, as plain data.

    Args:
        checks: those of this case that were selected; their order is shuffled by the seed.
    """
    order = list(checks)
    bench.rng.shuffle(order)
    found: dict[str, dict[str, Any]] = {}
    for check in order:
        if check.scenario is not None:
            found[check.id] = _collect_scenario(bench, check.scenario)
    probing = [check for check in order if check.scenario is None]
    error = ""
    containers = 0
    while probing and containers < MOST_CONTAINERS:
        containers += 1
        error = _collect_probes(bench, case, probing, found)
        rest = [check for check in probing if check.id not in found]
        if len(rest) == len(probing):
            # Not one probe could begin: another container would do no better.
            break
        probing = rest
    for check in order:
        found.setdefault(check.id, {"error": error or "the case's containers were used up"})
    return {
        "case": case.name,
        "arm": bench.arm,
        "order": [check.id for check in order],
        "asked": to_plain(bench.asked),
        "left_out": dict(bench.left_out),
        "calls": bench.calls[-200:],
        "checks": found,
        "stderr": bench.stderr,
        "canaries": bench.canaries.facts(),
    }


def _collect_scenario(bench: Bench, scenario: Callable[[Bench], Gathered]) -> dict[str, Any]:
    bench.asked = {}
    bench.impostor = ""
    try:
        inside, outside = scenario(bench)
    except (AgentError, ExecdrvError, TimeoutError) as error:
        return {"error": f"{type(error).__name__}: {error}", "asked": to_plain(bench.asked)}
    except Exception as error:
        return {"kit_error": _explain(error)}
    return {
        "inside": to_plain(inside or {}),
        "outside": to_plain(outside or {}),
        "asked": to_plain(bench.asked),
        "impostor": bench.impostor,
    }


def _collect_probes(
    bench: Bench, case: Case, checks: Sequence[Check], found: dict[str, dict[str, Any]]
) -> str:
    """Run probes in one container until one dies; returns why it ended early."""
    bench.impostor = ""
    fields = dict(case.fields)
    if case.more_fields is not None:
        fields.update(case.more_fields(bench))
    try:
        for check in checks:
            if check.plant is not None:
                check.plant(bench)
        with bench.agent(**fields) as look:
            for check in checks:
                found[check.id] = evidence = _collect_probe(look, check)
                if evidence.pop("lost", False):
                    return "the agent was lost in an earlier probe"
    except (AgentError, ExecdrvError) as error:
        return f"{type(error).__name__}: {error}"
    except Exception as error:
        for check in checks:
            found.setdefault(check.id, {"kit_error": _explain(error)})
    return ""


def _collect_probe(look: Look, check: Check) -> dict[str, Any]:
    """The facts of both observers for one check."""
    evidence: dict[str, Any] = {
        "inside": {},
        "outside": {},
        "asked": to_plain(look.fields),
        "impostor": look.bench.impostor,
    }
    try:
        arguments = check.arguments(look) if check.arguments is not None else {}
        before = check.before(look) if check.before is not None else None
        if check.probe is not None:
            try:
                evidence["inside"] = look.agent.call(
                    check.probe, arguments, timeout_s=check.timeout_s
                )
            except AgentError as error:
                evidence["inside_error"] = str(error)
                if "the probe failed" not in str(error):
                    evidence["lost"] = True
        if check.observe is not None:
            _observe(look, check.observe, evidence)
        if before is not None:
            evidence["outside"]["before"] = to_plain(before)
    except Exception as error:
        evidence["kit_error"] = _explain(error)
    return evidence


def _observe(
    look: Look, observe: Callable[[Look], dict[str, Any]], evidence: dict[str, Any]
) -> None:
    try:
        evidence["outside"] = to_plain(observe(look))
    except (OSError, AgentError, ExecdrvError) as error:
        # The process is not there any more, or never was: that is no fault of the kit's.
        evidence["outside_error"] = f"the observer: {error}"


def _explain(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({last.filename.rpartition('/')[2]}:{last.lineno})"


def list_requests(check: Check, bench: Bench) -> list[dict[str, Any]]:
    """The specs that ask for a guarantee which the driver does not keep under them.

    Once by the guarantee's id and once by its own fields; for one that is absent under a condition,
    by its id in those of its cases in which the condition is false.
    """
    by_id = {"require": [check.id]}
    if bench.declaration.statuses.get(check.id, {}).get("kind") != "when":
        return [by_id, *([dict(check.request)] if check.request is not None else [])]
    found = []
    for case in check.cases:
        fields = bench.adapt(case.fields)
        conditions = bench.declaration.conditions(fields, bench.machine)
        if not bench.declaration.is_offered(check.id, conditions):
            found.append({**fields, **by_id})
    return found


def collect_request(bench: Bench, fields: dict[str, Any]) -> dict[str, Any]:
    """Ask for something that the driver declares absent, and see what becomes of it.

    It must be refused by UnsupportedError before anything runs. The fields stand alone, so that no
    other one can be the reason.
    """
    nonce = bench.nonce()
    canary = bench.directory("request") / "touched"
    canary.parent.chmod(0o777)
    answer: dict[str, Any] = {"fields": to_plain(fields), "ran": False, "error": None}
    before = bench.snapshot()
    program = f"import os,sys; open({str(canary)!r},'w').close()"
    try:
        argv = [*bench.python(program), nonce]
        with bench.start(argv, stdout=None, stderr=None, **fields) as box:
            answer["ran"] = True
            answer["exit"] = box.wait(timeout_s=10.0).reason
    except ExecdrvError as error:
        answer["error"] = [cls.__name__ for cls in type(error).__mro__]
        answer["message"] = str(error)
    except TimeoutError:
        answer["exit"] = "none in 10 s"
    answer["left"] = before.compare(bench.snapshot()).get("file", [])
    return answer
