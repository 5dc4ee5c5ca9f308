from __future__ import annotations

from typing import Any

import pytest

from execdrv.errors import SpecError
from execdrv.limits import Limits


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("memory", {"memory_bytes": 0}),
        ("memory", {"memory_bytes": -1}),
        ("memory", {"memory_bytes": 2**63}),
        ("memory", {"memory_bytes": 1.5}),
        ("memory", {"memory_bytes": True}),
        ("memory", {"memory_bytes": "64"}),
        ("memory_swap", {"memory_bytes": 1, "memory_swap_bytes": -1}),
        ("memory_swap", {"memory_bytes": 1, "memory_swap_bytes": 2**63}),
        ("memory_swap", {"memory_swap_bytes": 1}),
        ("memory_swap", {"memory_swap_bytes": 0}),
        ("cpus", {"cpus": 0}),
        ("cpus", {"cpus": -1}),
        ("cpus", {"cpus": 0.0009}),
        ("cpus", {"cpus": float("nan")}),
        ("cpus", {"cpus": float("inf")}),
        ("cpus", {"cpus": "0,5"}),
        ("cpus", {"cpus": True}),
        ("pids", {"pids": 0}),
        ("pids", {"pids": -1}),
        ("pids", {"pids": 2.0}),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_field(field: str, values: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as caught:
        Limits(**values)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "values",
    [
        {"memory_bytes": 1},
        {"memory_bytes": 2**63 - 1, "memory_swap_bytes": 2**63 - 1},
        {"memory_bytes": 1, "memory_swap_bytes": 0},
        {"cpus": 0.001},
        {"cpus": 1e6},
        {"cpus": 2},
        {"pids": 1},
    ],
)
def test_a_value_in_range_is_taken(values: dict[str, Any]) -> None:
    assert Limits(**values) == Limits(**values)


def test_the_refusal_of_too_little_cpu_names_the_minimum() -> None:
    with pytest.raises(SpecError, match=r"minimum is 0\.001"):
        Limits(cpus=0.0005)


def test_names_are_those_that_were_asked() -> None:
    assert Limits().names() == ()
    assert Limits(memory_bytes=1, memory_swap_bytes=0, pids=1).names() == (
        "memory",
        "memory_swap",
        "pids",
    )
