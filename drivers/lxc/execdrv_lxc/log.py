"""liblxc's own words about why a container did not start.

Pure. liblxc appends lines of a fixed form (src/lxc/log.c, log_append_logfile), first the cause,
then what followed from it:

    lxc NAME 20261125030811.117 ERROR    start - ../src/lxc/start.c:lxc_poll:622 - MESSAGE
"""

from __future__ import annotations

import re
from typing import Final

#: Messages that are of use to a reader: the cause, and a little of what followed.
_SHOWN: Final = 3
_LENGTH_MAX: Final = 300

_LINE: Final = re.compile(
    r"^lxc .*?\d{14}\.\d{3} (?P<level>[A-Z]+) +\S+ - \S+:\S+:\d+ - (?P<message>.*)$"
)

#: What liblxc says of things that this driver keeps from it on purpose (see view.py).
_EXPECTED: Final = re.compile(r"Can't open /dev/null$")


def parse_errors(text: str) -> list[str]:
    """The messages of level ERROR and above, in order, without what is said in every run."""
    found = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None or match["level"] not in ("ERROR", "CRIT", "ALERT", "FATAL"):
            continue
        if not _EXPECTED.search(match["message"]):
            found.append(match["message"])
    return found


def explain(text: str) -> str:
    """The first messages on one line; empty if there are none."""
    shown = "; ".join(parse_errors(text)[:_SHOWN])
    return shown if len(shown) <= _LENGTH_MAX else shown[: _LENGTH_MAX - 3] + "..."
