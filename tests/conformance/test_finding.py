"""Facts that are missing or odd make a finding unfinished, never a proof."""

from __future__ import annotations

import pytest

from execdrv_conformance.finding import (
    NOTHING,
    Arm,
    FactError,
    Facts,
    Finding,
    expect,
    find,
    holds,
    unfinished,
    violated,
)


def make_arm(**inside: object) -> Arm:
    empty = Facts({})
    return Arm(
        name="driver",
        inside=Facts(inside),
        outside=empty,
        asked=empty,
        canaries=empty,
        defaults=empty,
    )


@pytest.mark.parametrize(
    ("method", "good", "bad"),
    [
        ("number", 3, True),
        ("number", 0, "3"),
        ("decimal", 1.5, "1.5"),
        ("decimal", 2, None),
        ("text", "", 0),
        ("flag", False, 0),
        ("listed", [], {}),
        ("table", {}, []),
    ],
)
def test_facts_are_read_with_their_type(method: str, good: object, bad: object) -> None:
    assert getattr(Facts({"x": good}), method)("x") == good
    with pytest.raises(FactError, match="says x="):
        getattr(Facts({"x": bad}), method)("x")
    with pytest.raises(FactError, match="has not said 'x'"):
        getattr(Facts({}), method)("x")


def test_a_missing_fact_is_unfinished() -> None:
    found = find(lambda arm: expect(arm.inside.flag("ok"), "seen"), make_arm(), "")
    assert found == Finding("unfinished", "the probe has not said 'ok'")


@pytest.mark.parametrize("odd", [{"list": 3}, {"list": [1]}, {"list": {"a": 1}}])
def test_a_judgement_that_stumbles_is_unfinished(odd: dict[str, object]) -> None:
    found = find(lambda arm: expect(arm.inside["list"]["key"] > 1, "seen"), make_arm(**odd), "")
    assert found.state == "unfinished"


def test_an_error_of_the_observer_beats_what_the_facts_say() -> None:
    found = find(lambda arm: holds("all well"), make_arm(), "it was lost")
    assert found == unfinished("it was lost")


def test_an_observer_without_a_judgement_has_nothing_to_see() -> None:
    assert find(None, make_arm(), "it was lost") is NOTHING


def test_findings_say_what_was_seen() -> None:
    assert expect(True, "x") == holds("x")
    assert expect(False, "x") == violated("x")
    assert violated("x", parts=("a",)).parts == ("a",)
