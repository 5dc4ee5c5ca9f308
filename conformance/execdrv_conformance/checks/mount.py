"""Checks of `mnt`: the mount namespace, and what the job can change of its mounts.

Those of binds and tmpfs are in `mount_asked`.
"""

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
from execdrv_conformance.checks import mount_asked
from execdrv_conformance.checks.cases import PLAIN
from execdrv_conformance.checks.place import name_in_job, writable_place
from execdrv_conformance.finding import Arm, Finding, expect, holds, unfinished, violated
from execdrv_conformance.observe import mount, process

#: Flags of mounts, as mountinfo has them.
FLAGS = ("ro", "nosuid", "nodev", "noexec")
#: Not a flag of a mount made anew.
_MS_REMOUNT = 32


def _bind_shared(bench: Bench) -> dict[str, Any]:
    """A bind of a shared mount of the machine; in it a directory each for the job and for us."""
    shared = Path(bench.canaries.files.facts()["shared"])
    for name in ("inner", "outer"):
        (shared / name).mkdir(exist_ok=True)
    return {"binds": (Bind(source=os.fsencode(shared), target=b"/mnt"),)}


def _bind_read_only(bench: Bench) -> dict[str, Any]:
    directory = bench.canaries.files.facts()["directory"]
    return {"binds": (Bind(source=os.fsencode(directory), target=b"/mnt", read_only=True),)}


#: May mount; its root and a bind are copies of the machine's own shared mounts.
SHARED = Case(
    name="shared-mounts",
    fields={"user": "0", "cap_add": ("SYS_ADMIN",), "root_mode": "read-only"},
    more_fields=_bind_shared,
)
#: May enter its own mount namespace anew.
ENTERING = Case(name="entering", fields={"user": "0", "cap_add": ("SYS_ADMIN", "SYS_CHROOT")})
#: No more capabilities than by default, beside mounts with flags.
GUARDED = Case(name="guarded-mounts", fields={"user": "0"}, more_fields=_bind_read_only)


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


def _unmount_all(source: str) -> list[str]:
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
    return {"seen": _unmount_all("xdc-inside")}


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
    return {"shown": shown, "mounted": len(_unmount_all("xdc-later"))}


def _judge_later(arm: Arm) -> Finding:
    found = arm.inside.listed("found")
    return expect(not found, f"what the machine mounted later is seen in {found}")


def _judge_later_mounts(arm: Arm) -> Finding:
    if arm.outside.number("mounted") < 2:
        return unfinished("the machine's mounts were not there any more")
    shown = arm.outside.listed("shown")
    return expect(not shown, f"later mounts in the process's table: {shown}")


# --- mnt.no-old-root ---------------------------------------------------------------------------


def _machine_root() -> dict[str, Any]:
    found = mount.find_mount(mount.read_mounts(), "/")
    return found or {"device": "", "root": "/"}


def _find_root(look: Look) -> dict[str, Any]:
    facts = look.canaries.files.facts()
    return {
        "root": [facts["root_device"], facts["root_inode"]],
        "device": _machine_root()["device"],
    }


def _observe_old_root(look: Look) -> dict[str, Any]:
    machine = _machine_root()
    mounts = mount.read_all_mounts(look.pid)
    same = [
        one["target"]
        for one in mounts
        if (one["device"], one["root"]) == (machine["device"], machine["root"])
    ]
    return {"mounts": len(mounts), "same": same}


def _judge_found(arm: Arm) -> Finding:
    found = arm.inside.listed("found")
    if found:
        return violated(f"the machine's root is at {found[:3]}")
    entered = arm.inside.table("entered")
    if "refused" in entered or "failed" in entered:
        return unfinished(f"the job can't enter its own mount namespace: {entered}")
    return holds(f"nothing below {arm.inside.number('mounts')} mounts, nor in the namespace's root")


def _judge_old_root(arm: Arm) -> Finding:
    same = arm.outside.listed("same")
    saw = f"of {arm.outside.number('mounts')} mounts the machine's root is at {same}"
    return expect(not same, saw)


# --- mnt.no-remount, mnt.no-unmask -------------------------------------------------------------


def _flagged_place(look: Look) -> Path:
    return look.bench.root / "media"


def _remount(look: Look) -> dict[str, Any]:
    if "binds" in look.fields and look.container is not None:
        return {"targets": [], "everywhere": True}
    return {"targets": [name_in_job(look, _flagged_place(look))], "everywhere": False}


def _look_at_flags(look: Look) -> dict[str, Any]:
    """Flags by mount, of those that the process sees in its root."""
    flags = {}
    for one in mount.read_mounts(look.pid):
        if kept := sorted({*one["options"]} & {*FLAGS}):
            flags[f"{one['id']} {one['target']}"] = kept
    return {"flags": flags}


