"""What a driver class declares of every guarantee, as constant data.

Nothing is computed on the machine: a driver that could look first could turn each failure into
"absent here". What depends on the spec or the machine is a named condition, whose truth the host
finds. The host refuses from here what a driver does not offer; the conformance kit measures both
what is offered and what is declared absent.

An Offers stands in a class body, so making one costs next to nothing: its form is looked at by
`validate`, when the driver is loaded. Reads guarantees/ids.py alone, no sentence of the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal

import attrs

from execdrv.errors import PluginError
from execdrv.guarantees import ids

StatusKind = Literal["enforced", "absent", "partial", "when", "unclaimed", "not-applicable"]

#: The catalogue of an Offers that names none: for ever the first, never the newest.
DEFAULT_CATALOGUE = "2026.1"
#: Problems that a message names before it only counts the rest.
_NAMED_AT_MOST = 5


@attrs.frozen(kw_only=True)
class Status:
    """What a driver says of one guarantee; made by the functions below, never by itself."""

    kind: StatusKind
    #: Why it isn't kept, or not in full, or not applicable; for `when`: why not otherwise.
    reason: str = ""
    #: For `partial`: what remains open, told to the user in the receipt.
    remains: str = ""
    #: For `partial`: the same, as names of parts in the catalogue: what the kit confirms.
    parts: tuple[str, ...] = ()
    #: For `when`: a name of guarantees/facts.py.
    condition: str = ""
    #: For `absent`: it may happen to hold all the same.
    incidental: bool = False

    def to_plain(self) -> dict[str, Any]:
        """The status as plain data; what is not set is left out."""
        plain: dict[str, Any] = {"kind": self.kind}
        for name in ("reason", "remains", "parts", "condition", "incidental"):
            if value := getattr(self, name):
                plain[name] = list(value) if isinstance(value, tuple) else value
        return plain


def enforced() -> Status:
    """Kept, on every machine that has what the guarantee needs."""
    return Status(kind="enforced")


def absent(reason: str, *, incidental: bool = False) -> Status:
    """Not kept: a request is refused, and the kit proves that it does not hold.

    Args:
        reason: why, as it ends a refusal: "no pid namespace is made".
        incidental: it may hold by luck, and that is no fault; not for built-in drivers.
    """
    return Status(kind="absent", reason=reason, incidental=incidental)


def partial(reason: str, *, remains: str, parts: Iterable[str] = ()) -> Status:
    """Kept in part: a request passes with `remains` in its receipt, but `--require` does not.

    Args:
        reason: why not in full.
        remains: what remains open.
        parts: the same by the names that the catalogue has for the guarantee's parts. Without them
            the conformance kit can't confirm that no more than that is open, and says VIOLATED.
    """
    return Status(kind="partial", reason=reason, remains=remains, parts=tuple(parts))


def when(condition: str, otherwise_reason: str) -> Status:
    """Kept if the condition is true, else absent.

    Args:
        condition: a name of SPEC_FACTS or MACHINE_FACTS in guarantees/facts.py.
        otherwise_reason: why it is not kept where the condition is false.
    """
    return Status(kind="when", condition=condition, reason=otherwise_reason)


def unclaimed(reason: str) -> Status:
    """Nothing is said: a request is refused; the kit measures and shows, but never scores."""
    return Status(kind="unclaimed", reason=reason)


def not_applicable(reason: str) -> Status:
    """The mechanism has no such thing; only where the catalogue permits it."""
    return Status(kind="not-applicable", reason=reason)


def evaluate(condition: str, facts: Mapping[str, bool]) -> bool:
    """Whether a condition is true. A fact that nobody found counts as false: refused, not run.

    Args:
        condition: a name of guarantees/facts.py.
        facts: truth by name, of the machine and of the spec to be run.
    Raises:
        PluginError: there is no condition of that name.
    """
    if not is_condition(condition):
        raise PluginError(
            f"cannot evaluate condition {condition!r}: no fact of a machine or a spec",
            hint="the names stand in execdrv/guarantees/facts.py",
        )
    return bool(facts.get(condition, False))


def is_condition(name: object) -> bool:
    """Whether `when` may name it."""
    from execdrv.guarantees.facts import MACHINE_FACTS, SPEC_FACTS

    return name in SPEC_FACTS or name in MACHINE_FACTS


def _freeze(
    table: Mapping[str, Status] | Iterable[tuple[str, Status]],
) -> tuple[tuple[str, Status], ...]:
    return tuple(table.items()) if isinstance(table, Mapping) else tuple(table)


@attrs.frozen
class Offers:
    """A status for every guarantee, by id, by domain (`tty.*`) or by profile (`base`).

    An id beats its domain, which beats its profile:

        Offers({"base": enforced(), "tty.*": absent("no terminals yet"), "tty.alloc": enforced()})

    Args:
        entries: a mapping, or pairs of key and status.
        catalogue: the catalogue it speaks about. Ids that came later have no status, so that a
            driver written before them is never taken to offer them.
    """

    entries: tuple[tuple[str, Status], ...] = attrs.field(converter=_freeze)
    catalogue: str = attrs.field(default=DEFAULT_CATALOGUE, kw_only=True)
    _table: dict[str, Status] = attrs.field(init=False, factory=dict, eq=False, repr=False)

    def status(self, id: str) -> Status | None:
        """What is declared of a guarantee; None if nothing is (an invalid or an older Offers)."""
        return self.statuses().get(id)

    def statuses(self) -> Mapping[str, Status]:
        """Every guarantee that has a status, in the order of the catalogue."""
        if not self._table:
            declared = dict(self.entries)
            table = {}
            for id, keys in self._keys().items():
                used = next((key for key in keys if key in declared), None)
                if used is not None:
                    table[id] = declared[used]
            # In one step: another thread must see an empty table or a whole one.
            self._table.update(table)
        return MappingProxyType(self._table)

    def _keys(self) -> dict[str, tuple[str, str, str]]:
        """The ids of this catalogue, each with its keys, the strongest first."""
        return {
            id: (id, domain_key(id), profile)
            for id, (profile, _) in ids.IDS.items()
            if not _is_later(ids.ADDED_LATER.get(id, DEFAULT_CATALOGUE), self.catalogue)
        }

    def refusal_for(self, id: str, facts: Mapping[str, bool]) -> str | None:
        """Why a request for a guarantee is refused, or None if it passes.

        `partial` passes; the caller puts its `remains` into the receipt.
        """
        status = self.status(id)
        if status is None:
            return "nothing is declared of it" if id in ids.IDS else "no catalogue has this id"
        if status.kind in ("enforced", "partial"):
            return None
        if status.kind == "when" and evaluate(status.condition, facts):
            return None
        return status.reason

    def satisfies_require(self, id: str, facts: Mapping[str, bool]) -> bool:
        """Whether a guarantee is kept in full: enforced, or a `when` that is true."""
        status = self.status(id)
        if status is None:
            return False
        return status.kind == "enforced" or (
            status.kind == "when" and evaluate(status.condition, facts)
        )

    def problems(self) -> tuple[str, ...]:
        """What is wrong with the table, each in one line that names the key; empty if valid."""
        if self.catalogue not in ids.CATALOGUES:
            return (f"catalogue {self.catalogue!r} is not known to this execdrv",)
        for pair in self.entries:
            if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
                return (f"{pair!r} is no pair of key and status",)
        keys_of = self._keys()
        known = {key for keys in keys_of.values() for key in keys}
        found: list[str] = []
        seen: set[str] = set()
        for key, status in self.entries:
            if key in seen:
                found.append(f"key {key!r} stands twice")
            seen.add(key)
            if key not in known:
                found.append(f"key {key!r} is not in catalogue {self.catalogue}")
            found += [f"key {key!r}: {problem}" for problem in _problems_of(status)]
        for id, keys in keys_of.items():
            used = next((key for key in keys if key in seen), None)
            if used is None:
                found.append(f"id {id!r} has no status")
            elif id not in ids.NOT_APPLICABLE_ALLOWED and _is_not_applicable(self.status(id)):
                found.append(f"key {used!r}: {id!r} can't be not-applicable")
            else:
                parts = getattr(dict(self.entries)[used], "parts", ())
                found += [
                    f"key {used!r}: {id!r} has no part {part!r}"
                    for part in parts
                    if part not in ids.PARTS.get(id, ())
                ]
        return tuple(found)

    def validate(self, *, driver: str = "") -> None:
        """Refuse a table with problems.

        Args:
            driver: the driver's name, where it is known already.
        Raises:
            PluginError: names the keys at fault.
        """
        problems = self.problems()
        if problems:
            raise PluginError(
                f"cannot use the offers{f' of driver {driver!r}' if driver else ''}: "
                + _join(problems),
                hint="give every guarantee of the catalogue one status, by id, domain or profile",
                plugin=driver or None,
            )

    def problems_for_builtin(self) -> tuple[str, ...]:
        """What a driver of this project may not say: unclaimed, absent and incidental, or partial
        without the parts that the kit could confirm."""
        return tuple(
            f"key {key!r} is {_vague(status)}" for key, status in self.entries if _vague(status)
        )

    def to_plain(self) -> dict[str, Any]:
        """As plain data: what was declared by key, and the status of each id."""
        return {
            "catalogue": self.catalogue,
            "declared": {key: status.to_plain() for key, status in self.entries},
            "offers": {id: status.to_plain() for id, status in self.statuses().items()},
        }


def domain_key(id: str) -> str:
    """The key of Offers for an id's whole domain."""
    return id.partition(".")[0] + ".*"


