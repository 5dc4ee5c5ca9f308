"""Checks of `fs`: what the job sees of the kernel: its procfs, its knobs, its table of mounts."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from execdrv.spec import Bind
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check, Gathered
from execdrv_conformance.checks.cases import PLAIN, ROOT
from execdrv_conformance.finding import Arm, Facts, Finding, expect, holds, violated
from execdrv_conformance.observe import mount, process

#: Scenarios with containers of their own.
NAMES = Case(name="names")
#: Entries of a tree that a probe looks at, at most.
MOST_ENTRIES = 20_000

#: What the kernel itself keeps to root in /proc, and what container engines cover there.
KERNEL_FILES = (
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/iomem", "/proc/ioports"),
    *("/proc/kcore", "/proc/key-users", "/proc/keys", "/proc/kmsg", "/proc/kpagecgroup"),
    *("/proc/kpagecount", "/proc/kpageflags", "/proc/latency_stats", "/proc/mtrr"),
    *("/proc/pagetypeinfo", "/proc/sched_debug", "/proc/scsi", "/proc/slabinfo"),
    *("/proc/timer_list", "/proc/timer_stats", "/proc/vmallocinfo", "/proc/vmcore"),
    *("/sys/devices/virtual/powercap", "/sys/firmware", "/sys/kernel/debug"),
    *("/sys/kernel/tracing", "/sys/kernel/security"),
)
#: File systems that are the kernel's own files.
KERNEL_TYPES = ("proc", "sysfs", "debugfs", "tracefs", "securityfs", "cgroup", "cgroup2")
KNOB_PLACES = ("/proc/sys", "/proc/sysrq-trigger", "/sys")
#: Opened for writing, never written.
KNOBS = (
    *("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hostname"),
    *("/proc/sys/kernel/printk", "/proc/sys/vm/swappiness", "/proc/sys/fs/file-max"),
    *("/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/sys/power/state"),
    *("/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/profiling"),
)


# --- fs.proc-own, fs.masked, fs.sys-ro ---------------------------------------------------------


def _observe_proc(look: Look) -> dict[str, Any]:
    link = process.read_namespaces(look.pid)["pid"]
    numbers = []
    for pid in process.list_pids():
        with contextlib.suppress(OSError):
            if process.read_namespaces(pid)["pid"] == link:
                numbers.append(int(process.read_status(pid)["NSpid"].split()[-1]))
    found = mount.find_mount(mount.read_mounts(look.pid), "/proc")
    entries = []
    with contextlib.suppress(OSError):
        entries = os.listdir(f"/proc/{look.pid}/root/proc")
    return {
        "type": found["type"] if found else "nothing",
        "listed": sorted(int(name) for name in entries if name.isdigit()),
        "numbers": sorted(numbers),
        "own": link != process.read_namespaces("self")["pid"],
    }


def _judge_proc(arm: Arm) -> Finding:
    if not arm.inside.flag("procfs"):
        return violated("/proc is no procfs")
    pid, own = arm.inside.number("pid"), arm.inside.text("self")
    listed, named = arm.inside.listed("listed"), arm.inside.listed("named")
    saw = f"pid {pid}, /proc/self -> {own}, {len(listed)} listed, the canary as {named}"
    return expect(own == str(pid) and pid in listed and not named, saw)


def _judge_proc_numbers(arm: Arm) -> Finding:
    kind, own = arm.outside.text("type"), arm.outside.flag("own")
    listed, numbers = arm.outside.listed("listed"), arm.outside.listed("numbers")
    saw = f"{kind} at /proc, listed {listed[:9]}, processes {numbers[:9]}"
    return expect(kind == "proc" and own and listed == numbers, saw)


def _kernel_mount(look: Look, path: str) -> dict[str, Any] | None:
    """The mount that shows a path to the job, if it is one of the kernel's own files."""
    if not os.path.lexists(f"/proc/{look.pid}/root{path}"):
        return None
    shown = [
        one
        for one in mount.read_mounts(look.pid)
        if path == one["target"] or path.startswith(one["target"].rstrip("/") + "/")
    ]
    # Of two on one target the later is on top.
    top = max(reversed(shown), key=lambda one: len(one["target"]), default=None)
    return top if top is not None and top["type"] in KERNEL_TYPES else None


def _observe_masks(look: Look) -> dict[str, Any]:
    present = [one for one in KERNEL_FILES if os.path.lexists(f"/proc/{look.pid}/root{one}")]
    bare = [path for path in present if _kernel_mount(look, path)]
    return {"bare": bare, "masked": [path for path in present if path not in bare]}


def _judge_masked(arm: Arm) -> Finding:
    read, write = arm.inside.listed("read"), arm.inside.listed("write")
    saw = f"readable {read[:6]}, open for writing {write[:6]}"
    return expect(not read and not write, f"{saw}, of {len(KERNEL_FILES)} tried")


