"""Checks of `fs`: the root file system, which the job may write to and can't leave.

Those of what it shows of the kernel are in `filesystem_kernel`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

from execdrv.errors import UnsupportedError
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check, Gathered
from execdrv_conformance.checks import filesystem_kernel
from execdrv_conformance.checks.cases import CANARY_USER, ROOT
from execdrv_conformance.checks.place import (
    OWNER_CAPABILITIES,
    STRANGER,
    name_in_job,
    plant_directory,
    writable_place,
)
from execdrv_conformance.finding import Arm, Facts, Finding, expect, holds, unfinished, violated
from execdrv_conformance.observe import process, tree

#: Scenarios of files, with containers of their own.
FILES = Case(name="files")
#: Root with what it takes to make setuid files and to become another user.
OWNER = Case(name="owner", fields={"user": "0", "cap_add": OWNER_CAPABILITIES})
READ_ONLY = Case(name="read-only", fields={"user": "0", "root_mode": "read-only"})

#: Entries of a tree that a probe looks at, at most; the kit's root has a tenth of that.
MOST_ENTRIES = 20_000
#: Of the writable layer, in bytes and in files. There is no field to ask for them yet.
SIZE_LIMIT, INODE_LIMIT = 4 << 20, 256
SHARED_PLACES = ("/tmp", "/var/tmp", "/dev/shm")
#: Owner and group of a file that is there before the job.
GIVEN_OWNER = (12345, 23456)


# --- fs.root, fs.dotdot, fs.escape-chroot ------------------------------------------------------


def _secret(look: Look) -> dict[str, Any]:
    facts = look.canaries.files.facts()
    return {"secret": facts["secret"], "word": facts["word"]}


def _look_at_secret(look: Look) -> dict[str, Any]:
    """How the secret is now: whoever reaches it writes it anew."""
    return look.canaries.files.look()


def _is_machine_root(identity: list[Any], arm: Arm) -> bool:
    files = arm.canaries.table("files")
    return identity == [files["root_device"], files["root_inode"]]


def _observe_root(look: Look) -> dict[str, Any]:
    seen = process.identity(f"/proc/{look.pid}/root")
    secret = look.canaries.files.facts()["secret"]
    return {
        "root": [seen["device"], seen["inode"]],
        "secret": os.path.lexists(f"/proc/{look.pid}/root{secret}"),
    }


def _judge_reached(arm: Arm) -> Finding:
    reached, root = arm.inside.listed("reached"), arm.inside.listed("root")
    if reached or _is_machine_root(root, arm):
        return violated(f"root {root}; the secret opens by {reached}")
    return holds(f"root {root}; {arm.inside.number('tried')} paths tried")


def _judge_root(arm: Arm) -> Finding:
    root, secret = arm.outside.listed("root"), arm.outside.flag("secret")
    same = _is_machine_root(root, arm)
    saw = f"root {root}{', the machine`s' if same else ''}{', with the secret' if secret else ''}"
    return expect(not same and not secret, saw)


def _judge_forms(arm: Arm) -> Finding:
    reached = arm.inside.listed("reached")
    saw = f"of {arm.inside.number('tried')} forms reach the secret: {reached}"
    return expect(not reached, saw)


def _judge_untouched(arm: Arm) -> Finding:
    before, now = arm.outside.table("before"), arm.outside
    changed = [
        name for name in ("content", "mtime_ns", "mode", "owner") if before[name] != now[name]
    ]
    return expect(not changed, f"of the secret has changed: {changed}" if changed else "untouched")


def _climb(bench: Bench) -> Gathered:
    """The climb with CAP_SYS_CHROOT; as an ordinary user where a driver won't give that."""
    files = bench.canaries.files
    facts = files.facts()
    asks: tuple[dict[str, Any], ...] = (
        {"user": "0", "cap_add": ("SYS_CHROOT",)},
        {"user": f"{STRANGER}:{STRANGER}"},
    )
    refusal: UnsupportedError | None = None
    for fields in asks:
        before = files.look()
        try:
            with bench.agent(**fields) as look:
                inside = look.agent.call(
                    "filesystem:climb",
                    {
                        "enter": str(bench.root) if bench.is_control else "",
                        "secret": facts["secret"],
                        "word": facts["word"],
                        "place": "/tmp",
                        "name": bench.nonce(),
                    },
                )
                effective = process.read_status(look.pid)["CapEff"]
                outside = {"before": before, **files.look(), "effective": effective}
                return inside, outside
        except UnsupportedError as error:
            refusal = error
    raise refusal or UnsupportedError("cannot run the climb: nothing was asked")


