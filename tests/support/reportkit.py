"""Reports of the conformance kit from hand-made evidence: no machine, no driver, no root.

A run directory as workers leave it, with three small checks: one seen from outside alone, one from
inside alone, one from both sides.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from execdrv.guarantees.catalogue import load_catalogue
from execdrv.guarantees.facts import MACHINE_FACTS
from execdrv_conformance.checks import load_checks
from execdrv_conformance.run import merge_report
from execdrv_conformance.store import write_json

IDS = ("proc.exit-code", "pid.ns", "pid.hidden")
CANARIES = {"namespaces": {"pid": "pid:[1]"}, "processes": {"root": 3, "user": 4}}
#: What jobs of each kind see: in a pid namespace of their own, and in the machine's.
OWN = {
    "pid.ns": {
        "inside": {"pid": 2, "chain": [2, 1], "link": "pid:[7]"},
        "outside": {"numbers": [54, 2], "link": "pid:[7]", "caller": "pid:[1]"},
    },
    "pid.hidden": {"inside": {"listed": [], "signalled": []}},
}
SHARED = {
    "pid.ns": {
        "inside": {"pid": 54, "chain": [54], "link": "pid:[1]"},
        "outside": {"numbers": [54], "link": "pid:[1]", "caller": "pid:[1]"},
    },
    "pid.hidden": {"inside": {"listed": [3], "signalled": [3]}},
}


def evidence_of(facts: dict[str, Any], *, codes_right: bool = True) -> dict[str, Any]:
    """A case's evidence with these facts by id."""
    exits = [[0, 0, None, "exited"], [7, 7 if codes_right else 1, None, "exited"]]
    return {
        "asked": {},
        "left_out": {},
        "calls": [],
        "checks": {**facts, "proc.exit-code": {"outside": {"exits": exits}}},
        "canaries": CANARIES,
    }


def declaration_of(**statuses: dict[str, Any]) -> dict[str, Any]:
    """A declaration that claims all but these; `pid__ns` stands for pid.ns."""
    named = {name.replace("__", ".").replace("_", "-"): one for name, one in statuses.items()}
    return {
        "target": "mydrv",
        "options": {},
        "name": "mydrv",
        "version": "1.2",
        "contract": 1,
        "statuses": {id: named.get(id, {"kind": "enforced"}) for id in load_catalogue()},
        "defaults": {
            "uid": 0,
            "gid": 0,
            "capabilities": [],
            "root_mode": "private",
            "net": "none",
            "namespaces": [],
        },
        "uses_group": True,
        "origin": {"module": "mydrv", "class": "Driver", "source": ""},
        "unavailable": "",
    }


def fill_run(
    directory: Path,
    *,
    driver: dict[str, Any] | None = None,
    control: dict[str, Any] | None = None,
    declaration: dict[str, Any] | None = None,
    requests: dict[str, Any] | None = None,
    ids: tuple[str, ...] = IDS,
    done: tuple[str, ...] | None = None,
    lacking: tuple[str, ...] = (),
) -> Path:
    """A run directory as workers leave it.

    Args:
        driver, control: evidence of the arms; None: all is as a good driver has it.
        requests: what became of requests, by id.
        done: ids that have a result; None: all.
        lacking: facts that the machine lacks.
    """
    directory.mkdir(exist_ok=True)
    write_json(
        directory / "session.json",
        {
            "target": "mydrv",
            "options": {},
            "ids": list(ids),
            "seed": 7,
            "today": "2026-11-25",
            "started": "2026-11-25T08:00:00+00:00",
            "begun_s": 0.0,
        },
    )
    facts = {name: name not in lacking for name in MACHINE_FACTS}
    write_json(
        directory / "machine.json",
        {"facts": facts, "kernel": "6.1", "python": "3.11", "uid": 0, "cpus": 2},
    )
    write_json(directory / "driver.json", declaration or declaration_of())
    for case in {case.name for id in IDS for case in load_checks()[id].cases}:
        write_json(directory / f"driver-{case}.json", driver or evidence_of(OWN))
        write_json(directory / f"control-{case}.json", control or evidence_of(SHARED))
    for id in ids if done is None else done:
        write_json(directory / f"result-{id}.json", {"id": id, "verdict": "?", "took_s": 0.5})
    for id, request in (requests or {}).items():
        write_json(directory / f"request-{id}.json", {"requests": [request]})
    return directory


def make(directory: Path, **fields: Any) -> dict[str, Any]:
    """The report of a made-up run; `baseline`, `problems`, `left_over` go to `merge_report`."""
    own = {
        name: fields.pop(name) for name in ("baseline", "problems", "left_over") if name in fields
    }
    return merge_report(fill_run(directory, **fields), **own)


def verdicts_of(report: dict[str, Any]) -> dict[str, str]:
    """Verdict by id."""
    return {entry["id"]: entry["verdict"] for entry in report["checks"]}


def entry_of(report: dict[str, Any], id: str) -> dict[str, Any]:
    """One guarantee's entry."""
    return next(entry for entry in report["checks"] if entry["id"] == id)


def copy(report: dict[str, Any]) -> dict[str, Any]:
    """A report to be changed."""
    changed: dict[str, Any] = json.loads(json.dumps(report))
    return changed


#: A request that was refused as it must be.
REFUSED = {
    "fields": {"require": ["pid.ns"]},
    "ran": False,
    "error": ["UnsupportedError", "ExecdrvError"],
    "message": "cannot",
    "left": [],
}
ABSENT = {"kind": "absent", "reason": "no namespace is made"}
