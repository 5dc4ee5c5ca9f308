"""Checks of `cap`, `sec` and `lsm`: capability sets, setuid programs, filters, labels."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from execdrv_conformance.bench import PYTHON, Bench, Look
from execdrv_conformance.check import Case, Check
from execdrv_conformance.checks.cases import CANARY_USER, PLAIN, ROOT
from execdrv_conformance.checks.place import name_in_job, writable_place
from execdrv_conformance.finding import Arm, Finding, expect, holds, unfinished, violated
from execdrv_conformance.observe import process
from execdrv_conformance.observe.credential import end_helpers, read_credentials, read_tree

#: By number (linux/capability.h).
CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"),
    *("SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW"),
    *("IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT"),
    *("SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD"),
    *("LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG"),
    *("WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"),
)
#: To draw from: what is taken away, and what is added without any danger.
DROPPED = ("FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE")
ADDED = ("IPC_LOCK", "LEASE", "AUDIT_WRITE", "NET_BROADCAST")


def _draw_capabilities(bench: Bench) -> dict[str, Any]:
    return {
        "user": "0",
        "cap_drop": tuple(bench.rng.sample(DROPPED, 2)),
        "cap_add": tuple(bench.rng.sample(ADDED, 2)),
    }


#: Root with other capabilities than the driver's default.
CAPABLE = Case(name="capable", more_fields=_draw_capabilities)

#: Programs of the root that would give who runs them another user, or a capability.
SETUID, WITH_CAPABILITY = "xdc-setuid", "xdc-capability"
#: NET_BIND_SERVICE, permitted and inheritable; a default capability, so that a bounding set without
#: it is not what keeps it. struct vfs_cap_data, version 2 (linux/capability.h).
FILE_CAPABILITY = 10
_FILE_CAPABILITIES = struct.pack("<5I", 0x02000000, 1 << FILE_CAPABILITY, 0, 0, 0)

#: What the two observers call the same sets.
SETS = {
    "permitted": "CapPrm",
    "effective": "CapEff",
    "inheritable": "CapInh",
    "ambient": "CapAmb",
}


# --- cap.bounding, cap.effective, cap.nnp ------------------------------------------------------


def _to_mask(names: set[str]) -> int:
    return sum(1 << CAPABILITIES.index(name) for name in names)


def _to_names(mask: int) -> list[str]:
    known = [name for number, name in enumerate(CAPABILITIES) if mask >> number & 1]
    unknown = mask >> len(CAPABILITIES)
    return [*known, *([f"{unknown:#x} more"] if unknown else [])]


def _asked_set(arm: Arm) -> int:
    """The default set, less what was dropped, and what was added."""
    dropped = arm.asked.listed("cap_drop") if "cap_drop" in arm.asked else []
    added = arm.asked.listed("cap_add") if "cap_add" in arm.asked else []
    names = set() if "ALL" in dropped else set(arm.defaults.listed("capabilities"))
    return _to_mask((names - set(dropped)) | set(added))


def _is_root(arm: Arm) -> bool:
    if "user" in arm.asked:
        return arm.asked.text("user").partition(":")[0] == "0"
    return bool(arm.defaults["uid"] == 0)


def _compare(wanted: Mapping[str, int], got: Mapping[str, int]) -> Finding:
    wrong = [
        f"{name}: too many {_to_names(got[name] & ~mask)}, lacking {_to_names(mask & ~got[name])}"
        for name, mask in wanted.items()
        if got[name] != mask
    ]
    exact = {name: len(_to_names(mask)) for name, mask in wanted.items()}
    return expect(not wrong, "; ".join(wrong) or f"exactly as asked: {exact}")


def _wanted_sets(arm: Arm) -> dict[str, int]:
    held = _asked_set(arm) if _is_root(arm) else 0
    return {"permitted": held, "effective": held, "inheritable": 0, "ambient": 0}


def _judge_bounding(arm: Arm) -> Finding:
    return _compare({"bounding": _asked_set(arm)}, {"bounding": arm.inside.number("bounding")})


def _judge_outer_bounding(arm: Arm) -> Finding:
    wanted = {"CapBnd": _asked_set(arm)}
    return _judge_tasks(arm, lambda task: _compare(wanted, task))


def _judge_sets(arm: Arm) -> Finding:
    return _compare(_wanted_sets(arm), {name: arm.inside.number(name) for name in SETS})


def _judge_outer_sets(arm: Arm) -> Finding:
    wanted = {SETS[name]: mask for name, mask in _wanted_sets(arm).items()}
    return _judge_tasks(arm, lambda task: _compare(wanted, task))


def _observe_tasks(look: Look) -> dict[str, Any]:
    return {"tasks": read_tree(look.pid), "caller": read_credentials("self")}


def _judge_tasks(arm: Arm, judge: Callable[[Mapping[str, Any]], Finding]) -> Finding:
    """The first task that does not hold, or the last one that does."""
    found = unfinished("no process of the job was there")
    for task in arm.outside.listed("tasks"):
        found = judge(task)
        if found.state != "holds":
            return found
    return found


def _judge_nnp(arm: Arm) -> Finding:
    return expect(arm.inside.number("nnp") == 1, f"no_new_privs {arm.inside.number('nnp')}")


def _judge_outer_nnp(arm: Arm) -> Finding:
    return _judge_tasks(arm, lambda task: expect(task["nnp"] == 1, f"NoNewPrivs {task['nnp']}"))


# --- cap.suid-inert, cap.securebits ------------------------------------------------------------


def _plant_programs(bench: Bench) -> None:
    """Two copies of the interpreter: one setuid and setgid root, one with a capability."""
    for name in (SETUID, WITH_CAPABILITY):
        path = bench.root / "opt" / name
        path.unlink(missing_ok=True)
        shutil.copyfile((bench.root / PYTHON.lstrip("/")).resolve(), path)
        path.chmod(0o755)
    with contextlib.suppress(OSError):
        # Without root neither can be made: `proof_needs` of the guarantee says so.
        os.chown(bench.root / "opt" / SETUID, 0, 0)
        (bench.root / "opt" / SETUID).chmod(0o6755)
        os.setxattr(bench.root / "opt" / WITH_CAPABILITY, "security.capability", _FILE_CAPABILITIES)


def _programs(look: Look) -> dict[str, Any]:
    names = (SETUID, WITH_CAPABILITY)
    return {"programs": {name: name_in_job(look, look.bench.root / "opt" / name) for name in names}}


def _observe_programs(look: Look) -> dict[str, Any]:
    """The processes of both programs, known by their command; they end here."""
    found = {}
    own = read_credentials(look.pid)
    for pid in process.list_tree(look.pid):
        with contextlib.suppress(OSError, IndexError):
            name = os.path.basename(process.read_words(pid)[0].decode())
            if name in (SETUID, WITH_CAPABILITY):
                found[name] = read_credentials(pid)
    end_helpers(look.pid)
    return {"found": found, "self": own}


def _judge_programs(arm: Arm) -> Finding:
    found, errors = arm.inside.table("found"), arm.inside.table("errors")
    own = found["self"]
    gained = {
        name: one
        for name, one in found.items()
        if one["ids"] != own["ids"] or one["permitted"] & ~own["permitted"]
    }
    if gained:
        return violated(f"gained: {gained}")
    missing = [name for name in (SETUID, WITH_CAPABILITY) if name not in {**found, **errors}]
    if missing:
        return unfinished(f"not run: {missing}")
    return holds(f"ids and capabilities as before; not run: {errors}")


def _judge_outer_programs(arm: Arm) -> Finding:
    found, own = arm.outside.table("found"), arm.outside.table("self")
    if not found:
        return unfinished("neither program was seen")
    gained = {
        name: [one["uids"], one["gids"], _to_names(one["CapPrm"])]
        for name, one in found.items()
        if one["uids"] != own["uids"]
        or one["gids"] != own["gids"]
        or (one["CapPrm"] | one["CapEff"]) & ~own["CapPrm"]
    }
    return expect(not gained, f"of {sorted(found)} these gained: {gained}")


def _judge_brought_back(arm: Arm) -> Finding:
    asked = _asked_set(arm)
    sets = {name: int(mask) for name, mask in arm.inside.table("sets").items()}
    if not sets:
        return unfinished("nothing was tried")
    more = {name: len(_to_names(mask & ~asked)) for name, mask in sets.items() if mask & ~asked}
    return expect(not more, f"{len(sets)} ways; capabilities that were not asked, by way: {more}")


# --- sec ---------------------------------------------------------------------------------------


def _is_filtered(task: Mapping[str, Any], caller: Mapping[str, Any]) -> Finding:
    """Whether a task has a filter that it has not from its caller."""
    saw = f"Seccomp {task['seccomp']}, {task['filters']} filters (the caller {caller['filters']})"
    return expect(task["seccomp"] == 2 and task["filters"] > caller["filters"], saw)


def _judge_filter(arm: Arm) -> Finding:
    caller = arm.outside.table("caller")
    return _judge_tasks(arm, lambda task: _is_filtered(task, caller))


def _observe_filters(look: Look) -> dict[str, Any]:
    """Filters of the job's tasks, and of its helpers', which end here."""
    found = _observe_tasks(look)
    end_helpers(look.pid)
    return found


def _find_open(*tables: Mapping[str, Any]) -> dict[str, str]:
    """Denied calls that gave an answer of their own."""
    return {name: answer[0] for calls in tables for name, answer in calls.items() if not answer[1]}


def _judge_denied(arm: Arm) -> Finding:
    calls = arm.inside.table("calls")
    if not calls:
        return unfinished("no call was made")
    answered = _find_open(calls)
    return expect(not answered, f"{len(calls)} calls; not denied by a filter: {answered}")


def _judge_allowed(arm: Arm) -> Finding:
    failed, answered = arm.inside.listed("failed"), _find_open(arm.inside.table("calls"))
    saw = f"usual calls that fail: {failed}; denied calls that give an answer: {answered}"
    return expect(not failed and not answered, saw)


def _judge_entries(arm: Arm) -> Finding:
    answered = {
        name: found
        for name in ("int80", "x32", "high bits")
        if (found := _find_open(arm.inside.table(name)))
    }
    return expect(not answered, f"not denied, by entry: {answered}")


# --- lsm ---------------------------------------------------------------------------------------


def _read_label(pid: int | str) -> str:
    return Path(f"/proc/{pid}/attr/current").read_text().strip("\0\n")


def _observe_label(look: Look) -> dict[str, Any]:
    return {"label": _read_label(look.pid), "caller": _read_label("self")}


def _judge_label(arm: Arm) -> Finding:
    label, caller = arm.inside["label"], arm.inside.text("caller")
    return expect(label is not None and label != caller, f"{label!r}, the caller's is {caller!r}")


def _judge_outer_label(arm: Arm) -> Finding:
    label, caller = arm.outside.text("label"), arm.outside.text("caller")
    return expect(label != caller, f"{label!r}, the caller's is {caller!r}")


CHECKS: tuple[Check, ...] = (
    Check(
        id="cap.bounding",
        cases=(ROOT, CAPABLE, CANARY_USER),
        probe="privilege:read_sets",
        observe=_observe_tasks,
        inside=_judge_bounding,
        outside=_judge_outer_bounding,
        request={"user": "0", "cap_drop": ("ALL",)},
        likely="a capability is not dropped from the bounding set",
    ),
    Check(
        id="cap.effective",
        cases=(ROOT, CAPABLE, CANARY_USER),
        probe="privilege:read_sets",
        observe=_observe_tasks,
        inside=_judge_sets,
        outside=_judge_outer_sets,
        request={"user": "0", "cap_drop": ("ALL",)},
        likely="a set is left as the caller's, perhaps the inheritable one",
    ),
    Check(
        id="cap.nnp",
        cases=(ROOT, CANARY_USER),
        probe="privilege:read_sets",
        observe=_observe_tasks,
        inside=_judge_nnp,
        outside=_judge_outer_nnp,
        likely="PR_SET_NO_NEW_PRIVS is not called",
    ),
    Check(
        id="cap.suid-inert",
        cases=(CANARY_USER,),
        plant=_plant_programs,
        probe="privilege:run_privileged",
        arguments=_programs,
        observe=_observe_programs,
        inside=_judge_programs,
        outside=_judge_outer_programs,
        likely="neither no_new_privs is set nor the root mounted nosuid",
    ),
    Check(
        id="cap.securebits",
        cases=(CAPABLE,),
        probe="privilege:bring_back",
        inside=_judge_brought_back,
        # The ways end as they are tried.
        outside=None,
        likely="a capability is dropped from the effective set and not from the bounding one",
    ),
    Check(
        id="sec.on",
        cases=(PLAIN,),
        observe=_observe_tasks,
        # A process without /proc can't see its filters.
        inside=None,
        outside=_judge_filter,
        likely="no filter is installed",
    ),
    Check(
        id="sec.deny",
        cases=(ROOT,),
        probe="privilege_call:call_denied",
        observe=_observe_tasks,
        inside=_judge_denied,
        outside=_judge_filter,
        likely="no filter is installed, or it only logs",
    ),
    Check(
        id="sec.allow",
        cases=(ROOT,),
        probe="privilege_call:call_allowed",
        arguments=lambda look: {"directory": writable_place(look)},
        inside=_judge_allowed,
        # That a call works is for who makes it to see.
        outside=None,
        likely="no filter is installed, or it denies too much",
    ),
    Check(
        id="sec.arch",
        cases=(ROOT,),
        probe="privilege_call:call_by_other_entries",
        inside=_judge_entries,
        outside=None,
        likely="the filter looks at calls of one architecture and lets the others through",
    ),
    Check(
        id="sec.threads",
        cases=(ROOT,),
        probe="privilege_call:call_in_threads",
        observe=_observe_filters,
        inside=_judge_denied,
        outside=_judge_filter,
        likely="the filter is set in one thread, without TSYNC",
    ),
    Check(
        id="lsm.profile",
        cases=(PLAIN,),
        probe="privilege:read_label",
        arguments=lambda look: {"caller": _read_label("self")},
        observe=_observe_label,
        inside=_judge_label,
        outside=_judge_outer_label,
        likely="the label is not set before the exec",
    ),
)