def _judge_masks(arm: Arm) -> Finding:
    bare, masked = arm.outside.listed("bare"), arm.outside.listed("masked")
    return expect(not bare, f"{len(masked)} covered, not covered {bare[:6]}")


def _read_knobs(look: Look) -> dict[str, Any]:
    values = {}
    for path in KNOBS:
        with contextlib.suppress(OSError):
            values[path] = Path(path).read_text()
    return {"values": values}


def _observe_knobs(look: Look) -> dict[str, Any]:
    shown = {path: _kernel_mount(look, path) for path in KNOB_PLACES}
    writable = [path for path, one in shown.items() if one and "ro" not in one["options"]]
    return {**_read_knobs(look), "writable": writable}


def _judge_knobs(arm: Arm) -> Finding:
    opened, writable = arm.inside.listed("opened"), arm.inside.listed("writable")
    saw = f"open for writing {opened[:6]}; may be written {writable}"
    return expect(not opened and not writable, f"{saw}, of {arm.inside.number('looked')}")


def _judge_knob_mounts(arm: Arm) -> Finding:
    writable = arm.outside.listed("writable")
    before, now = arm.outside.table("before")["values"], arm.outside.table("values")
    changed = [path for path, value in before.items() if now.get(path) != value]
    return expect(not writable and not changed, f"mounted rw: {writable}; changed: {changed}")


# --- fs.no-host-names --------------------------------------------------------------------------


def _search_mounts(bench: Bench) -> Gathered:
    """The table of mounts with a bind, with a root that is not private, and with neither."""
    facts = bench.canaries.files.facts()
    directory = Path(facts["directory"])
    words = [directory.name, str(bench.scratch)]
    bind = Bind(source=os.fsencode(directory), target=b"/mnt")
    asks: dict[str, dict[str, Any]] = {
        "binds": {"root_mode": "private", "binds": (bind,)},
        "root": {"root_mode": "read-only"},
        "rest": {"root_mode": "private"},
    }
    inside, outside = {}, {}
    for part, fields in asks.items():
        with bench.agent(**fields) as look:
            inside[part] = look.agent.call("filesystem_kernel:search_mounts", {"words": words})
            lines = Path(f"/proc/{look.pid}/mountinfo").read_text().splitlines()
        found = {word: [line for line in lines if word in line][:3] for word in words}
        outside[part] = {"found": found}
    return {"tables": inside, "words": words}, {"tables": outside, "words": words}


def _judge_names(facts: Facts) -> Finding:
    tables, (bound, anything) = facts.table("tables"), facts.listed("words")
    found = {part: table["found"] for part, table in tables.items()}
    shows = {
        "binds": bool(found["binds"][bound]),
        "root": bool(found["root"][anything]),
        # Not the bind's source: another name of the machine.
        "rest": bool(found["rest"][anything])
        or any(bound not in line for line in found["binds"][anything]),
    }
    parts = tuple(part for part, one in shows.items() if one)
    if not parts:
        return holds("no table of mounts has a name of the machine")
    example = next(lines[0] for table in found.values() for lines in table.values() if lines)
    return violated(f"names of the machine by {', '.join(parts)}: {example}", parts=parts)


CHECKS = (
    Check(
        id="fs.proc-own",
        cases=(PLAIN,),
        probe="filesystem_kernel:list_proc",
        arguments=lambda look: {"name": look.canaries.processes.facts()["name"]},
        observe=_observe_proc,
        inside=_judge_proc,
        outside=_judge_proc_numbers,
        likely="the machine's procfs is shown, or none at all",
    ),
    Check(
        id="fs.masked",
        cases=(ROOT,),
        probe="filesystem_kernel:open_kernel_files",
        arguments=lambda look: {"paths": list(KERNEL_FILES)},
        observe=_observe_masks,
        inside=_judge_masked,
        outside=_judge_masks,
        likely="nothing is mounted over the kernel's files",
    ),
    Check(
        id="fs.sys-ro",
        cases=(ROOT,),
        probe="filesystem_kernel:open_knobs",
        arguments=lambda look: {
            "paths": list(KNOBS),
            "tops": ["/proc/sys", "/sys"],
            "most": MOST_ENTRIES,
        },
        before=_read_knobs,
        observe=_observe_knobs,
        inside=_judge_knobs,
        outside=_judge_knob_mounts,
        likely="/proc/sys or /sys is mounted without being made read-only",
    ),
    Check(
        id="fs.no-host-names",
        cases=(NAMES,),
        scenario=_search_mounts,
        inside=lambda arm: _judge_names(arm.inside),
        outside=lambda arm: _judge_names(arm.outside),
        likely="a mount comes from a directory of the machine",
    ),
)
