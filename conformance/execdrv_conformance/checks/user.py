"""Checks of `user`, `cg` and `time`: who the job is, which groups hold it, and the clocks."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from execdrv_conformance.agent import Line
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.canary.group import GroupCanary
from execdrv_conformance.check import Case, Check, Gathered
from execdrv_conformance.checks.cases import CANARY_USER, PLAIN, ROOT, STRANGER
from execdrv_conformance.checks.place import OWNER_CAPABILITIES, name_in_job
from execdrv_conformance.finding import Arm, Facts, Finding, expect, holds, unfinished, violated
from execdrv_conformance.observe import group, process
from execdrv_conformance.observe.credential import end_helpers, read_credentials, read_tree
from execdrv_conformance.standin.furnish import CALLER_GROUP

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SYS_TIME = 1, 2, 25
#: A group that a file's mode denies; nobody's otherwise.
DENIED_GROUP = 54398
#: Root that may change its groups and its user: what keeps it is its user namespace.
OWNER = Case(name="user-owner", fields={"user": "0", "cap_add": OWNER_CAPABILITIES})
CONTROLLERS = ("pids", "memory")
#: Existing directories of every root, on which a mount namespace of one's own may mount.
PLACES = ["/mnt", "/srv", "/media"]
#: Seconds that a clock may seem to be off, while both sides read theirs.
CLOCK_SLACK_S = 1.0
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


# --- user.uid, user.groups ---------------------------------------------------------------------


def _wanted_ids(arm: Arm) -> tuple[int, int] | None:
    """User and group as asked or by default; None: a user of the container's own."""
    if "user" in arm.asked:
        user, _, named = arm.asked.text("user").partition(":")
        return int(user), int(named or user)
    if arm.defaults["uid"] is None:
        return None
    return arm.defaults.number("uid"), arm.defaults.number("gid")


def _judge_ids(facts: Facts, arm: Arm) -> Finding:
    uids, gids = facts.listed("uids"), facts.listed("gids")
    saw = f"users {uids}, groups {gids}"
    if len(uids) != 4 or len(gids) != 4:
        return unfinished(saw)
    wanted = _wanted_ids(arm)
    if wanted is None:
        own = len(set(uids)) == len(set(gids)) == 1 and uids[0] != 0 and gids[0] != 0
        return expect(own, f"{saw}; one of the container's own was promised")
    return expect(uids == [wanted[0]] * 4 and gids == [wanted[1]] * 4, f"{saw}; wanted {wanted}")


def _read_own(look: Look) -> dict[str, Any]:
    return read_credentials(look.pid)


def _judge_groups(facts: Facts, arm: Arm) -> Finding:
    groups, wanted = facts.listed("groups"), _wanted_ids(arm)
    # Where the container has a user of its own, whose number nobody knows before, it tells itself.
    primary = int(facts.listed("gids")[0]) if wanted is None else wanted[1]
    more = arm.asked.listed("groups") if "groups" in arm.asked else []
    expected = sorted({primary, *map(int, more)})
    # The primary group need not be named among the others.
    same = sorted({*groups, primary}) == expected and len(set(groups)) == len(groups)
    return expect(same, f"groups {groups}, wanted {expected}")


def _judge_inner_groups(arm: Arm) -> Finding:
    found = _judge_groups(arm.inside, arm)
    if found.state != "holds":
        return found
    reads = arm.inside.table("reads")
    # Who reads root's own file too does not do it by the group.
    if reads["xdc-group"] == "read" and reads["xdc-root-only"] != "read":
        return violated(f"{found.saw}; the caller's group opens a file")
    return holds(f"{found.saw}; files of the caller's group and of root's: {reads}")


def _plant(bench: Bench, name: str, *, owner: int, gid: int, mode: int) -> None:
    """A file in the root, with a word that the observers know."""
    path = bench.root / "srv" / name
    path.parent.chmod(0o755)
    path.unlink(missing_ok=True)
    path.write_text(bench.canaries.files.word)
    with contextlib.suppress(PermissionError):
        os.chown(path, owner, gid)
    path.chmod(mode)


def _plant_unreadable(bench: Bench) -> None:
    """A file for the caller's group, and one for root alone."""
    _plant(bench, "xdc-group", owner=0, gid=CALLER_GROUP, mode=0o640)
    _plant(bench, "xdc-root-only", owner=0, gid=0, mode=0o600)


def _planted(look: Look, *names: str) -> dict[str, str]:
    return {name: name_in_job(look, look.bench.root / "srv" / name) for name in names}


# --- user.no-return, user.no-host-file ---------------------------------------------------------


def _observe_tree(look: Look) -> dict[str, Any]:
    """Users and capabilities of the job and of the helpers it has left; those end here."""
    tree = read_tree(look.pid)
    end_helpers(look.pid)
    keys = ("pid", "uids", "CapEff", "CapPrm")
    return {"tasks": [{key: one[key] for key in keys} for one in tree]}


