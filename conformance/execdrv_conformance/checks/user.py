"""Checks of `user`: who the job is, and who it can become.

`user_group` has those of `cg`, `user_clock` those of `time`.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check
from execdrv_conformance.checks import user_clock, user_group
from execdrv_conformance.checks.cases import CANARY_USER, PLAIN, ROOT, STRANGER
from execdrv_conformance.checks.place import OWNER_CAPABILITIES, name_in_job
from execdrv_conformance.finding import Arm, Facts, Finding, expect, holds, unfinished, violated
from execdrv_conformance.observe import process
from execdrv_conformance.observe.credential import end_helpers, read_credentials, read_tree
from execdrv_conformance.standin.furnish import CALLER_GROUP

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
#: A group that a file's mode denies; nobody's otherwise.
DENIED_GROUP = 54398
#: Root that may change its groups and its user: what keeps it is its user namespace.
OWNER = Case(name="user-owner", fields={"user": "0", "cap_add": OWNER_CAPABILITIES})


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
    *user_group.CHECKS,
    *user_clock.CHECKS,
)
