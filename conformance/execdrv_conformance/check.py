"""What a check is: where its evidence is gathered, and how each observer reads it.

A check belongs to one guarantee. It is gathered in a case (one spec, one container, many probes) or
by a scenario (a few containers of its own); the judgements read the stored facts and nothing else.
Data and types; `checks` has the checks themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from execdrv_conformance.finding import Judgement

if TYPE_CHECKING:
    from execdrv_conformance.bench import Bench, Look

Plain = dict[str, Any]
#: Facts of a scenario: as the job, and from the machine's side.
Gathered = tuple[Plain | None, Plain | None]


@attrs.frozen(kw_only=True)
class Case:
    """One spec, and the probes that share its container."""

    #: Its name in reports: [a-z0-9-].
    name: str
    #: What is asked of the driver, by field of the spec; what a driver does not offer is left out.
    fields: Mapping[str, Any] = attrs.field(factory=dict)
    #: Fields that depend on this session's canaries.
    more_fields: Callable[[Bench], Mapping[str, Any]] | None = None
    #: Waits until no other check runs on this machine, and keeps new ones waiting.
    exclusive: bool = False
    #: Seconds after which the stand-in host is ended.
    budget_s: float = 60.0


@attrs.frozen(kw_only=True)
class Check:
    """How one guarantee is measured.

    Either `probe` (and perhaps `observe`), in each container of `cases`, or `scenario`.
    """

    #: The guarantee's id.
    id: str
    #: The cases it is gathered in; the worst verdict of them counts.
    cases: tuple[Case, ...]
    #: What the job does: `module:function` of the package `probes`.
    probe: str | None = None
    #: The probe's keyword arguments, from canaries and the like.
    arguments: Callable[[Look], Plain] | None = None
    #: Puts into the root file system what the probe needs, before the container is made.
    plant: Callable[[Bench], None] | None = None
    #: What the observer sees before the probe runs; reaches the judgements as `before`.
    before: Callable[[Look], Plain] | None = None
    #: What the observer sees when the probe has ended and the container lives.
    observe: Callable[[Look], Plain] | None = None
    #: In place of a probe: makes containers itself, and returns facts of both sides.
    scenario: Callable[[Bench], Gathered] | None = None
    #: Reads the job's facts; None: the job has nothing of its own to see.
    inside: Judgement | None
    #: Reads the observer's facts; None: the observer has nothing of its own to see.
    outside: Judgement | None
    #: Fields of a spec that ask for this guarantee, to see a driver that lacks it refuse them.
    request: Mapping[str, Any] | None = None
    #: What is wrong with a driver that fails, most likely; one line.
    likely: str = ""
    #: Seconds for the probe.
    timeout_s: float = 10.0
