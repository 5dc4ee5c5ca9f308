"""What one observer found in one arm of a check: data, and the reading of facts.

Pure. A check's `inside` and `outside` turn stored facts into a Finding; they never raise for what
a job or a driver may have said: facts that are missing or of the wrong type make the finding
unfinished, for silence is not success.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import attrs

T = TypeVar("T")

State = Literal["holds", "violated", "unfinished", "nothing"]


@attrs.frozen
class Finding:
    """What one observer says of one guarantee."""

    state: State
    #: What was seen, in a few words with the values.
    saw: str = ""
    #: For `violated`: names of the guarantee's parts that failed, where the catalogue names parts.
    parts: tuple[str, ...] = ()


#: This observer has nothing of its own to see.
NOTHING = Finding("nothing")


def holds(saw: str) -> Finding:
    """It holds."""
    return Finding("holds", saw)


def violated(saw: str, *, parts: tuple[str, ...] = ()) -> Finding:
    """It does not hold."""
    return Finding("violated", saw, parts)


def unfinished(why: str) -> Finding:
    """The observer can't tell."""
    return Finding("unfinished", why)


def expect(condition: bool, saw: str) -> Finding:
    """`holds` or `violated` with the same words."""
    return holds(saw) if condition else violated(saw)


class FactError(Exception):
    """A fact is missing or not of the type it must have."""


class Facts(Mapping[str, Any]):
    """Facts that an observer has gathered; each is read with its type.

    Args:
        plain: the facts.
        source: who says so, for messages.
    """

    def __init__(self, plain: Mapping[str, Any], *, source: str = "the probe") -> None:
        self._plain = plain
        self._source = source

    def __getitem__(self, name: str) -> Any:
        if name not in self._plain:
            raise FactError(f"{self._source} has not said {name!r}")
        return self._plain[name]

    def __contains__(self, name: object) -> bool:
        return name in self._plain

    def __iter__(self) -> Any:
        return iter(self._plain)

    def __len__(self) -> int:
        return len(self._plain)

    def _typed(self, name: str, wanted: type[T]) -> T:
        value = self[name]
        # bool is an int to Python; a fact of one is not a fact of the other.
        if not isinstance(value, wanted) or (wanted is not bool and isinstance(value, bool)):
            raise FactError(f"{self._source} says {name}={value!r}, which is no {wanted.__name__}")
        return value

    def number(self, name: str) -> int:
        """An int."""
        return self._typed(name, int)

    def decimal(self, name: str) -> float:
        """An int or a float."""
        value = self[name]
        return float(value) if isinstance(value, int) else self._typed(name, float)

    def text(self, name: str) -> str:
        """A str."""
        return self._typed(name, str)

    def flag(self, name: str) -> bool:
        """A bool."""
        return self._typed(name, bool)

    def listed(self, name: str) -> list[Any]:
        """A list."""
        return self._typed(name, list)

    def table(self, name: str) -> dict[str, Any]:
        """A dict."""
        return self._typed(name, dict)


@attrs.frozen(kw_only=True)
class Arm:
    """What was gathered for one check in one arm of a case, as its judges see it."""

    #: `driver`, or `control`: no isolation at all.
    name: str
    #: What the probe said as the job.
    inside: Facts
    #: What was seen from the machine's side.
    outside: Facts
    #: The fields of the spec as asked, as plain data; those the driver does not offer are left out.
    asked: Facts
    #: The canaries of the stand-in host.
    canaries: Facts
    #: The driver's declaration of defaults, as plain data.
    defaults: Facts


Judgement = Callable[[Arm], Finding]


def find(judgement: Judgement | None, arm: Arm, error: str) -> Finding:
    """What one observer of a check found; total.

    Args:
        judgement: the check's `inside` or `outside`; None: it has nothing to see.
        arm: the facts.
        error: why the observer did not finish; empty if it did.
    """
    if judgement is None:
        return NOTHING
    if error:
        return unfinished(error)
    try:
        return judgement(arm)
    except FactError as missing:
        return unfinished(str(missing))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as odd:
        return unfinished(f"the facts can't be read: {type(odd).__name__}: {odd}")
