"""Attacks by the job on what execdrv keeps of its containers on the machine."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import Any

from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Check
from execdrv_conformance.checks.adversarial_knob import HOSTILE, differing, judge_held, links_of
from execdrv_conformance.finding import Arm, Finding, expect

#: Entries of the root that a search for the state directory looks at.
MOST_ENTRIES = 5000


def _state_files(bench: Bench) -> dict[str, list[int]]:
    """Device and inode of what execdrv keeps on this machine, by path."""
    state = bench.scratch / "state"
    if bench.is_control:
        # There is no container, but the same files lie there.
        state.mkdir(mode=0o700, exist_ok=True)
        (state / "lock").touch(0o600)
    places = {}
    for top in (state, Path("/run/execdrv")):
        waiting = [top]
        device = None
        while waiting:
            path = waiting.pop()
            try:
                found = path.lstat()
                device = found.st_dev if device is None else device
                # What is mounted below, such as a container's root, is none of the state.
                if found.st_dev != device:
                    continue
                waiting += path.iterdir() if stat.S_ISDIR(found.st_mode) else ()
            except OSError:
                continue
            places[str(path)] = [found.st_dev, found.st_ino]
    return places


def _state_content(bench: Bench) -> dict[str, Any]:
    return {path: [place, *_content(Path(path))] for path, place in _state_files(bench).items()}


def _content(path: Path) -> list[Any]:
    try:
        found = path.lstat()
        data = path.read_bytes().hex() if stat.S_ISREG(found.st_mode) else ""
    except OSError as error:
        # It has gone since it was listed, or nobody may read it.
        return [errno.errorcode.get(error.errno or 0, "?")]
    return [found.st_mode, found.st_uid, found.st_size, data]


def _state_arguments(look: Look) -> dict[str, Any]:
    content = look.bench.share(_state_content)
    return {
        "paths": list(content),
        "places": [one[0] for one in content.values()],
        "most": MOST_ENTRIES,
    }


def _look_at_state(look: Look) -> dict[str, Any]:
    before = look.bench.share(_state_content)
    places = [one[0] for one in before.values()]
    return {
        "held": links_of(look, lambda one: one["place"] in places),
        "changed": differing(before, _state_content(look.bench)),
        "files": len(places),
    }


def _judge_state(arm: Arm) -> Finding:
    reached = arm.inside.listed("reached")
    saw = f"{arm.inside.number('looked')} files looked at, reached {reached[:3] or 'none of it'}"
    return expect(not reached, saw)


CHECKS = (
    Check(
        id="esc.state",
        cases=(HOSTILE,),
        probe="adversarial_reach:find_state",
        arguments=_state_arguments,
        observe=_look_at_state,
        inside=_judge_state,
        outside=judge_held,
        likely="the state directory lies in the job's root, or a descriptor of it leaks",
    ),
)
