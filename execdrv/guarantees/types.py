"""What a guarantee is: the types of the catalogue and the words it may use.

Pure values. Whether a driver keeps a guarantee is declared in its Offers, whether it holds is for
the conformance kit to measure; neither is known here. Not loaded by a `run`, which reads `ids`.

Levels are those of RFC 2119. The observers are the kit's: inside, a probe that runs as the job;
outside, an observer that reads the kernel's files from the machine's side.
"""

from __future__ import annotations

from typing import Literal

import attrs

#: The frozen lists of ids, oldest first. An id never changes its meaning; a new list only adds.
CATALOGUES = ("2026.1",)
CATALOGUE_VERSION = CATALOGUES[-1]

Level = Literal["MUST", "SHOULD"]
Kind = Literal["functional", "isolating", "limit", "hygiene"]
Profile = Literal["base", "fs", "limits", "container", "hardened", "hostile"]

#: What each kind means for the judge.
KINDS: dict[Kind, str] = {
    "functional": "something works as asked",
    "isolating": "something is out of the job's reach; must fail under the null driver",
    "limit": "something is bounded; must fail under the null driver",
    "hygiene": "nothing is left behind",
}

#: What each profile is about; a key of Offers, and the order of a driver's growth.
PROFILES: dict[Profile, str] = {
    "base": "any way to run a command: exit, arguments, streams, users, clean end",
    "fs": "the file system the job sees and writes",
    "limits": "limits on memory, cpu, tasks and block devices, and their numbers",
    "container": "a view of its own: processes, network, mounts, IPC, names",
    "hardened": "least privilege: capabilities, filters, devices, closed back doors",
    "hostile": "known escapes and attacks on the supervisor",
}


@attrs.frozen(kw_only=True)
class Guarantee:
    """A named property of a container that can be proven."""

    #: `domain.name`; the domain is also a key of Offers, as `domain.*`.
    id: str
    #: The property as one sentence with `level` in it.
    title: str
    level: Level = "MUST"
    kind: Kind
    profile: Profile
    #: The catalogue that brought it.
    since: str = "2026.1"
    #: Machine facts without which it can't be kept: the host refuses a request for it.
    needs: tuple[str, ...] = ()
    #: Further machine facts without which it can't be proven: the kit says UNPROVEN-HOST.
    proof_needs: tuple[str, ...] = ()
    #: What the probe looks at as the job; empty: nothing of its own to see.
    inside: str = ""
    #: What the observer on the machine looks at; empty: nothing of its own to see.
    outside: str = ""
    #: What the same probe shows where the property does not hold (or, for a functional one, does).
    control: str = ""
    #: Manual pages and advisories.
    references: tuple[str, ...] = ()
    #: What a driver may keep one by one: each part with its sentence. `partial` names those that
    #: remain open, and the kit tells which are.
    parts: tuple[tuple[str, str], ...] = ()
    #: Names of the mutants that turn it red.
    mutants: tuple[str, ...] = ()
    #: Whether a driver may say not-applicable, because its mechanism has no such thing.
    not_applicable_allowed: bool = False
    #: Why it is measured and shown but not scored yet; empty: it is scored.
    provisional_why: str = ""

    @property
    def domain(self) -> str:
        """The part before the dot."""
        return self.id.partition(".")[0]

    @property
    def provisional(self) -> bool:
        """Whether it is not scored yet."""
        return bool(self.provisional_why)

    @property
    def one_sided(self) -> bool:
        """Whether one observer has nothing of its own to see."""
        return not (self.inside and self.outside)


@attrs.frozen(kw_only=True)
class Mutant:
    """A driver with one fault, made to turn guarantees red: the test of the kit itself."""

    name: str
    #: The one thing it breaks.
    fault: str
    #: Ids that it turns red; empty where `verdict` is all it shows.
    kills: tuple[str, ...] = ()
    #: The verdict it must get.
    verdict: str = "VIOLATED"
    #: Whether it reports something that is not so.
    liar: bool = False
    #: What it waits for, where it can't be made yet: a feature that no driver here has, or one that
    #: the machines of the tests lack. Its ids are not scored by it.
    waits_for: str = ""
