"""Checks of `mnt`: flags and masks that the job can't take off, and the root that it has left."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from execdrv.spec import Bind
from execdrv_conformance import kernel
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check
from execdrv_conformance.checks.mount_namespace import unmount_all
from execdrv_conformance.checks.place import name_in_job, writable_place
from execdrv_conformance.finding import Arm, Finding, expect, holds, unfinished, violated
from execdrv_conformance.observe import mount, process

#: Flags of mounts, as mountinfo has them.
FLAGS = ("ro", "nosuid", "nodev", "noexec")
#: Not a flag of a mount made anew.
_MS_REMOUNT = 32


def _bind_read_only(bench: Bench) -> dict[str, Any]:
    directory = bench.canaries.files.facts()["directory"]
    return {"binds": (Bind(source=os.fsencode(directory), target=b"/mnt", read_only=True),)}


#: May enter its own mount namespace anew.
ENTERING = Case(name="entering", fields={"user": "0", "cap_add": ("SYS_ADMIN", "SYS_CHROOT")})
#: No more capabilities than by default, beside mounts with flags.
GUARDED = Case(name="guarded-mounts", fields={"user": "0"}, more_fields=_bind_read_only)


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
    unmount_all("xdc-flagged")
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
    unmount_all("xdc-mask")
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
)