def _judge_return(arm: Arm) -> Finding:
    returned, errors = arm.inside.listed("returned"), arm.inside.table("errors")
    if not returned and not errors:
        return unfinished("nothing was tried")
    return expect(not returned, f"user 0 again by {returned}; refused {errors}")


def _judge_uids(arm: Arm) -> Finding:
    tasks = arm.outside.listed("tasks")
    if not tasks:
        return unfinished("no process of the job was there")
    root = [one["uids"] for one in tasks if 0 in one["uids"]]
    return expect(not root, f"users of {len(tasks)} tasks, with 0 in {root}")


def _judge_secret(arm: Arm) -> Finding:
    said = str(arm.inside.table("reads")["xdc-root-only"])
    # What is not there could not be read by anybody.
    return unfinished("the file is not there") if said == "ENOENT" else expect(said != "read", said)


def _judge_reading_rights(arm: Arm) -> Finding:
    passing = 1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH
    tasks = arm.outside.listed("tasks")
    if not tasks:
        return unfinished("no process of the job was there")
    mighty = [one for one in tasks if 0 in one["uids"] or (one["CapEff"] | one["CapPrm"]) & passing]
    return expect(not mighty, f"{len(tasks)} tasks, root or passing modes: {mighty}")


# --- user.map, user.setgroups, user.no-userns --------------------------------------------------


def _read_map(look: Look) -> dict[str, Any]:
    return {
        "uid": read_credentials(look.pid)["uids"][0],
        "link": process.read_namespaces(look.pid)["user"],
        "caller": process.read_namespaces("self")["user"],
    }


def _judge_map(arm: Arm) -> Finding:
    caller, text = arm.inside.number("caller"), arm.inside["uid_map"]
    lines = [[int(word) for word in line.split()] for line in (text or "").splitlines()]
    outer = next((line[1] for line in lines if line[0] == 0), None)
    saw = f"user 0 is {outer if lines else 'not told'}, the caller's user 0 is {caller}"
    return expect(arm.inside.number("uid") == 0 and caller != 0 and outer != 0, saw)


def _judge_mapped(arm: Arm) -> Finding:
    uid = arm.outside.number("uid")
    own = arm.outside.text("link") != arm.outside.text("caller")
    saw = f"user {uid} on the machine, {'its own' if own else 'the caller`s'} user namespace"
    return expect(own and uid != 0, saw)


def _observe_setgroups(look: Look) -> dict[str, Any]:
    """What setgroups is to the helper, and its groups; it ends here."""
    helpers = [pid for pid in process.list_tree(look.pid) if pid != look.pid]
    found = {
        "setgroups": Path(f"/proc/{look.pid}/setgroups").read_text().strip(),
        "helpers": [read_credentials(pid)["groups"] for pid in helpers if process.is_alive(pid)],
    }
    end_helpers(look.pid)
    return found


def _judge_dropped(arm: Arm) -> Finding:
    dropped, error = arm.inside.flag("dropped"), arm.inside.text("error")
    if not dropped:
        return expect(bool(error), f"setgroups is refused: {error}")
    read = arm.inside["content"] is not None
    return violated(f"the group is left, and its file {'can' if read else 'can not'} be read")


def _judge_setgroups(arm: Arm) -> Finding:
    word = arm.outside.text("setgroups")
    return expect(word == "deny", f"setgroups is {word!r}, groups {arm.outside.listed('helpers')}")


def _observe_namespaces(look: Look) -> dict[str, Any]:
    """User namespaces of the job and of its helpers, which end here."""
    links = {}
    for pid in process.list_tree(look.pid):
        with contextlib.suppress(OSError):
            links[str(pid)] = process.read_namespaces(pid)["user"]
    end_helpers(look.pid)
    return {"links": links, "own": links.get(str(look.pid), "")}


def _judge_made(arm: Arm) -> Finding:
    made, errors = arm.inside.listed("made"), arm.inside.table("errors")
    if not made and not errors:
        return unfinished("nothing was tried")
    return expect(not made, f"made by {made}; refused {errors}")


def _judge_links(arm: Arm) -> Finding:
    links, own = arm.outside.table("links"), arm.outside.text("own")
    others = sorted(set(links.values()) - {own})
    return expect(bool(own) and not others, f"{len(links)} processes, new namespaces {others}")


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
    for name, directory in _own_directories(look).items():
        read = group.read_memory if name == "memory" else group.read_pids
        found[name] = read(directory)["limit"]
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


# --- time --------------------------------------------------------------------------------------


def _clocks(_: Look) -> dict[str, Any]:
    return {
        "monotonic_s": time.clock_gettime(time.CLOCK_MONOTONIC),
        "boottime_s": time.clock_gettime(time.CLOCK_BOOTTIME),
    }


def _judge_set_clocks(arm: Arm) -> Finding:
    answers = arm.inside.table("answers")
    open_ = {name: said for name, said in answers.items() if said not in ("EPERM", "ENOSYS")}
    return expect(bool(answers) and not open_, f"values out of range are answered by {answers}")


