"""Checks of `fs`: the root that the job can't leave."""

from __future__ import annotations

import errno
import os
from typing import Any

from execdrv.errors import UnsupportedError
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check, Gathered
from execdrv_conformance.checks.cases import ROOT
from execdrv_conformance.checks.place import STRANGER, writable_place
from execdrv_conformance.finding import Arm, Finding, expect, holds, unfinished, violated
from execdrv_conformance.observe import process

#: Scenarios of files, with containers of their own.
FILES = Case(name="files")

#: Entries of a tree that a probe looks at, at most; the kit's root has a tenth of that.
MOST_ENTRIES = 20_000


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
)
