"""Checks of `mnt`: binds and tmpfs that were asked for, and their flags."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from execdrv.spec import Tmpfs
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check, Gathered
from execdrv_conformance.checks.mount_source import Sources, list_binds, make_sources
from execdrv_conformance.checks.place import (
    OWNER_CAPABILITIES,
    STRANGER,
    name_in_job,
    plant_directory,
    writable_place,
)
from execdrv_conformance.finding import Arm, Finding, expect
from execdrv_conformance.observe import mount, tree

#: Entries of a tree that a probe looks at, at most.
MOST_ENTRIES = 20_000
#: Of statvfs(3): nosuid, nodev and noexec.
_INERT, _NOEXEC = 2 | 4 | 8, 8
#: Of a tmpfs under test.
SMALL_BYTES = 1 << 20

#: Scenarios of binds and tmpfs, with containers of their own.
MOUNTED = Case(name="mounted")


def _use_binds(bench: Bench) -> tuple[dict[str, Any], dict[str, Any]]:
    """One container with all binds; its probes and the observer's looks, for five checks."""
    with make_sources(bench) as sources:
        fields = {
            "user": "0",
            "cap_add": OWNER_CAPABILITIES,
            "root_mode": "private",
            **list_binds(bench, sources),
        }
        before = _digest_kept(sources)
        with bench.agent(**fields) as look:
            mounts = mount.read_mounts(look.pid)
            place = f"/srv/targets-{sources.tag}"
            # Wherever they are: a second mount of a read-only bind must be read-only too.
            copies = {
                one["target"]: one["options"]
                for one in mounts
                if f"/{sources.kept.name}" in one["root"] and one["target"] != f"{place}/kept"
            }
            inside = _probe_binds(look, sources, copies)
        outside = {
            "mounts": {
                one["target"].removeprefix(place + "/"): one["options"]
                for one in mounts
                if one["target"].startswith(place + "/")
            },
            "sources": sorted(
                [one["root"].rpartition("/")[2], one["target"].removeprefix(place + "/")]
                for one in mounts
                if "/apart-" in one["root"] and sources.tag in one["root"]
            ),
            "copies": copies,
            "before": before,
            "after": _digest_kept(sources),
            "apart": sources.apart.name,
            "tag": sources.tag,
        }
    return inside, outside


def _digest_kept(sources: Sources) -> dict[str, str]:
    return {path.name: tree.digest(path) for path in (sources.kept, *sources.below)}


def _probe_binds(look: Look, sources: Sources, copies: Iterable[str]) -> dict[str, Any]:
    bound = "binds" in look.fields and look.container is not None
    place = f"/srv/targets-{sources.tag}"

    def find(source: Path, target: str) -> str:
        """Where the job has a source; one without binds has those in its root as they are."""
        return f"{place}/{target}" if bound else name_in_job(look, source)

    kept, flagged = find(sources.kept, "kept"), find(sources.flagged, "flags")
    # By the name below the source; a path to another mount of it begins with a slash.
    directories = {"": kept, **{path.name: f"{kept}/{path.name}" for path in sources.below}}
    directories |= {target: target for target in copies}
    through = {
        name: look.agent.call(
            "mount:write_through",
            {
                "directory": directory,
                "place": writable_place(look),
                "name": look.bench.nonce(),
            },
        )["errors"]
        for name, directory in directories.items()
    }
    program = find(sources.unexecutable, "unexecutable") if bound else flagged
    flags = {"directory": flagged, "program": f"{program}/echo", "uid": STRANGER}
    facts = {"through": through, "flags": look.agent.call("mount:use_flags", flags)}
    if look.container is None:
        # What only works as asked needs no control.
        return facts
    names = look.agent.call("mount:find_names", {"name": sources.tag, "most": MOST_ENTRIES})
    said = look.agent.call("mount:read_word", {"path": f"{place}/file"})
    targets = ["nest", "nest/outer", "nest/outer/tmpfs", "nest/outer/tmpfs/inner"]
    nested = look.agent.call("mount:identify", {"targets": [f"{place}/{one}" for one in targets]})
    outer, inner = (list(os.stat(one)[2:0:-1]) for one in (sources.outer, sources.inner))
    wanted = {"nest": "tmpfs", "nest/outer": outer, "nest/outer/tmpfs": "tmpfs"}
    wanted["nest/outer/tmpfs/inner"] = inner
    return {
        **facts,
        "paths": [path.removeprefix(place + "/") for path in names["paths"]],
        "said": said["word"] == sources.tag,
        "nested": {one.removeprefix(place + "/"): seen for one, seen in nested["seen"].items()},
        "wanted": wanted,
        "tag": sources.tag,
    }


