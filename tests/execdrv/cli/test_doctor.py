"""`execdrv doctor`: 1 only for what a built-in driver needs, each with its way out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from execdrv.cli import doctor
from execdrv.cli.survey import Found
from execdrv.guarantees.facts import MACHINE_FACTS
from execdrv.machine import Finding


def test_it_looks_at_everything(cli: Any) -> None:
    result = cli.run("doctor", "--json")
    report = json.loads(result.stdout)
    assert set(MACHINE_FACTS) <= {one["name"] for one in report["machine"]}
    assert {one["name"] for one in report["drivers"]} >= {"native", "lxc", "chroot"}
    assert result.returncode == (0 if report["ok"] else 1)
    lacking = [one for one in report["machine"] if not one["present"]]
    assert all(one["hint"] for one in lacking)
    text = cli.run("doctor")
    assert text.returncode == result.returncode
    for one in lacking:
        assert one["hint"] in text.stdout.decode()


def survey_of(kind: str, *, builtin: bool = True, problem: str | None = None) -> Found:
    offers = {"offers": {"fs.write-private": {"kind": kind, "reason": "", "condition": ""}}}
    return Found(
        name="d",
        providers=("d 1",),
        builtin=builtin,
        is_driver=True,
        offers=offers,
        problem=problem,
    )


@pytest.mark.parametrize(
    ("driver", "status"),
    [
        (survey_of("enforced"), 1),
        (survey_of("when"), 1),
        (survey_of("absent"), 0),
        (survey_of("enforced", builtin=False), 0),
        (survey_of("absent", problem="no bindings"), 1),
        (survey_of("absent", builtin=False, problem="no bindings"), 0),
    ],
)
def test_only_what_a_built_in_driver_needs_counts(
    cli: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    driver: Found,
    status: int,
) -> None:
    from execdrv.cli import main, survey

    finding = Finding(name="overlay", present=False, text="the overlay", hint="load it")
    monkeypatch.setattr(doctor, "describe_machine", lambda: [finding])
    monkeypatch.setattr(survey, "survey", lambda **_: [driver])
    assert main(["doctor"]) == status
    output = capfd.readouterr().out
    assert "load it" in output
    assert ("lacking: " in output) == (status == 1)
