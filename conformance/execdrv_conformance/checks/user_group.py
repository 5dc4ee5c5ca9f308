"""Checks of `cg`: which control groups hold the job, and what it can do to them."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from typing import Any

from execdrv_conformance.agent import Line
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.canary.group import GroupCanary
from execdrv_conformance.check import Case, Check, Gathered
from execdrv_conformance.finding import Arm, Finding, expect, unfinished, violated
from execdrv_conformance.observe import group, process
from execdrv_conformance.observe.credential import end_helpers

CONTROLLERS = ("pids", "memory")
#: Existing directories of every root, on which a mount namespace of one's own may mount.
PLACES = ["/mnt", "/srv", "/media"]
#: Lists its groups before anything else and without another process, and again when told.
FIRST_LOOK = (
    'tell() { while IFS= read -r line; do echo "$line"; done </proc/self/cgroup; echo end; }; '
    "tell; sleep 5 & sleep 5 & read -r go; tell; read -r go"
)


def _draw_limits(bench: Bench) -> dict[str, Any]:
    return {
        "user": "0",
        "pids": bench.rng.randrange(40, 90),
        "memory": bench.rng.randrange(48, 64) << 20,
    }


def _draw_limits_of_user(bench: Bench) -> dict[str, Any]:
    fields = _draw_limits(bench)
    # Without a driver it is the caller's user who writes.
    return fields if bench.is_control else {**fields, "user": "54321:54321"}


#: A group is made, of limits that no other group has.
GROUPED = Case(name="grouped", more_fields=_draw_limits)
GROUPED_USER = Case(name="grouped-user", more_fields=_draw_limits_of_user)


# --- cg.placed, cg.view ------------------------------------------------------------------------


def _directories(pid: int) -> dict[str, str]:
    """Its group by controller, where it has one."""
    found = {name: group.directory_of(pid, name) for name in CONTROLLERS}
    return {name: path for name, path in found.items() if path is not None}


def _place(bench: Bench) -> Gathered:
    """A job that tells its groups first of all, watched from its first word on."""
    fields = bench.adapt(_draw_limits(bench))
    bench.asked = dict(fields)
    caller = {"groups": process.read_groups(os.getpid()), "directories": _directories(os.getpid())}
    if bench.is_control:
        with bench.agent(**fields) as look:
            groups = look.agent.call("user:read_groups", {})["groups"]
            early = _directories(look.pid)
        inside = {"first": groups, "later": groups}
        return {**inside, "caller": caller["groups"]}, {
            "early": early,
            "later": {str(look.pid): early},
            "caller": caller["directories"],
        }
    return _place_job(bench, fields, caller)


def _place_job(bench: Bench, fields: Mapping[str, Any], caller: Mapping[str, Any]) -> Gathered:
    nonce = bench.nonce()
    with contextlib.closing(Line()) as line, open(os.devnull, "w+b") as null:
        watcher = _watch_first(line)
        box = bench.start(
            ["/bin/sh", "-c", FIRST_LOOK],
            env={"XDC_NONCE": nonce},
            stdin=line.theirs,
            stdout=line.theirs,
            stderr=null,
            **fields,
        )
        with box:
            with open(watcher, "rb") as pipe:
                first = json.loads(pipe.read() or b"{}")
            line.theirs.close()
            line.send(b"go\n", timeout_s=2.0)
            later = _parse_groups(_receive_all(line))
            marked = {str(pid): _directories(pid) for pid in process.find_marked(nonce)}
    told = {"first": _parse_groups(first.get("lines", [])), "later": later}
    seen = {"early": first.get("directories", {}), "later": marked}
    return (
        {**told, "caller": caller["groups"]},
        {**seen, "caller": caller["directories"]},
    )


def _watch_first(line: Line) -> int:
    """A child that notes the groups of the job as it says its first word; a pipe of its answer."""
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        return reader
    try:
        os.close(reader)
        line.theirs.close()
        lines = [line.receive_line(time.monotonic() + 10).decode()]
        found = {"directories": _directories(line.writer)}
        while lines[-1] != "end":
            lines.append(line.receive_line(time.monotonic() + 2).decode())
        os.write(writer, json.dumps({**found, "lines": lines}).encode())
    finally:
        os._exit(0)


def _receive_all(line: Line) -> list[str]:
    lines = [""]
    while lines[-1] != "end":
        lines.append(line.receive_line(time.monotonic() + 5).decode())
    return lines


def _parse_groups(lines: list[str]) -> dict[str, str]:
    return {line.split(":", 2)[1]: line.split(":", 2)[2] for line in lines if line.count(":") > 1}


def _path_of(groups: Mapping[str, Any], controller: str) -> str | None:
    for names, path in groups.items():
        if controller in names.split(","):
            return str(path)
    found = groups.get("")
    return None if found is None else str(found)


def _judge_first_look(arm: Arm) -> Finding:
    first, later = arm.inside.table("first"), arm.inside.table("later")
    caller = arm.inside.table("caller")
    paths = {
        name: (_path_of(first, name), _path_of(later, name), _path_of(caller, name))
        for name in CONTROLLERS
        if name in arm.asked
    }
    if not paths:
        return violated("no limit could be asked for, and no group is made")
    # The first and the last look must show the same group, and not the caller's.
    placed = all(early not in (None, own) and early == now for early, now, own in paths.values())
    return expect(placed, f"first, later and the caller's: {paths}")


def _judge_placed(arm: Arm) -> Finding:
    early, caller = arm.outside.table("early"), arm.outside.table("caller")
    later = arm.outside.table("later")
    asked = [name for name in CONTROLLERS if name in arm.asked]
    if not asked:
        return violated("no limit could be asked for, and no group is made")
    if not early or not later:
        return unfinished("no process of the job was seen")
    outside = [
        f"{name} of {who}"
        for name in asked
        for who, groups in {"the first look": early, **later}.items()
        if groups.get(name) in (None, caller.get(name)) or groups.get(name) != early.get(name)
    ]
    return expect(not outside, f"{len(later)} processes; not in the group: {outside}")


def _read_view(look: Look) -> dict[str, Any]:
    return {
        "link": process.read_namespaces(look.pid)["cgroup"],
        "caller": process.read_namespaces("self")["cgroup"],
    }


def _judge_view(arm: Arm) -> Finding:
    groups = arm.inside["groups"]
    if not groups:
        return violated("no group can be seen at all")
    other = {names: path for names, path in groups.items() if path != "/"}
    return expect(not other, f"{len(groups)} hierarchies, other paths than `/`: {other}")


def _judge_view_link(arm: Arm) -> Finding:
    own = arm.outside.text("link") != arm.outside.text("caller")
    return expect(own, f"{'its own' if own else 'the caller`s'} {arm.outside.text('link')}")


# --- cg.ro, cg.no-leave ------------------------------------------------------------------------


def _make_group_canary(_: Bench) -> GroupCanary:
    return GroupCanary()


def _groups_of(bench: Bench) -> GroupCanary:
    """The kit's own groups for the control."""
    return bench.share(_make_group_canary)


