"""Checks of `mnt`: the mount namespace, and what passes between its mounts and the machine's."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

from execdrv.spec import Bind
from execdrv_conformance import kernel
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check
from execdrv_conformance.checks.cases import PLAIN
from execdrv_conformance.checks.place import name_in_job
from execdrv_conformance.finding import Arm, Finding, expect, unfinished
from execdrv_conformance.observe import mount, process


def _bind_shared(bench: Bench) -> dict[str, Any]:
    """A bind of a shared mount of the machine; in it a directory each for the job and for us."""
    shared = Path(bench.canaries.files.facts()["shared"])
    for name in ("inner", "outer"):
        (shared / name).mkdir(exist_ok=True)
    return {"binds": (Bind(source=os.fsencode(shared), target=b"/mnt"),)}


#: May mount; its root and a bind are copies of the machine's own shared mounts.
SHARED = Case(
    name="shared-mounts",
    fields={"user": "0", "cap_add": ("SYS_ADMIN",), "root_mode": "read-only"},
    more_fields=_bind_shared,
)


# --- mnt.ns ------------------------------------------------------------------------------------


def _observe_namespace(look: Look) -> dict[str, Any]:
    return {
        "link": process.read_namespaces(look.pid)["mnt"],
        "caller": process.read_namespaces("self")["mnt"],
    }


def _machine_mounts(_: Look) -> dict[str, Any]:
    return {"mounts": [one["id"] for one in mount.read_mounts()]}


def _judge_own_link(arm: Arm) -> Finding:
    link, number = arm.inside.text("link"), arm.inside.number("mount")
    # Where there is no /proc, the number of the mount at / tells: numbers are the machine's.
    shared = number in arm.outside.table("before")["mounts"]
    saw = f"namespace {link or 'unknown'}, / is mount {number}{' of the machine' if shared else ''}"
    return expect(link != arm.canaries.table("namespaces")["mnt"] and not shared, saw)


def _judge_link(arm: Arm) -> Finding:
    link, caller = arm.outside.text("link"), arm.outside.text("caller")
    return expect(link != caller, f"namespace {link}, the caller's {caller}")


# --- mnt.prop-out, mnt.prop-in -----------------------------------------------------------------


def _shared_dir(look: Look, name: str) -> Path:
    return Path(look.canaries.files.facts()["shared"], name)


def _places(look: Look, *, root: str, shared: str) -> list[str]:
    """A directory of the root, and one of the bind, as the job names them."""
    bound = str(_shared_dir(look, shared)) if look.container is None else f"/mnt/{shared}"
    return [name_in_job(look, look.bench.root / root), bound]


def _mount_out(look: Look) -> dict[str, Any]:
    return {"places": _places(look, root="srv", shared="inner"), "source": "xdc-inside"}


def _machine_peers(_: Look) -> dict[str, Any]:
    text = Path("/proc/self/mountinfo").read_text()
    return {
        "mounts": [one["id"] for one in mount.read_mounts()],
        "shared": sorted(set(re.findall(r"\bshared:\d+", text))),
    }


def unmount_all(source: str) -> list[str]:
    """Unmount what has this name in our own namespace, and say where it was."""
    seen = []
    for _ in range(16):
        found = [one for one in mount.read_mounts() if one["source"] == source]
        if not found:
            break
        for one in reversed(found):
            seen.append(one["target"])
            with contextlib.suppress(OSError):
                kernel.umount(one["target"], kernel.MNT_DETACH)
    return seen


def _observe_out(_: Look) -> dict[str, Any]:
    return {"seen": unmount_all("xdc-inside")}


def _judge_below(arm: Arm) -> Finding:
    made = arm.inside.listed("made")
    if not made:
        return unfinished(f"nothing could be mounted: {arm.inside.table('errors')}")
    machine = arm.outside.table("before")
    on = [place for place in made if arm.inside.table("below")[place] in machine["mounts"]]
    peers = sorted({*arm.inside.listed("shared")} & {*machine["shared"]})
    saw = f"mounted on {made}, of the machine's mounts {on}; peers of the machine's: {peers}"
    return expect(not on and not peers, saw)


def _judge_out(arm: Arm) -> Finding:
    if not arm.inside.listed("made"):
        return unfinished("the job has mounted nothing")
    seen = arm.outside.listed("seen")
    return expect(not seen, f"new mounts on the machine: {seen}")


def _mount_later(look: Look) -> dict[str, Any]:
    """The machine mounts something in the source of the root, and in that of the bind."""
    for place in (look.bench.root / "opt", _shared_dir(look, "outer")):
        kernel.mount("xdc-later", str(place), "tmpfs", 0, "size=64k,mode=755")
        (place / "later").write_text("")
    return {}


def _observe_later(look: Look) -> dict[str, Any]:
    shown = [one["target"] for one in mount.read_mounts(look.pid) if one["source"] == "xdc-later"]
    return {"shown": shown, "mounted": len(unmount_all("xdc-later"))}


def _judge_later(arm: Arm) -> Finding:
    found = arm.inside.listed("found")
    return expect(not found, f"what the machine mounted later is seen in {found}")


def _judge_later_mounts(arm: Arm) -> Finding:
    if arm.outside.number("mounted") < 2:
        return unfinished("the machine's mounts were not there any more")
    shown = arm.outside.listed("shown")
    return expect(not shown, f"later mounts in the process's table: {shown}")


CHECKS = (
    Check(
        id="mnt.ns",
        cases=(PLAIN,),
        probe="mount:describe_namespace",
        before=_machine_mounts,
        observe=_observe_namespace,
        inside=_judge_own_link,
        outside=_judge_link,
        likely="no mount namespace is made (CLONE_NEWNS)",
    ),
    Check(
        id="mnt.prop-out",
        cases=(SHARED,),
        probe="mount:mount_tmpfs",
        arguments=_mount_out,
        before=_machine_peers,
        observe=_observe_out,
        inside=_judge_below,
        outside=_judge_out,
        likely="mounts are left shared (MS_PRIVATE, MS_REC)",
    ),
    Check(
        id="mnt.prop-in",
        cases=(SHARED,),
        probe="mount:find_name",
        arguments=lambda look: {
            "places": _places(look, root="opt", shared="outer"),
            "name": "later",
        },
        before=_mount_later,
        observe=_observe_later,
        inside=_judge_later,
        outside=_judge_later_mounts,
        likely="mounts are left shared or made slaves (MS_PRIVATE, MS_REC)",
    ),
)