def _share_binds(bench: Bench) -> Gathered:
    return bench.share(_use_binds)


def _judge_bind(arm: Arm) -> Finding:
    paths, said = arm.inside.listed("paths"), arm.inside.flag("said")
    wanted = [f"apart/{arm.inside.text('tag')}"]
    saw = f"the source's file is at {paths}; the bound file {'says' if said else 'lacks'} its word"
    return expect(paths == wanted and said, saw)


def _judge_bind_mounts(arm: Arm) -> Finding:
    found = arm.outside.listed("sources")
    wanted = sorted([[arm.outside.text("apart"), "apart"], [arm.outside.text("tag"), "file"]])
    return expect(found == wanted, f"mounts of the source: {found}, wanted {wanted}")


def _judge_writes(arm: Arm, *, below: bool) -> Finding:
    through = arm.inside.table("through")
    errors = {
        f"{where}: {what}": number
        for where, found in through.items()
        for what, number in found.items()
        if (where != "" and not where.startswith("/")) == below
    }
    other = {
        what: errno.errorcode.get(number, "worked" if not number else "nothing there")
        for what, number in errors.items()
        if number != errno.EROFS
    }
    saw = f"not EROFS: {other}" if other else f"EROFS from {len(errors)} writes"
    return expect(bool(errors) and not other, saw)


def _judge_kept(arm: Arm, *, below: bool) -> Finding:
    before, after = arm.outside.table("before"), arm.outside.table("after")
    names = [name for name in before if name.startswith("kept-") != below]
    changed = [name for name in names if before[name] != after[name]]
    mounts = arm.outside.table("mounts")
    targets = [one for one in mounts if one == "kept" or (below and one.startswith("kept/"))]
    writable = [one for one in targets if "ro" not in mounts[one]]
    copies = arm.outside.table("copies")
    if not below:
        writable += [one for one, options in copies.items() if "ro" not in options]
    missing = len(targets) < (3 if below else 1)
    saw = f"mounts {targets}, of these writable {writable}; changed: {changed}"
    return expect(not missing and not writable and not changed, saw)


def _judge_flags(arm: Arm) -> Finding:
    flags = arm.inside.table("flags")
    acts = {
        "nosuid": flags["suid"] == "0",
        "noexec": flags["run"] == "said",
        "nodev": flags["device"] == "opens",
    }
    # no_new_privs stops a setuid program too: the flags tell the one from the other.
    on_flags, on_program = flags["flags"]
    lacking = (_INERT & ~_NOEXEC & ~on_flags) | (_INERT & ~on_program)
    saw = f"setuid program: {flags['suid']}; program: {flags['run']}; device: {flags['device']}"
    return expect(not any(acts.values()) and not lacking, f"{saw}; flags lacking: {lacking}")


def _judge_flag_options(arm: Arm) -> Finding:
    mounts = arm.outside.table("mounts")
    lacking = {
        target: sorted({*wanted} - {*mounts.get(target, ())})
        for target, wanted in (
            ("flags", ("nosuid", "nodev")),
            ("unexecutable", ("nosuid", "nodev", "noexec")),
        )
    }
    return expect(not any(lacking.values()), f"flags that the binds lack: {lacking}")


def _judge_order(arm: Arm) -> Finding:
    nested, wanted = arm.inside.table("nested"), arm.inside.table("wanted")
    wrong = {}
    for target, seen in nested.items():
        is_tmpfs = len(seen) == 3 and seen[2]
        right = is_tmpfs if wanted[target] == "tmpfs" else seen[:2] == wanted[target]
        if not right:
            wrong[target] = seen
    return expect(not wrong, f"not what was asked: {wrong}" if wrong else f"{len(nested)} targets")


# --- mnt.tmpfs ---------------------------------------------------------------------------------