def _own_directories(look: Look) -> dict[str, str]:
    """Groups of the job that are not the caller's, by controller."""
    caller = _directories(os.getpid())
    return {name: path for name, path in _directories(look.pid).items() if path != caller[name]}


def _read_limits(look: Look) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in _own_directories(look):
        read = group.read_memory if name == "memory" else group.read_pids
        found[name] = read(group.bounds_of(look.pid, name) or "")["limit"]
    return found


def _begin_groups(look: Look) -> dict[str, Any]:
    """The job's groups and limits; a control gets some from the kit."""
    if look.container is None:
        limits = {name: int(look.fields[name]) for name in CONTROLLERS}
        try:
            _groups_of(look.bench).place(look.pid, name=look.bench.nonce(), **limits)
        except OSError as error:
            return {"error": str(error)}
    return {"limits": _read_limits(look), "directories": _own_directories(look)}


def _end_groups(look: Look) -> dict[str, Any]:
    """The same, with the groups of the helpers; they and the kit's groups end here."""
    found = {
        "limits": _read_limits(look),
        "tree": {
            str(pid): _directories(pid)
            for pid in process.list_tree(look.pid)
            if process.is_alive(pid)
        },
    }
    end_helpers(look.pid)
    if look.container is None:
        _groups_of(look.bench).remove()
    return found


def _asked_limits(look: Look) -> dict[str, Any]:
    return {
        "pids": look.fields.get("pids"),
        "memory": look.fields.get("memory"),
        "places": PLACES,
    }


def _judge_raised(arm: Arm) -> Finding:
    if "pids" not in arm.asked:
        return violated("no limit could be asked for")
    raised, ways = arm.inside.listed("raised"), arm.inside.table("ways")
    saw = f"{arm.inside.number('found')} files of limits found, raised {raised}, errors {ways}"
    return expect(not raised, saw)


def _judge_limits(arm: Arm) -> Finding:
    before, now = arm.outside.table("before"), arm.outside.table("limits")
    if "error" in before:
        return unfinished(f"the control has no group: {before['error']}")
    limits = before["limits"]
    if not limits or None in limits.values():
        return violated(f"the job has no limits: {limits}")
    return expect(limits == now, f"{limits} before, {now} after")


def _judge_left(arm: Arm) -> Finding:
    if "pids" not in arm.asked:
        return violated("no limit could be asked for, and no group is made")
    left, errors = arm.inside.listed("left"), arm.inside.table("errors")
    saw = f"{arm.inside.number('found')} other groups found, one taken in {left}, errors {errors}"
    return expect(not left, saw)


def _judge_members(arm: Arm) -> Finding:
    before, tree = arm.outside.table("before"), arm.outside.table("tree")
    if "error" in before:
        return unfinished(f"the control has no group: {before['error']}")
    own = before["directories"]
    if not own:
        return violated("the job is in the caller's groups")
    strays = [
        f"{pid} in {groups.get(name)}"
        for pid, groups in tree.items()
        for name, directory in own.items()
        if not str(groups.get(name)).startswith(directory)
    ]
    return expect(not strays, f"{len(tree)} processes; strays: {strays}")


CHECKS: tuple[Check, ...] = (
    Check(
        id="cg.placed",
        cases=(GROUPED,),
        scenario=_place,
        inside=_judge_first_look,
        outside=_judge_placed,
        request={"cgroup_parent": "xdc-nowhere"},
        likely="the job is moved into its group when it already runs",
    ),
    Check(
        id="cg.view",
        cases=(GROUPED,),
        probe="user:read_groups",
        observe=_read_view,
        inside=_judge_view,
        outside=_judge_view_link,
        likely="no cgroup namespace is made, or before the job is in its group",
    ),
    Check(
        id="cg.ro",
        cases=(GROUPED, GROUPED_USER),
        probe="user:raise_limits",
        arguments=_asked_limits,
        before=_begin_groups,
        observe=_end_groups,
        inside=_judge_raised,
        outside=_judge_limits,
        likely="the files of the job's group are in its reach, and it is their owner",
    ),
    Check(
        id="cg.no-leave",
        cases=(GROUPED,),
        probe="user:leave_group",
        arguments=lambda look: {"asked": "pids" in look.fields},
        before=_begin_groups,
        observe=_end_groups,
        inside=_judge_left,
        outside=_judge_members,
        likely="the machine's groups are in the job's reach, writable",
    ),
)
