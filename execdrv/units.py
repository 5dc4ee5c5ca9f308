"""Sizes, times and numbers in the notations people write: 64M, 1.5G, 250ms.

Pure. Every parser raises SpecError with the field's name and the value. Binary prefixes are
meant (K = 1024); "MB" is refused, since half of all tools read it as 10^6.
"""

from __future__ import annotations

import math
import re

from execdrv.errors import SpecError

#: The largest byte count the kernel's limit files take.
MAX_BYTES = 2**63 - 1

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?:([KMGT])(?:iB)?|B)?", re.IGNORECASE)
_SIZE_FACTORS = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)?")
_TIME_FACTORS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def parse_bytes(value: object, *, field: str, minimum: int = 1) -> int:
    """A size in bytes from an int or a text such as "64M", "1.5G" or "6MiB".

    Args:
        value: an int, or a number with K, M, G or T (optionally "iB"); fractions are rounded down.
        field: the spec field, for the error.
        minimum: the smallest size that is allowed.
    Raises:
        SpecError: not a size, below `minimum`, or above 2**63-1.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str):
        matched = _SIZE.fullmatch(value)
        if matched is None:
            raise _refuse(field, value, "not a size; write for example 64M, 1.5G or 4096")
        prefix = matched.group(2)
        factor = _SIZE_FACTORS[prefix.lower()] if prefix else 1
        # Integers stay exact: a float holds only 53 bits.
        number = matched.group(1)
        size = int(number) * factor if number.isdigit() else int(float(number) * factor)
    else:
        raise _refuse(field, value, "not a size; write for example 64M, 1.5G or 4096")
    if size < minimum:
        raise _refuse(field, value, f"smaller than {minimum} bytes")
    if size > MAX_BYTES:
        raise _refuse(field, value, "larger than 2**63-1 bytes")
    return size


def format_bytes(size_bytes: int) -> str:
    """A size in the largest unit that keeps it whole, as `parse_bytes` reads it: 64M, 1536K, 7."""
    for prefix, factor in (("T", 2**40), ("G", 2**30), ("M", 2**20), ("K", 2**10)):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{prefix}"
    return str(size_bytes)


def parse_seconds(value: object, *, field: str) -> float:
    """A time in seconds (more than 0) from a number or a text such as "250ms", "1.5s" or "2m".

    Raises:
        SpecError: not a time, not finite, or not more than 0.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and (matched := _TIME.fullmatch(value)):
        seconds = float(matched.group(1)) * _TIME_FACTORS[matched.group(2) or "s"]
    else:
        raise _refuse(field, value, "not a time; write for example 250ms, 1.5s or 2m")
    if not math.isfinite(seconds) or seconds <= 0:
        raise _refuse(field, value, "must be a finite time of more than 0 seconds")
    return seconds


def parse_decimal(value: object, *, field: str, minimum: float) -> float:
    """A finite number of at least `minimum`, from a number or a text such as "0.5".

    Raises:
        SpecError: not a number, not finite, or below `minimum`.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value) if abs(value) < 2**63 else math.inf
    elif isinstance(value, str) and _DECIMAL.fullmatch(value):
        number = float(value)
    else:
        raise _refuse(field, value, "not a number; write for example 0.5 or 2")
    if not math.isfinite(number) or number < minimum:
        raise _refuse(field, value, f"must be a finite number of at least {minimum:g}")
    return number


def parse_count(value: object, *, field: str, minimum: int, maximum: int) -> int:
    """A whole number from `minimum` to `maximum`, from an int or its decimal digits.

    Raises:
        SpecError: not a whole number, or out of range.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and value.isascii() and value.isdigit():
        number = int(value) if len(value) < 20 else maximum + 1
    else:
        raise _refuse(field, value, "not a whole number")
    if not minimum <= number <= maximum:
        raise _refuse(field, value, f"must be from {minimum} to {maximum}")
    return number


def _refuse(field: str, value: object, reason: str) -> SpecError:
    return SpecError(f"cannot use {field} {value!r}: {reason}", field=field, value=repr(value))
