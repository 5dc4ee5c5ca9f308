"""What is gathered once for several checks counts for each of them, with all that was asked."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from execdrv.driver import DriverRef
from execdrv_conformance.bench import Bench
from execdrv_conformance.check import Case, Check, Gathered
from execdrv_conformance.collect import collect

CASE = Case(name="case")


class NoCanaries:
    """Stands in for those of a stand-in host."""

    def facts(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    unused = cast(Any, None)
    return Bench(
        arm="driver",
        driver=DriverRef(target="none"),
        declaration=unused,
        host=unused,
        canaries=cast(Any, NoCanaries()),
        scratch=tmp_path,
        machine={},
        rng=random.Random(1),
        root=tmp_path,
    )


def ask(bench: Bench, fields: Mapping[str, Any], *, impostor: str = "") -> None:
    """As `Bench.agent` does when it starts one."""
    bench.asked = dict(fields)
    bench.impostor = bench.impostor or impostor


def gather(bench: Bench) -> str:
    ask(bench, {"memory": 1})
    return "facts"


def share_it(bench: Bench) -> Gathered:
    return {"facts": bench.share(gather)}, None


def make_check(id: str, scenario: Any) -> Check:
    return Check(id=id, cases=(CASE,), scenario=scenario, inside=None, outside=None)


def test_every_check_of_a_shared_scenario_knows_what_was_asked(bench: Bench) -> None:
    """Else conditions of `when` are judged by the defaults for all but the first."""
    found = collect(bench, CASE, [make_check(id, share_it) for id in ("a", "b", "c")])
    assert [one["asked"] for one in found["checks"].values()] == [{"memory": 1}] * 3
    assert all(one["inside"] == {"facts": "facts"} for one in found["checks"].values())


def test_one_that_shares_within_another_knows_it_too(bench: Bench) -> None:
    def around(bench: Bench) -> str:
        return bench.share(gather)

    checks = [make_check("a", share_it), make_check("b", lambda one: ({}, one.share(around)))]
    found = collect(bench, CASE, checks)
    assert [one["asked"] for one in found["checks"].values()] == [{"memory": 1}] * 2


def test_what_asks_for_nothing_of_a_driver_leaves_what_was_asked(bench: Bench) -> None:
    def look(bench: Bench) -> str:
        return "seen"

    def scenario(bench: Bench) -> Gathered:
        ask(bench, {"user": "0"})
        bench.share(look)
        return {}, None

    found = collect(bench, CASE, [make_check(id, scenario) for id in ("a", "b")])
    assert [one["asked"] for one in found["checks"].values()] == [{"user": "0"}] * 2


def test_a_shared_container_without_fields_asked_for_nothing(bench: Bench) -> None:
    def start_plain(bench: Bench) -> None:
        ask(bench, {})

    def scenario(bench: Bench) -> Gathered:
        ask(bench, {"user": "0"})
        bench.share(start_plain)
        return {}, None

    found = collect(bench, CASE, [make_check(id, scenario) for id in ("a", "b")])
    assert [one["asked"] for one in found["checks"].values()] == [{}, {}]


def test_who_speaks_in_a_shared_scenario_speaks_for_all_of_its_checks(bench: Bench) -> None:
    def speak(bench: Bench) -> str:
        ask(bench, {}, impostor="another process")
        return ""

    checks = [make_check(id, lambda one: ({}, {"said": one.share(speak)})) for id in ("a", "b")]
    found = collect(bench, CASE, checks)
    assert [one["impostor"] for one in found["checks"].values()] == ["another process"] * 2


def test_who_spoke_before_a_shared_scenario_speaks_for_that_check_alone(bench: Bench) -> None:
    def scenario(bench: Bench) -> Gathered:
        ask(bench, {}, impostor="another process")
        return share_it(bench)

    first = collect(bench, CASE, [make_check("a", scenario)])["checks"]["a"]
    second = collect(bench, CASE, [make_check("b", share_it)])["checks"]["b"]
    assert first["impostor"] == "another process"
    assert second["impostor"] == ""
