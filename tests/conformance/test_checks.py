"""The checks as data: each has its guarantee and its probe, and the catalogue says what it does."""

from __future__ import annotations

import ast
import functools
from typing import Any

import pytest

from execdrv.guarantees.catalogue import DOMAINS, load_catalogue
from execdrv.spec import ContainerSpec
from execdrv_conformance.agent import read_source
from execdrv_conformance.check import Case, Check
from execdrv_conformance.checks import load_checks

CHECKS = load_checks()
CATALOGUE = load_catalogue()
CASES = {case.name: case for check in CHECKS.values() for case in check.cases}
each_check = pytest.mark.parametrize("check", CHECKS.values(), ids=list(CHECKS))


@functools.cache
def functions_of(module: str) -> frozenset[str]:
    tree = ast.parse(read_source(module))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_at_least_120_guarantees_have_a_check() -> None:
    assert len(CHECKS) >= 120


def test_every_heading_is_covered() -> None:
    assert {id.partition(".")[0] for id in CHECKS} == set(DOMAINS)


@each_check
def test_the_guarantee_is_in_the_catalogue(check: Check) -> None:
    assert check.id in CATALOGUE


@each_check
def test_observers_are_those_that_the_catalogue_describes(check: Check) -> None:
    """A side with nothing of its own to see has no text, and one that sees has one."""
    guarantee = CATALOGUE[check.id]
    assert bool(guarantee.inside) == (check.inside is not None), guarantee.inside
    assert bool(guarantee.outside) == (check.outside is not None), guarantee.outside


@each_check
def test_it_is_gathered_in_one_way(check: Check) -> None:
    assert (check.scenario is None) != (check.probe is None and check.observe is None)
    assert check.inside is not None or check.outside is not None
    assert check.cases
    assert check.likely, "a failure has a likely cause"
    if check.inside is not None and check.scenario is None:
        assert check.probe is not None
    if check.outside is not None and check.scenario is None:
        assert check.observe is not None or check.before is not None


@each_check
def test_its_probe_is_there(check: Check) -> None:
    if check.probe is not None:
        module, _, name = check.probe.partition(":")
        assert name in functions_of(module)


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_a_case_asks_for_what_a_spec_has(case: Case) -> None:
    ContainerSpec(**{"argv": ["true"], **case.fields})
    assert case.name.replace("-", "").isalnum()
    assert 0 < case.budget_s <= 120


@each_check
def test_a_request_asks_for_the_guarantee(check: Check) -> None:
    if check.request is not None:
        spec: Any = ContainerSpec(**{"argv": ["true"], **check.request})
        assert check.id in {id for ids in spec.asked().values() for id in ids}


def test_cases_are_few() -> None:
    """Each costs a container a run, and two where it is calibrated."""
    probed = {case.name for check in CHECKS.values() if check.probe for case in check.cases}
    assert len(probed) <= 30