def _watch_clock(look: Look) -> dict[str, Any]:
    return {"drift_s": time.time() - time.monotonic(), **read_credentials(look.pid)}


def _judge_clock_right(arm: Arm) -> Finding:
    before = arm.outside.table("before")
    jump = abs(arm.outside.decimal("drift_s") - float(before["drift_s"]))
    sets = {name: arm.outside.number(name) for name in ("CapEff", "CapPrm", "CapBnd")}
    having = [name for name, value in sets.items() if value >> CAP_SYS_TIME & 1]
    saw = f"the clock jumped {jump:.3f} s, CAP_SYS_TIME in {having}"
    return expect(jump < CLOCK_SLACK_S and not having, saw)


def _read_offsets(look: Look) -> dict[str, Any]:
    return {
        "link": process.read_namespaces(look.pid)["time"],
        "caller": process.read_namespaces("self")["time"],
        "offsets": Path(f"/proc/{look.pid}/timens_offsets").read_text().split(),
    }


def _judge_offsets(arm: Arm) -> Finding:
    offsets = [round(arm.inside.decimal(name), 3) for name in ("monotonic_s", "boottime_s")]
    moved = all(abs(offset) > CLOCK_SLACK_S for offset in offsets)
    return expect(moved, f"monotonic and boot-time clock are off by {offsets} s")


def _judge_time_namespace(arm: Arm) -> Finding:
    own = arm.outside.text("link") != arm.outside.text("caller")
    numbers = [int(word) for word in arm.outside.listed("offsets") if word.lstrip("-").isdigit()]
    saw = f"{'its own' if own else 'the caller`s'} namespace, offsets {numbers}"
    return expect(own and any(numbers), saw)


CHECKS: tuple[Check, ...] = (
    Check(
        id="user.uid",
        cases=(PLAIN, ROOT, STRANGER),
        probe="user:describe",
        observe=_read_own,
        inside=lambda arm: _judge_ids(arm.inside, arm),
        outside=lambda arm: _judge_ids(arm.outside, arm),
        request={"user": "12345:12346"},
        likely="the ids are not set, or not all four of them",
    ),
    Check(
        id="user.groups",
        cases=(STRANGER, CANARY_USER),
        plant=_plant_unreadable,
        probe="user:read_files",
        arguments=lambda look: {"paths": _planted(look, "xdc-group", "xdc-root-only")},
        observe=_read_own,
        inside=_judge_inner_groups,
        outside=lambda arm: _judge_groups(arm.outside, arm),
        request={"groups": ("12347",)},
        likely="setgroups is not called, and the caller's groups stay",
    ),
    Check(
        id="user.no-return",
        cases=(STRANGER,),
        probe="user:return_to_root",
        # The control is root: what a driver would be that keeps the saved user.
        arguments=lambda look: {"keep_saved": 54321 if look.container is None else None},
        observe=_observe_tree,
        inside=_judge_return,
        outside=_judge_uids,
        likely="the saved user stays 0, or the job keeps CAP_SETUID",
    ),
    Check(
        id="user.map",
        cases=(ROOT,),
        probe="user:read_maps",
        observe=_read_map,
        inside=_judge_map,
        outside=_judge_mapped,
        likely="no user namespace is made, or it maps user 0 to user 0",
    ),
    Check(
        id="user.no-host-file",
        cases=(STRANGER,),
        plant=_plant_unreadable,
        probe="user:read_files",
        arguments=lambda look: {"paths": _planted(look, "xdc-root-only")},
        observe=_observe_tree,
        inside=_judge_secret,
        outside=_judge_reading_rights,
        likely="the job is root, or keeps a capability that passes modes",
    ),
    Check(
        id="user.setgroups",
        cases=(OWNER,),
        plant=lambda bench: _plant(bench, "xdc-denied", owner=0, gid=DENIED_GROUP, mode=0o604),
        probe="user:drop_group",
        arguments=lambda look: {
            "path": _planted(look, "xdc-denied")["xdc-denied"],
            "group": DENIED_GROUP,
        },
        observe=_observe_setgroups,
        inside=_judge_dropped,
        outside=_judge_setgroups,
        likely="setgroups of the user namespace is not deny",
    ),
    Check(
        id="user.no-userns",
        cases=(PLAIN,),
        probe="user:make_user_namespace",
        observe=_observe_namespaces,
        inside=_judge_made,
        outside=_judge_links,
        likely="nothing keeps the job from unshare(CLONE_NEWUSER)",
    ),
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
    Check(
        id="time.no-set",
        cases=(ROOT,),
        probe="user:set_clocks",
        before=_watch_clock,
        observe=_watch_clock,
        inside=_judge_set_clocks,
        outside=_judge_clock_right,
        likely="the job has CAP_SYS_TIME",
    ),
    Check(
        id="time.ns",
        cases=(PLAIN,),
        probe="user:read_clocks",
        arguments=_clocks,
        observe=_read_offsets,
        inside=_judge_offsets,
        outside=_judge_time_namespace,
        likely="no time namespace is made (CLONE_NEWTIME)",
    ),
)
