"""Checks of `dev`: which device nodes the job has, and which it can make or open."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Any

from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.canary.loop import LoopCanary
from execdrv_conformance.check import Case, Check
from execdrv_conformance.checks.cases import ROOT, STRANGER
from execdrv_conformance.finding import Arm, Facts, Finding, expect, unfinished, violated
from execdrv_conformance.observe import process

#: May make nodes: what keeps them closed is not the lack of a capability.
MAKER = Case(name="maker", fields={"user": "0", "cap_add": ("MKNOD",)})

#: Nodes of every /dev (the kernel's admin-guide/devices.txt).
NODES = {
    "/dev/null": "c 1:3",
    "/dev/zero": "c 1:5",
    "/dev/full": "c 1:7",
    "/dev/random": "c 1:8",
    "/dev/urandom": "c 1:9",
    "/dev/tty": "c 5:0",
}
#: What may be there beside them: ends of terminals, links, and directories.
MORE_NODES = {"/dev/ptmx": "c 5:2", "/dev/pts/ptmx": "c 5:2"}
LINKS = ("/dev/ptmx", "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/core")
DIRECTORIES = ("/dev/pts", "/dev/shm", "/dev/mqueue")
#: By name and by number, beside the canary's disk; each is opened and nothing more.
DEVICES = {
    "mem": ("/dev/mem", "c", 1, 1),
    "kmsg": ("/dev/kmsg", "c", 1, 11),
    "fuse": ("/dev/fuse", "c", 10, 229),
    "kvm": ("/dev/kvm", "c", 10, 232),
    "tun": ("/dev/net/tun", "c", 10, 200),
}
_READ_BYTES = 64


def _list_outside(look: Look) -> dict[str, Any]:
    """The same listing from the machine's side."""
    found = {}
    top = f"/proc/{look.pid}/root/dev"
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            found["/dev" + path.removeprefix(top)] = _describe(os.lstat(path))
        if len(found) > 1000:
            break
    return {"entries": found}


def _describe(info: os.stat_result) -> str:
    for kind, is_kind in (("c", stat.S_ISCHR), ("b", stat.S_ISBLK)):
        if is_kind(info.st_mode):
            return f"{kind} {os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
    if stat.S_ISLNK(info.st_mode):
        return "link"
    return "directory" if stat.S_ISDIR(info.st_mode) else "file"


def _is_usual(path: str, what: str) -> bool:
    """Whether it belongs into every /dev, or is no way to a device."""
    if what in ("link", "directory", "file") and path.startswith(("/dev/shm/", "/dev/mqueue/")):
        return True
    if what in ("link", "directory"):
        return path in (LINKS if what == "link" else DIRECTORIES)
    if path.startswith("/dev/pts/") and what.startswith("c 136:"):
        return True
    return {**NODES, **MORE_NODES}.get(path) == what


def _judge_nodes(facts: Facts) -> Finding:
    entries = facts.table("entries")
    more = {path: what for path, what in entries.items() if not _is_usual(path, what)}
    lacking = [path for path, what in NODES.items() if entries.get(path) != what]
    saw = f"{len(entries)} entries, too many {dict(list(more.items())[:6])}, lacking {lacking}"
    return expect(not more and not lacking, saw)


def _judge_use(arm: Arm) -> Finding:
    facts = arm.inside
    wanted: dict[str, Any] = {
        "null": [0, _READ_BYTES],
        "zero": [True, _READ_BYTES],
        "full": [True, errno.ENOSPC],
        "random": [_READ_BYTES, _READ_BYTES, True, True],
        "urandom": [_READ_BYTES, _READ_BYTES, True, True],
    }
    wrong = {name: facts[name] for name, value in wanted.items() if facts[name] != value}
    # A job without a terminal gets ENXIO: the node is there and says so.
    if facts.number("tty") not in (0, errno.ENXIO):
        wrong["tty"] = errno.errorcode.get(facts.number("tty"))
    return expect(not wrong, f"not as in the manual: {wrong}" if wrong else "all six as they must")


