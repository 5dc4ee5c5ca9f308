"""Which guarantees a run is about: ids, domains, profiles, parts of ids. Pure.

Only what the kit has checks for can be selected. A name that means nothing is an error, never an
empty selection: a mistyped id must not look like a green run.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from execdrv.errors import UsageError
from execdrv.guarantees.catalogue import DOMAINS, load_catalogue
from execdrv.guarantees.types import PROFILES
from execdrv_conformance.checks import load_checks


def select_ids(
    *,
    profiles: Iterable[str] = (),
    ids: Iterable[str] = (),
    hostile: bool = True,
    substring: str = "",
) -> list[str]:
    """The ids that have checks and are meant, in the order of the catalogue.

    Args:
        profiles: only these; none: all.
        ids: only these ids, or domains (`mem`, `mem.*`); none: all of the profiles.
        hostile: also the profile `hostile`; one that is named is there in any case.
        substring: only ids that have this in them.
    Raises:
        UsageError: there is no such profile, domain or id, or no check of an id that is named.
    """
    catalogue, checks = load_catalogue(), load_checks()
    profiles = list(profiles)
    for profile in profiles:
        if profile not in PROFILES:
            raise _unknown("profile", profile, PROFILES)
    named = {id for word in ids for id in _expand(word)}
    chosen = []
    for id, guarantee in catalogue.items():
        if id not in checks or (named and id not in named) or substring not in id:
            continue
        if profiles and guarantee.profile not in profiles:
            continue
        if guarantee.profile == "hostile" and not (hostile or profiles or named):
            continue
        chosen.append(id)
    return chosen


def _expand(word: str) -> list[str]:
    catalogue = load_catalogue()
    if word in catalogue:
        if word not in load_checks():
            raise UsageError(
                f"cannot select {word!r}: the kit has no check of it yet",
                hint="`execdrv conformance list` shows what it has",
            )
        return [word]
    domain = word.removesuffix(".*")
    if domain in DOMAINS:
        return [id for id, entry in catalogue.items() if entry.domain == domain]
    raise _unknown("guarantee", word, [*catalogue, *DOMAINS])


def _unknown(what: str, word: str, known: Iterable[str]) -> UsageError:
    known = list(known)
    near = difflib.get_close_matches(word, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else ""
    if not near:
        hint = f"{what}s are {', '.join(known)}" if len(known) < 10 else "`list` shows all"
    return UsageError(f"cannot select {word!r}: there is no such {what}", hint=hint)
