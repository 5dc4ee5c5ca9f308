"""The verdicts of the kit, and what each counts as.

Pure data. A verdict says what was measured of one guarantee under one declaration; see judge for
how it is reached.
"""

from __future__ import annotations

from typing import Final, Literal

Verdict = Literal[
    "PROVEN",
    "VIOLATED",
    "CONFLICT",
    "UNTESTABLE",
    "UNPROVEN-HOST",
    "UNCALIBRATED",
    "ABSENT-CONFIRMED",
    "UNDER-CLAIMED",
    "INCIDENTAL",
    "FAILS-OPEN",
    "PARTIAL-CONFIRMED",
    "UNCLAIMED",
    "NOT-APPLICABLE",
    "NOT-RUN",
    "KNOWN-FAILING",
    "STALE",
    "EXPIRED",
    "FLAKY",
    "KIT-ERROR",
]

#: green: proven. neutral: honest, and shown. incomplete: nothing is known, and never green.
Class = Literal["green", "neutral", "incomplete", "fail", "kit"]

#: Every verdict, the worst last: of several runs of one check the last one of them counts.
CLASSES: Final[dict[Verdict, Class]] = {
    "NOT-APPLICABLE": "neutral",
    "UNCLAIMED": "neutral",
    "ABSENT-CONFIRMED": "neutral",
    "INCIDENTAL": "neutral",
    "PARTIAL-CONFIRMED": "neutral",
    "PROVEN": "green",
    "KNOWN-FAILING": "neutral",
    "FLAKY": "incomplete",
    "UNCALIBRATED": "incomplete",
    "UNPROVEN-HOST": "incomplete",
    "NOT-RUN": "incomplete",
    "STALE": "fail",
    "EXPIRED": "fail",
    "UNDER-CLAIMED": "fail",
    "UNTESTABLE": "fail",
    "CONFLICT": "fail",
    "FAILS-OPEN": "fail",
    "VIOLATED": "fail",
    "KIT-ERROR": "kit",
}

#: What each verdict means, in one line of a report.
MEANINGS: Final[dict[Verdict, str]] = {
    "PROVEN": "declared, and both observers saw that it holds",
    "VIOLATED": "declared, and it does not hold",
    "CONFLICT": "the observers inside and outside disagree",
    "UNTESTABLE": "the probe or an observer did not finish",
    "UNPROVEN-HOST": "this machine lacks what it takes to show it",
    "UNCALIBRATED": "it seems to hold with no isolation at all, so the check proves nothing here",
    "ABSENT-CONFIRMED": "declared absent, and it does not hold",
    "UNDER-CLAIMED": "declared absent, and it holds",
    "INCIDENTAL": "declared absent, and it happens to hold, as the declaration allows",
    "FAILS-OPEN": "declared absent, and a request for it was not refused",
    "PARTIAL-CONFIRMED": "declared in part, and just what is said to remain open is open",
    "UNCLAIMED": "nothing is declared; measured, never scored",
    "NOT-APPLICABLE": "the mechanism has no such thing",
    "NOT-RUN": "the check did not run",
    "KNOWN-FAILING": "fails, as the baseline says",
    "STALE": "the baseline says that it fails, and it does not",
    "EXPIRED": "the baseline's entry has expired",
    "FLAKY": "holds, but is known to change its mind",
    "KIT-ERROR": "the kit itself failed",
}

#: Exit statuses of a run; 2 to 5 are pytest's own.
EXIT_PROVEN = 0
EXIT_FAILURES = 1
EXIT_INTERRUPTED = 2
EXIT_USAGE = 4
EXIT_NOTHING_SELECTED = 5
EXIT_INCOMPLETE = 10
EXIT_LEAK = 11
EXIT_KIT_ERROR = 12


def worst(verdicts: list[Verdict]) -> Verdict:
    """The one that counts of several: a failure beats what is incomplete, that beats the rest."""
    order = list(CLASSES)
    return max(verdicts, key=order.index)


def exit_status(verdicts: list[Verdict], *, left_over: bool, allow_incomplete: bool = False) -> int:
    """The exit status of a run.

    Args:
        verdicts: of every selected check.
        left_over: something of the run is still on the machine.
        allow_incomplete: what can't be shown here does not count.
    """
    classes = {CLASSES[verdict] for verdict in verdicts}
    if "kit" in classes:
        return EXIT_KIT_ERROR
    if "fail" in classes:
        return EXIT_FAILURES
    if left_over:
        return EXIT_LEAK
    if not verdicts:
        return EXIT_NOTHING_SELECTED
    if "incomplete" in classes and not allow_incomplete:
        return EXIT_INCOMPLETE
    return EXIT_PROVEN