def _is_later(one: str, other: str) -> bool:
    """Whether a catalogue came after another; of an unknown one nothing is later."""
    order = ids.CATALOGUES
    return other in order and order.index(one) > order.index(other)


def _problems_of(status: object) -> list[str]:
    """What is wrong with one status."""
    if not isinstance(status, Status):
        return [f"{status!r} is no status; call enforced(), absent(...) and so on"]
    found = []
    if status.kind != "enforced" and not _is_text(status.reason):
        found.append(f"{status.kind} needs a reason")
    if status.kind == "partial" and not _is_text(status.remains):
        found.append("partial needs to say what remains open")
    if status.kind == "when" and not is_condition(status.condition):
        found.append(f"no condition {status.condition!r}")
    return found


def _vague(status: Status) -> str:
    """What nobody could prove of a status; empty for a clear one."""
    if status.kind == "unclaimed":
        return "unclaimed"
    if status.incidental:
        return "incidental"
    return "partial without parts" if status.kind == "partial" and not status.parts else ""


def _is_not_applicable(status: object) -> bool:
    return isinstance(status, Status) and status.kind == "not-applicable"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _join(problems: tuple[str, ...]) -> str:
    named = "; ".join(problems[:_NAMED_AT_MOST])
    more = len(problems) - _NAMED_AT_MOST
    return f"{named}; and {more} more" if more > 0 else named
