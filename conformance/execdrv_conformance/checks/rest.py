"""What is left over: looks at the machine before something and after it.

That a look sees anything is shown with things which the kit makes for a moment. Knows no check.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from execdrv_conformance import kernel
from execdrv_conformance.bench import Bench
from execdrv_conformance.canary.network import delete_link, make_veth
from execdrv_conformance.checks.job import kill, state_of
from execdrv_conformance.observe import group
from execdrv_conformance.observe.rule import list_rules
from execdrv_conformance.observe.snapshot import Snapshot, wait_for_rest

#: Seconds after which what is there still is left over.
REST_S = 1.5


def look_at_all(bench: Bench) -> Snapshot:
    """A snapshot with what belongs to the kit's scratch and to networks besides."""
    lines = dict(bench.snapshot().lines)
    lines["rule"] = frozenset(list_rules())
    # The root of every job here is a directory of the kit's; a name that stays there is left over.
    own = frozenset(name for name in lines["file"] if not name.startswith("/run/netns/"))
    lines["file"] = own | _names_of(bench.root)
    return Snapshot(lines=lines)


def _names_of(top: Path) -> frozenset[str]:
    found = []
    for directory, names, files in os.walk(top):
        found += [os.path.join(directory, name) for name in (*names, *files)]
    return frozenset(found)


def rest_of(bench: Bench, before: Snapshot) -> dict[str, list[str]]:
    """What has come since, and stays: by kind, a few lines each."""
    left = wait_for_rest(before, lambda: look_at_all(bench), timeout_s=REST_S)
    return {kind: lines[:5] for kind, lines in left.items()}


def sweep_rest(left: dict[str, list[str]]) -> None:
    """End processes that were left; files, groups and mounts are in the next look's `before`."""
    for line in left.get("process", []):
        kill(int(line.split()[0]))


@contextlib.contextmanager
def _decoys(bench: Bench) -> Iterator[None]:
    """One thing of each kind for which a container is looked through, made by the kit."""
    word = bench.nonce()
    place = bench.directory("decoy")
    file = state_of(bench) / word
    with contextlib.ExitStack() as undo:
        kernel.mount("xdc", str(place), "tmpfs", 0, "size=4k")
        undo.callback(kernel.umount, str(place))
        file.touch()
        undo.callback(file.unlink)
        names = Path("/run/netns")
        names.mkdir(exist_ok=True)
        (names / word).touch()
        undo.callback((names / word).unlink)
        for controller in group.list_hierarchies():
            above = group.directory_of(os.getpid(), controller)
            if above is not None:
                os.mkdir(os.path.join(above, word))
                undo.callback(os.rmdir, os.path.join(above, word))
                break
        with contextlib.suppress(OSError):
            make_veth(word[:13], f"{word[:13]}p")
            undo.callback(delete_link, word[:13])
        yield


def look_at_decoys(bench: Bench) -> dict[str, int]:
    """How many of the kit's own things the look finds, by kind."""
    before = look_at_all(bench)
    with _decoys(bench):
        found = before.compare(look_at_all(bench))
    return {kind: len(lines) for kind, lines in found.items()}
