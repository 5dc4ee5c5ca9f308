"""Checks of `fs`: what the job may write, who else sees it, and how much it may be."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check, Gathered
from execdrv_conformance.checks.cases import ROOT
from execdrv_conformance.checks.filesystem_escape import FILES
from execdrv_conformance.checks.place import name_in_job, plant_directory
from execdrv_conformance.finding import Arm, Finding, expect, unfinished, violated
from execdrv_conformance.observe import tree

READ_ONLY = Case(name="read-only", fields={"user": "0", "root_mode": "read-only"})
#: Of the writable layer, in bytes and in files. There is no field to ask for them yet.
SIZE_LIMIT, INODE_LIMIT = 4 << 20, 256
SHARED_PLACES = ("/tmp", "/var/tmp", "/dev/shm")


# --- fs.ro-root, fs.write-private, fs.tmp-private ----------------------------------------------


def _plant_read_only(bench: Bench) -> None:
    plant_directory(bench, "xdc-read-only")


def _digest_read_only(look: Look) -> dict[str, Any]:
    return {"digest": tree.digest(look.bench.root / "srv/xdc-read-only")}


def _judge_read_only(arm: Arm) -> Finding:
    errors = arm.inside.table("errors")
    other = {name: number for name, number in errors.items() if number != errno.EROFS}
    wrong = {name: errno.errorcode.get(number, "worked") for name, number in other.items()}
    return expect(not wrong, f"not EROFS: {wrong}" if wrong else f"EROFS from {len(errors)} calls")


def _judge_same_tree(arm: Arm) -> Finding:
    before, now = arm.outside.table("before")["digest"], arm.outside.text("digest")
    return expect(before == now, f"hash of the tree before {before}, after {now}")


def _write_beside_sibling(bench: Bench) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two containers of one root: what one writes must show neither in the other nor outside."""
    planted = plant_directory(bench, "xdc-private")
    name = bench.nonce()
    fields = {"user": "0", "root_mode": "private"}
    before = tree.digest(planted)
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_shared, bench, name)
        sibling = stack.enter_context(bench.agent(**fields))
        with bench.agent(**fields) as look:
            where = {"directory": name_in_job(look, planted), "name": name}
            places = {"directories": list(SHARED_PLACES), "name": name}
            inside = {
                "own": look.agent.call("filesystem:change_tree", where),
                "sibling": sibling.agent.call("filesystem:look_at_tree", where),
                "written": look.agent.call("filesystem:write_files", places)["errors"],
                "found": sibling.agent.call("filesystem:find_files", places)["found"],
            }
            machine = [one for one in _machine_places(bench) if os.path.lexists(f"{one}/{name}")]
        after = tree.digest(planted)
        left = tree.find_named(bench.root, name)
    return inside, {"before": before, "after": after, "left": left, "machine": machine}


def _machine_places(bench: Bench) -> list[str]:
    return [top + place for top in ("", str(bench.root)) for place in SHARED_PLACES]


def _remove_shared(bench: Bench, name: str) -> None:
    for place in _machine_places(bench):
        Path(place, name).unlink(missing_ok=True)


def _share_siblings(bench: Bench) -> Gathered:
    return bench.share(_write_beside_sibling)


def _judge_private(arm: Arm) -> Finding:
    own, sibling = arm.inside.table("own"), arm.inside.table("sibling")
    if not all(own.values()):
        return unfinished(f"the job itself does not see what it has written: {own}")
    return expect(not any(sibling.values()), f"the sibling sees {sibling}")


def _judge_kept_tree(arm: Arm) -> Finding:
    before, after = arm.outside.text("before"), arm.outside.text("after")
    left = [path for path in arm.outside.listed("left") if "/srv/" in path]
    saw = f"hash of the tree before {before}, after {after}, left over {left}"
    return expect(before == after and not left, saw)


def _judge_own_places(arm: Arm) -> Finding:
    written, found = arm.inside.table("written"), arm.inside.listed("found")
    closed = {place: errno.errorcode.get(number) for place, number in written.items() if number}
    if closed:
        return violated(f"can't be written to: {closed}; the sibling sees {found}")
    return expect(not found, f"wrote to {len(written)} directories; the sibling sees {found}")


def _judge_machine_places(arm: Arm) -> Finding:
    seen = arm.outside.listed("machine")
    return expect(not seen, f"seen on the machine in {seen}" if seen else "not on the machine")


# --- fs.size, fs.inodes ------------------------------------------------------------------------


def _fill(limit: int) -> Any:
    def arguments(look: Look) -> dict[str, Any]:
        return {
            "directory": str(look.bench.scratch) if look.container is None else "/",
            "name": look.bench.nonce(),
            "under": limit * 7 // 8,
            "over": limit * 5 // 4,
        }

    return arguments


def _observe_space(look: Look) -> dict[str, Any]:
    where = look.bench.scratch if look.container is None else f"/proc/{look.pid}/root"
    found = os.statvfs(where)
    return {"bytes": found.f_blocks * found.f_frsize, "inodes": found.f_files}


def _judge_fill(arm: Arm) -> Finding:
    under, over = arm.inside.number("under"), arm.inside.number("over")
    said = [errno.errorcode.get(number, "worked") for number in (under, over)]
    return expect([under, over] == [0, errno.ENOSPC], f"just under: {said[0]}, over: {said[1]}")


def _judge_space(name: str, limit: int) -> Any:
    def judgement(arm: Arm) -> Finding:
        most = arm.outside.number(name)
        # Some file systems count no inodes: there is no limit then.
        return expect(0 < most <= limit, f"statfs: {most} {name}, the limit is {limit}")

    return judgement


CHECKS = (
    Check(
        id="fs.ro-root",
        cases=(READ_ONLY,),
        plant=_plant_read_only,
        probe="filesystem:write_everywhere",
        arguments=lambda look: {
            "directory": name_in_job(look, look.bench.root / "srv/xdc-read-only")
        },
        before=_digest_read_only,
        observe=_digest_read_only,
        inside=_judge_read_only,
        outside=_judge_same_tree,
        request={"root_mode": "read-only"},
        likely="the root's mount is not read-only",
    ),
    Check(
        id="fs.write-private",
        cases=(FILES,),
        scenario=_share_siblings,
        inside=_judge_private,
        outside=_judge_kept_tree,
        request={"root_mode": "private"},
        likely="the job writes to the tree itself",
    ),
    Check(
        id="fs.tmp-private",
        cases=(FILES,),
        scenario=_share_siblings,
        inside=_judge_own_places,
        outside=_judge_machine_places,
        likely="a directory of the machine is shown there, or the root's own is written to",
    ),
    Check(
        id="fs.size",
        cases=(ROOT,),
        probe="filesystem:fill_bytes",
        arguments=_fill(SIZE_LIMIT),
        observe=_observe_space,
        inside=_judge_fill,
        outside=_judge_space("bytes", SIZE_LIMIT),
        likely="the writable layer has no size of its own",
    ),
    Check(
        id="fs.inodes",
        cases=(ROOT,),
        probe="filesystem:fill_inodes",
        arguments=_fill(INODE_LIMIT),
        observe=_observe_space,
        inside=_judge_fill,
        outside=_judge_space("inodes", INODE_LIMIT),
        likely="the writable layer has no limit of inodes",
    ),
)
