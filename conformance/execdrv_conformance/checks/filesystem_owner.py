"""Checks of `fs`: setuid files, and the owners of files."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check
from execdrv_conformance.checks.cases import CANARY_USER
from execdrv_conformance.checks.place import (
    OWNER_CAPABILITIES,
    STRANGER,
    name_in_job,
    plant_directory,
    writable_place,
)
from execdrv_conformance.finding import Arm, Facts, Finding, expect, holds, unfinished, violated
from execdrv_conformance.observe import process

#: Root with what it takes to make setuid files and to become another user.
OWNER = Case(name="owner", fields={"user": "0", "cap_add": OWNER_CAPABILITIES})
#: Owner and group of a file that is there before the job.
GIVEN_OWNER = (12345, 23456)


# --- fs.owner ----------------------------------------------------------------------------------


def _plant_owned(bench: Bench) -> None:
    path = plant_directory(bench, "xdc-owner")
    path.chmod(0o777)
    (path / "given").write_text("")
    with contextlib.suppress(PermissionError):
        os.chown(path / "given", *GIVEN_OWNER)


def _own_files(look: Look) -> dict[str, Any]:
    return {"directory": name_in_job(look, look.bench.root / "srv/xdc-owner"), "name": "new"}


def _observe_owner(look: Look) -> dict[str, Any]:
    given = os.stat(look.bench.root / "srv/xdc-owner/given")
    new = os.stat(f"/proc/{look.pid}/root/srv/xdc-owner/new")
    return {"given": [given.st_uid, given.st_gid], "new": [new.st_uid, new.st_gid]}


def _judge_owner(facts: Facts, arm: Arm) -> Finding:
    asked = [int(number) for number in arm.asked.text("user").split(":")]
    given, new = facts.listed("given"), facts.listed("new")
    saw = f"given file {given}, wanted {list(GIVEN_OWNER)}; new file {new}, wanted {asked}"
    return expect(given == list(GIVEN_OWNER) and new == asked, saw)


# --- fs.nosuid ---------------------------------------------------------------------------------


def _setuid_places(look: Look) -> dict[str, Any]:
    places = ["/tmp", "/dev/shm", "/var/tmp", "/srv"]
    return {
        "directories": [writable_place(look)] if look.container is None else places,
        "uid": STRANGER,
        "name": look.bench.nonce(),
    }


def _observe_setuid(look: Look) -> dict[str, Any]:
    found = {}
    for pid in process.list_tree(look.pid):
        with contextlib.suppress(OSError, IndexError):
            if any(word.endswith(b"-sleep") for word in process.read_words(pid)[:1]):
                status = process.read_status(pid)
                found[process.read_words(pid)[0].decode()] = [status["Uid"], status["Gid"]]
                os.kill(pid, 9)
    return {"programs": found}


def _judge_setuid(arm: Arm) -> Finding:
    runs = arm.inside.table("runs")
    if not runs:
        return unfinished(f"no setuid file could be made: {arm.inside.table('skipped')}")
    gained = {place: said for place, said in runs.items() if "0" in said[:2]}
    saw = f"effective user and group by directory: { ({k: v[:2] for k, v in runs.items()}) }"
    return violated(saw) if gained else holds(saw)


def _judge_setuid_status(arm: Arm) -> Finding:
    programs = arm.outside.table("programs")
    if not programs:
        # A mount without programs gives no privilege either.
        refused = all(runs[2] for runs in arm.inside.table("runs").values())
        return holds("no program ran") if refused else unfinished("no program was found")
    wanted = "\t".join([str(STRANGER)] * 4)
    gained = {path: ids for path, ids in programs.items() if ids != [wanted, wanted]}
    saw = f"Uid and Gid of {len(programs)} setuid programs: {gained or 'the user`s own'}"
    return expect(not gained, saw)


CHECKS = (
    Check(
        id="fs.nosuid",
        cases=(OWNER,),
        probe="filesystem:run_setuid",
        arguments=_setuid_places,
        observe=_observe_setuid,
        inside=_judge_setuid,
        outside=_judge_setuid_status,
        likely="neither nosuid nor no_new_privs is set",
    ),
    Check(
        id="fs.owner",
        cases=(CANARY_USER,),
        plant=_plant_owned,
        probe="filesystem:own_files",
        arguments=_own_files,
        observe=_observe_owner,
        inside=lambda arm: _judge_owner(arm.inside, arm),
        outside=lambda arm: _judge_owner(arm.outside, arm),
        likely="owners are mapped, or the job runs as somebody else",
    ),
)