def _judge_climb(arm: Arm) -> Finding:
    if "failed" in arm.inside:
        return unfinished(arm.inside.text("failed"))
    stands, refused = arm.inside.listed("stands"), arm.inside.number("refused")
    how = f"chroot was refused ({errno.errorcode[refused]})" if refused else "chroot worked"
    saw = f"{how}; `..` ended at {stands}, the root is {arm.inside.listed('root')}"
    return expect(not arm.inside.flag("reached") and not _is_machine_root(stands, arm), saw)


# --- fs.ro-root, fs.write-private, fs.tmp-private, fs.owner ------------------------------------


def _plant_read_only(bench: Bench) -> None:
    plant_directory(bench, "xdc-read-only")


def _digest_read_only(look: Look) -> dict[str, Any]:
    return {"digest": tree.digest(look.bench.root / "srv/xdc-read-only")}


def _judge_read_only(arm: Arm) -> Finding:
    errors = arm.inside.table("errors")
    other = {name: number for name, number in errors.items() if number != errno.EROFS}
    wrong = {name: errno.errorcode.get(number, "worked") for name, number in other.items()}
    return expect(not wrong, f"not EROFS: {wrong}" if wrong else f"EROFS from {len(errors)} calls")


def _judge_same_tree(arm: Arm) -> Finding:
    before, now = arm.outside.table("before")["digest"], arm.outside.text("digest")
    return expect(before == now, f"hash of the tree before {before}, after {now}")


