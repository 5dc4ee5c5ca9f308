"""Canaries: what the stand-in host puts in a job's way, to see whether the job reaches it.

One module a kind. Each has `furnish(place)`, which makes its things once a session and returns an
object with `facts()`: plain data that probes and judges get. What a check reads back of them is a
method of that object. Runs in the stand-in host's worker, the caller of every container.
"""

from __future__ import annotations

from pathlib import Path

import attrs


@attrs.frozen(kw_only=True)
class Place:
    """Where canaries are made."""

    #: The run's name: `xdc-` and letters.
    run: str
    #: A directory of this stand-in host's own, on a disk.
    scratch: Path