def _use_tmpfs(bench: Bench) -> Gathered:
    plant_directory(bench, "xdc-tmpfs")
    name = bench.nonce()
    wide, small = "/srv/xdc-tmpfs", "/opt"
    asked = (
        Tmpfs(target=wide.encode()),
        Tmpfs(target=small.encode(), size=SMALL_BYTES, mode=0o750),
    )
    fields = {"user": "0", "root_mode": "private", "tmpfs": asked}
    with contextlib.ExitStack() as stack:
        # Also where the root was not changed at all: then the job writes to the machine's own.
        stack.callback(_remove_written, bench, (wide, small), name)
        sibling = stack.enter_context(bench.agent(**fields))
        look = stack.enter_context(bench.agent(**fields))
        inside = look.agent.call("mount:use_tmpfs", {"targets": [wide, small], "name": name})
        places = {"places": [wide, small], "name": name}
        inside["sibling"] = sibling.agent.call("mount:find_name", places)["found"]
        mounts = mount.read_mounts(look.pid)
        found = {one: mount.find_mount(mounts, one) for one in (wide, small)}
    outside = {
        target: [one["type"], one["super"], one["root"]] if one else ["nothing", [], ""]
        for target, one in found.items()
    }
    return inside, {"mounts": outside}


def _remove_written(bench: Bench, targets: tuple[str, ...], name: str) -> None:
    """Remove what a job has written outside a tmpfs of its own; the name is this run's alone."""
    for target in targets:
        for top in ("", str(bench.root)):
            Path(f"{top}{target}", name).unlink(missing_ok=True)


def _judge_tmpfs(arm: Arm) -> Finding:
    wrong = {}
    for target, seen in arm.inside.table("targets").items():
        mode, most = (0o750, SMALL_BYTES) if target == "/opt" else (0o1777, None)
        right = (
            seen.get("tmpfs")
            and seen["entries"] == []
            and seen["mode"] == mode
            and seen["written"]
            and (most is None or seen["bytes"] == most)
        )
        if not right:
            wrong[target] = seen
    shared = arm.inside.listed("sibling")
    saw = f"not as asked: {wrong}" if wrong else "empty, its own, mode and size as asked"
    return expect(not wrong and not shared, f"{saw}; the sibling sees {shared}")


def _judge_tmpfs_mounts(arm: Arm) -> Finding:
    mounts = arm.outside.table("mounts")
    small = mounts["/opt"]
    # 1777 is the kernel's own default, which it does not list.
    sized = "mode=750" in small[1] and f"size={SMALL_BYTES >> 10}k" in small[1]
    kinds = [one[0] for one in mounts.values()]
    saw = f"types {kinds}, options of the small one {small[1]}"
    return expect(kinds == ["tmpfs", "tmpfs"] and sized, saw)


CHECKS = (
    Check(
        id="mnt.bind",
        cases=(MOUNTED,),
        scenario=_share_binds,
        inside=_judge_bind,
        outside=_judge_bind_mounts,
        likely="the source is not mounted, or in the wrong place",
    ),
    Check(
        id="mnt.tmpfs",
        cases=(MOUNTED,),
        scenario=_use_tmpfs,
        inside=_judge_tmpfs,
        outside=_judge_tmpfs_mounts,
        likely="nothing is mounted, or mode and size are lost",
    ),
    Check(
        id="mnt.bind-ro",
        cases=(MOUNTED,),
        scenario=_share_binds,
        inside=lambda arm: _judge_writes(arm, below=False),
        outside=lambda arm: _judge_kept(arm, below=False),
        likely="MS_RDONLY was given with MS_BIND, which the kernel ignores",
    ),
    Check(
        id="mnt.bind-ro-rec",
        cases=(MOUNTED,),
        scenario=_share_binds,
        inside=lambda arm: _judge_writes(arm, below=True),
        outside=lambda arm: _judge_kept(arm, below=True),
        likely="the top of the bind alone is made read-only (AT_RECURSIVE)",
    ),
    Check(
        id="mnt.bind-flags",
        cases=(MOUNTED,),
        scenario=_share_binds,
        inside=_judge_flags,
        outside=_judge_flag_options,
        likely="flags were given with MS_BIND, which the kernel ignores",
    ),
    Check(
        id="mnt.order",
        cases=(MOUNTED,),
        scenario=_share_binds,
        inside=_judge_order,
        outside=None,
        likely="mounts are made in the order given, so that a later one hides an earlier one",
    ),
)