def _write_beside_sibling(bench: Bench) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two containers of one root: what one writes must show neither in the other nor outside."""
    planted = plant_directory(bench, "xdc-private")
    name = bench.nonce()
    fields = {"user": "0", "root_mode": "private"}
    before = tree.digest(planted)
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_shared, bench, name)
        sibling = stack.enter_context(bench.agent(**fields))
        with bench.agent(**fields) as look:
            where = {"directory": name_in_job(look, planted), "name": name}
            places = {"directories": list(SHARED_PLACES), "name": name}
            inside = {
                "own": look.agent.call("filesystem:change_tree", where),
                "sibling": sibling.agent.call("filesystem:look_at_tree", where),
                "written": look.agent.call("filesystem:write_files", places)["errors"],
                "found": sibling.agent.call("filesystem:find_files", places)["found"],
            }
            machine = [one for one in _machine_places(bench) if os.path.lexists(f"{one}/{name}")]
        after = tree.digest(planted)
        left = tree.find_named(bench.root, name)
    return inside, {"before": before, "after": after, "left": left, "machine": machine}


def _machine_places(bench: Bench) -> list[str]:
    return [top + place for top in ("", str(bench.root)) for place in SHARED_PLACES]


def _remove_shared(bench: Bench, name: str) -> None:
    for place in _machine_places(bench):
        Path(place, name).unlink(missing_ok=True)


def _share_siblings(bench: Bench) -> Gathered:
    return bench.share(_write_beside_sibling)


def _judge_private(arm: Arm) -> Finding:
    own, sibling = arm.inside.table("own"), arm.inside.table("sibling")
    if not all(own.values()):
        return unfinished(f"the job itself does not see what it has written: {own}")
    return expect(not any(sibling.values()), f"the sibling sees {sibling}")


def _judge_kept_tree(arm: Arm) -> Finding:
    before, after = arm.outside.text("before"), arm.outside.text("after")
    left = [path for path in arm.outside.listed("left") if "/srv/" in path]
    saw = f"hash of the tree before {before}, after {after}, left over {left}"
    return expect(before == after and not left, saw)


def _judge_own_places(arm: Arm) -> Finding:
    written, found = arm.inside.table("written"), arm.inside.listed("found")
    closed = {place: errno.errorcode.get(number) for place, number in written.items() if number}
    if closed:
        return violated(f"can't be written to: {closed}; the sibling sees {found}")
    return expect(not found, f"wrote to {len(written)} directories; the sibling sees {found}")


def _judge_machine_places(arm: Arm) -> Finding:
    seen = arm.outside.listed("machine")
    return expect(not seen, f"seen on the machine in {seen}" if seen else "not on the machine")


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


# --- fs.size, fs.inodes ------------------------------------------------------------------------


def _fill(limit: int) -> Any:
    def arguments(look: Look) -> dict[str, Any]:
        return {
            "directory": str(look.bench.scratch) if look.container is None else "/",
            "name": look.bench.nonce(),
            "under": limit * 7 // 8,
            "over": limit * 5 // 4,
        }

    return arguments


def _observe_space(look: Look) -> dict[str, Any]:
    where = look.bench.scratch if look.container is None else f"/proc/{look.pid}/root"
    found = os.statvfs(where)
    return {"bytes": found.f_blocks * found.f_frsize, "inodes": found.f_files}


def _judge_fill(arm: Arm) -> Finding:
    under, over = arm.inside.number("under"), arm.inside.number("over")
    said = [errno.errorcode.get(number, "worked") for number in (under, over)]
    return expect([under, over] == [0, errno.ENOSPC], f"just under: {said[0]}, over: {said[1]}")


def _judge_space(name: str, limit: int) -> Any:
    def judgement(arm: Arm) -> Finding:
        most = arm.outside.number(name)
        # Some file systems count no inodes: there is no limit then.
        return expect(0 < most <= limit, f"statfs: {most} {name}, the limit is {limit}")

    return judgement


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
        id="fs.root",
        cases=(ROOT,),
        probe="filesystem:reach_secret",
        arguments=lambda look: {
            **_secret(look),
            "inode": look.canaries.files.facts()["inode"],
            "most": MOST_ENTRIES,
        },
        observe=_observe_root,
        inside=_judge_reached,
        outside=_judge_root,
        likely="the root is not changed, or a path or descriptor leads out of it",
    ),
    Check(
        id="fs.dotdot",
        cases=(ROOT,),
        probe="filesystem:leave_upwards",
        arguments=lambda look: {
            **_secret(look),
            "place": writable_place(look),
            "name": look.bench.nonce(),
        },
        before=_look_at_secret,
        observe=_look_at_secret,
        inside=_judge_forms,
        outside=_judge_untouched,
        likely="the root is not changed, or the working directory is left outside",
    ),
    Check(
        id="fs.escape-chroot",
        cases=(FILES,),
        scenario=_climb,
        inside=_judge_climb,
        outside=_judge_untouched,
        likely="the root is changed by chroot(2) alone, and the job has CAP_SYS_CHROOT",
    ),
    Check(
        id="fs.ro-root",
        cases=(READ_ONLY,),
        plant=_plant_read_only,
        probe="filesystem:write_everywhere",
        arguments=lambda look: {
            "directory": name_in_job(look, look.bench.root / "srv/xdc-read-only")
        },
        before=_digest_read_only,
        observe=_digest_read_only,
        inside=_judge_read_only,
        outside=_judge_same_tree,
        request={"root_mode": "read-only"},
        likely="the root's mount is not read-only",
    ),
    Check(
        id="fs.write-private",
        cases=(FILES,),
        scenario=_share_siblings,
        inside=_judge_private,
        outside=_judge_kept_tree,
        request={"root_mode": "private"},
        likely="the job writes to the tree itself",
    ),
    Check(
        id="fs.tmp-private",
        cases=(FILES,),
        scenario=_share_siblings,
        inside=_judge_own_places,
        outside=_judge_machine_places,
        likely="a directory of the machine is shown there, or the root's own is written to",
    ),
    Check(
        id="fs.size",
        cases=(ROOT,),
        probe="filesystem:fill_bytes",
        arguments=_fill(SIZE_LIMIT),
        observe=_observe_space,
        inside=_judge_fill,
        outside=_judge_space("bytes", SIZE_LIMIT),
        likely="the writable layer has no size of its own",
    ),
    Check(
        id="fs.inodes",
        cases=(ROOT,),
        probe="filesystem:fill_inodes",
        arguments=_fill(INODE_LIMIT),
        observe=_observe_space,
        inside=_judge_fill,
        outside=_judge_space("inodes", INODE_LIMIT),
        likely="the writable layer has no limit of inodes",
    ),
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
    *filesystem_kernel.CHECKS,
)