def _mount_flagged(look: Look) -> dict[str, Any]:
    """Where no mount was made for the job, the machine has one in the root."""
    if not _remount(look)["everywhere"]:
        place = str(_flagged_place(look))
        kernel.mount("xdc-flagged", place, "tmpfs", 0, "size=64k")
        # Flags of the mount: a file system that is read-only itself stays so.
        flags = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
        kernel.mount("", place, "", _MS_REMOUNT | kernel.MS_BIND | flags)
    return _look_at_flags(look)


def _observe_flagged(look: Look) -> dict[str, Any]:
    found = _look_at_flags(look)
    _unmount_all("xdc-flagged")
    return found


def _judge_lost(arm: Arm) -> Finding:
    flagged = arm.inside.number("flagged")
    nested = arm.inside.table("nested")
    lost = {**arm.inside.table("lost"), **nested.get("lost", {})}
    if not flagged:
        return unfinished("the job sees no mount with flags")
    if "failed" in nested:
        return unfinished(f"the new user namespace: {nested['failed']}")
    how = f"a new user namespace was refused: {nested['refused']}" if "refused" in nested else ""
    return expect(not lost, f"lost flags of {lost}, of {flagged} mounts {how}".rstrip())


def _judge_flags_kept(arm: Arm) -> Finding:
    before, now = arm.outside.table("before")["flags"], arm.outside.table("flags")
    if not before:
        return unfinished("the process sees no mount with flags")
    lost = {one: now.get(one) for one, flags in before.items() if now.get(one) != flags}
    return expect(not lost, f"flags of {len(before)} mounts, changed {lost}")


#: A directory of every procfs, for the control to cover.
_COVERED = "/proc/tty"


def _unmask(look: Look) -> dict[str, Any]:
    return {
        "masks": [_COVERED] if look.container is None else [],
        "everywhere": look.container is not None,
        "place": writable_place(look),
        "name": look.bench.nonce(),
    }


def _look_at_masks(look: Look) -> dict[str, Any]:
    mounts = mount.read_mounts(look.pid)
    return {
        "masks": [
            [one["id"], one["target"]]
            for one in mounts
            if one["target"].startswith(("/proc/", "/sys/"))
            and (look.container is not None or one["target"] == _COVERED)
        ]
    }


def _mask_control(look: Look) -> dict[str, Any]:
    if look.container is None:
        kernel.mount("xdc-mask", _COVERED, "tmpfs", kernel.MS_RDONLY, "size=64k")
    return _look_at_masks(look)


def _observe_unmasked(look: Look) -> dict[str, Any]:
    found = _look_at_masks(look)
    _unmount_all("xdc-mask")
    return {**found, "fresh": _end_fresh(look)}


def _end_fresh(look: Look) -> list[str]:
    """Procfs without a mask, in other mount namespaces of the job's; their processes end here."""
    own, found = process.read_namespaces(look.pid)["mnt"], []
    for pid in process.find_marked(look.agent.nonce):
        with contextlib.suppress(OSError):
            if process.read_namespaces(pid)["mnt"] == own:
                continue
            mounts = mount.read_mounts(pid)
            os.kill(pid, 9)
            masked = {one["parent"] for one in mounts}
            found += [
                one["target"]
                for one in mounts
                if one["type"] == "proc" and one["root"] == "/" and one["id"] not in masked
            ]
    return found


def _judge_unmasked(arm: Arm) -> Finding:
    count, nested = arm.inside.number("masks"), arm.inside.table("nested")
    if not count:
        return violated("there is no mask")
    if "failed" in nested:
        return unfinished(f"the new user namespace: {nested['failed']}")
    gone = {**nested.get("gone", {}), **arm.inside.table("gone")}
    return expect(not gone, f"{count} masks, of these {gone or 'all stay'}")


def _judge_masks_stay(arm: Arm) -> Finding:
    before, now = arm.outside.table("before")["masks"], arm.outside.listed("masks")
    if not before:
        return violated("there is no mask")
    fresh = arm.outside.listed("fresh")
    saw = f"{len(before)} masks before, {len(now)} after; procfs without masks: {fresh}"
    return expect(before == now and not fresh, saw)


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
    Check(
        id="mnt.no-remount",
        cases=(GUARDED,),
        probe="mount:take_flags",
        arguments=_remount,
        before=_mount_flagged,
        observe=_observe_flagged,
        inside=_judge_lost,
        outside=_judge_flags_kept,
        likely="the job has CAP_SYS_ADMIN in the user namespace that owns its mounts",
    ),
    Check(
        id="mnt.no-unmask",
        cases=(GUARDED,),
        probe="mount:take_masks",
        arguments=_unmask,
        before=_mask_control,
        observe=_observe_unmasked,
        inside=_judge_unmasked,
        outside=_judge_masks_stay,
        likely="there are no masks, or the job has CAP_SYS_ADMIN",
    ),
    Check(
        id="mnt.no-old-root",
        cases=(ENTERING,),
        probe="mount:find_old_root",
        arguments=_find_root,
        observe=_observe_old_root,
        inside=_judge_found,
        outside=_judge_old_root,
        likely="the old root is not detached after pivot_root(2), or chroot(2) took its place",
    ),
    *mount_asked.CHECKS,
)
