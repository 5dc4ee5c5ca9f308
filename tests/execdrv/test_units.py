"""Sizes, times and numbers: what is read, and what is refused by name and value."""

from __future__ import annotations

import math

import pytest

from execdrv import units
from execdrv.errors import SpecError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1),
        ("4096", 4096),
        ("64M", 64 << 20),
        ("1m", 1 << 20),
        ("6MiB", 6 << 20),
        ("1.5G", 3 << 29),
        ("10B", 10),
        ("2T", 2 << 40),
        (2**63 - 1, 2**63 - 1),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_a_size_is_read(value: object, expected: int) -> None:
    assert units.parse_bytes(value, field="memory") == expected


@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, "-1", "1e3", "64 MiB ", " 64M", "64MB", "", "M", "1.M", "\u0661", True, 1.5, None),
        *(2**63, "9223372036854775808", "8388608T", b"64M", "inf", "nan", "0x10", "64M\n"),
    ],
)
def test_a_wrong_size_is_refused_with_its_value(value: object) -> None:
    with pytest.raises(SpecError, match="memory") as caught:
        units.parse_bytes(value, field="memory")
    assert caught.value.field == "memory"
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1.0), ("250ms", 0.25), ("1.5s", 1.5), ("2m", 120.0), ("1h", 3600.0), ("3", 3.0)],
)
def test_a_time_is_read(value: object, expected: float) -> None:
    assert units.parse_seconds(value, field="timeout") == pytest.approx(expected)


@pytest.mark.parametrize("value", [0, -1, "0s", "1 s", "1w", math.nan, math.inf, "", None, True])
def test_a_wrong_time_is_refused(value: object) -> None:
    with pytest.raises(SpecError, match="timeout"):
        units.parse_seconds(value, field="timeout")


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, -math.inf, "0,5", "1e6", "", "nan"])
def test_a_wrong_number_of_cpus_is_refused(value: object) -> None:
    with pytest.raises(SpecError, match="cpus"):
        units.parse_decimal(value, field="cpus", minimum=0.001)


def test_the_smallest_number_of_cpus_is_named() -> None:
    with pytest.raises(SpecError, match=r"at least 0\.001"):
        units.parse_decimal("0.0009", field="cpus", minimum=0.001)
    assert units.parse_decimal(10**6, field="cpus", minimum=0.001) == 10**6


@pytest.mark.parametrize("value", ["\u0661", "+1", "-1", "1.0", " 1", "", 2**70, "9" * 5000, True])
def test_a_wrong_count_is_refused(value: object) -> None:
    with pytest.raises(SpecError, match="pids"):
        units.parse_count(value, field="pids", minimum=1, maximum=10)