# --- dev.no-mknod, dev.no-disk -----------------------------------------------------------------


def _loop(bench: Bench) -> LoopCanary:
    return LoopCanary(bench.scratch)


def _places(look: Look) -> list[str]:
    if look.container is None:
        return [str(look.bench.scratch)]
    return ["", "/tmp", "/dev", "/dev/shm", "/var/tmp"]


def _attach_disk(look: Look) -> list[Any]:
    """Name, kind and numbers of the canary's disk, from now until `_detach_disk`."""
    loop = look.bench.share(_loop)
    loop.attach()
    facts = loop.facts()
    return ["disk", "b", facts["major"], facts["minor"]]


def _make_nodes(look: Look) -> dict[str, Any]:
    # Null is in every list of what is allowed, so that no list stands before the capability.
    numbers: list[Any] = [["null", "c", 1, 3], ["kmsg", "c", 1, 11]]
    if look.bench.machine.get("loop"):
        numbers.append(_attach_disk(look))
    return {"paths": [], "numbers": numbers, "places": _places(look), "name": look.bench.nonce()}


def _open_disks(look: Look) -> dict[str, Any]:
    disk = _attach_disk(look)
    return {
        "paths": [look.bench.share(_loop).path, *(one[0] for one in DEVICES.values())],
        "numbers": [disk, *([name, *one[1:]] for name, one in DEVICES.items())],
        "places": _places(look),
        "name": look.bench.nonce(),
    }


def _observe_held(look: Look) -> dict[str, Any]:
    """Devices that processes of the job hold open; those processes and the disk end here."""
    found = []
    usual = {*NODES.values(), *MORE_NODES.values()}
    for pid in process.list_tree(look.pid):
        held = []
        for number in process.read_fds(pid):
            with contextlib.suppress(OSError):
                path = f"/proc/{pid}/fd/{number}"
                what = _describe(os.stat(path))
                # A node of the job's making is one, whatever its number.
                made = "(deleted)" in os.readlink(path)
                if what[:2] in ("c ", "b ") and (made or what not in usual):
                    held.append(what)
        if held and pid != look.pid:
            os.kill(pid, 9)
        found += held
    look.bench.share(_loop).detach()
    return {"held": sorted(set(found))}


def _judge_opened(arm: Arm) -> Finding:
    opened, made = arm.inside.listed("opened"), arm.inside.listed("made")
    if opened:
        return violated(f"opened {opened[:8]}")
    errors = arm.inside.table("errors")
    if not errors:
        return unfinished("nothing was tried")
    why = sorted(set(errors.values()))
    return expect(True, f"none of {len(errors)} opens ({', '.join(why)}); nodes made: {len(made)}")


def _judge_held(arm: Arm) -> Finding:
    held = arm.outside.listed("held")
    return expect(not held, f"devices that the job holds open: {held}")


CHECKS = (
    Check(
        id="dev.minimal",
        cases=(ROOT,),
        probe="device:list_nodes",
        observe=_list_outside,
        inside=lambda arm: _judge_nodes(arm.inside),
        outside=lambda arm: _judge_nodes(arm.outside),
        likely="the machine's /dev is shown",
    ),
    Check(
        id="dev.usable",
        cases=(ROOT, STRANGER),
        probe="device:use_nodes",
        arguments=lambda look: {"size": _READ_BYTES},
        inside=_judge_use,
        outside=None,
        likely="nodes are plain files, or their mount is nodev",
    ),
    Check(
        id="dev.no-mknod",
        cases=(ROOT, MAKER),
        probe="device:open_devices",
        arguments=_make_nodes,
        observe=_observe_held,
        inside=_judge_opened,
        outside=_judge_held,
        likely="the job has CAP_MKNOD, and a mount without nodev",
    ),
    Check(
        id="dev.no-disk",
        cases=(ROOT, MAKER),
        probe="device:open_devices",
        arguments=_open_disks,
        observe=_observe_held,
        inside=_judge_opened,
        outside=_judge_held,
        likely="the machine's /dev is shown, or the job has CAP_MKNOD and no group keeps devices",
    ),
)
