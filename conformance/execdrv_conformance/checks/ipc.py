"""Checks of `ipc` and `uts`: objects of System V and POSIX IPC, keys, and the host name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from execdrv_conformance import kernel
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Check, Gathered
from execdrv_conformance.checks.cases import ADMIN, PLAIN, ROOT, STRANGER
from execdrv_conformance.checks.sibling import meet_siblings
from execdrv_conformance.finding import Arm, Finding, expect, holds, unfinished, violated
from execdrv_conformance.observe import process
from execdrv_conformance.observe.credential import end_helpers


def _canary(look: Look) -> dict[str, Any]:
    return look.canaries.ipc.facts()


# --- ipc ---------------------------------------------------------------------------------------


def _observe_segment(look: Look) -> dict[str, Any]:
    """The canary's segment while the probe's helper may hold it; the helper ends here."""
    seen = look.canaries.ipc.look()
    end_helpers(look.pid)
    return seen


def _judge_sysv(arm: Arm) -> Finding:
    reached, listed = arm.inside.listed("reached"), arm.inside.listed("listed")
    if reached or listed:
        return violated(f"{reached} work, {listed} are listed")
    errors = arm.inside.table("errors")
    return holds(f"refused: {errors}") if errors else unfinished("nothing was tried")


def _judge_segment(arm: Arm) -> Finding:
    before = arm.outside.table("before")
    now = {name: arm.outside[name] for name in ("attached", "content")}
    same = before == now and now["content"] == arm.canaries.table("ipc")["word"]
    return expect(same, f"attached by {now['attached']}, {before['attached']} before")


def _read_links(look: Look) -> dict[str, Any]:
    return {
        "link": process.read_namespaces(look.pid)["ipc"],
        "caller": process.read_namespaces("self")["ipc"],
    }


def _judge_queue(arm: Arm) -> Finding:
    if arm.inside.flag("reached"):
        return violated("the canary's queue opens")
    if not arm.inside.flag("made"):
        return violated(f"no queue of its own can be made: {arm.inside.table('errors')}")
    return holds(f"the canary's queue: {arm.inside.table('errors').get('given')}; its own is made")


def _judge_link(arm: Arm) -> Finding:
    own = arm.outside.text("link") != arm.outside.text("caller")
    return expect(own, f"{'its own' if own else 'the caller`s'} {arm.outside.text('link')}")


def _meet(bench: Bench) -> Gathered:
    met = bench.share(meet_siblings)
    return met["inside"], met["outside"]


def _judge_met(arm: Arm) -> Finding:
    made, shared = arm.inside.listed("made"), arm.inside.table("shared")
    if len(made) < 3:
        return unfinished(f"the first one made {made} only")
    return expect(not shared["reached"], f"of {made} the other one reached {shared['reached']}")


def _judge_siblings(arm: Arm) -> Finding:
    links = arm.outside.table("ipc")
    return expect(len(set(links.values())) == len(links), f"namespaces {links}")


def _name_keys(look: Look) -> dict[str, Any]:
    name = _canary(look)["name"]
    return {"session": f"{name}-s", "user": f"{name}-u"}


def _end_reader(look: Look) -> dict[str, Any]:
    """End the probe's helper: it has a session ring of its own by now."""
    end_helpers(look.pid)
    return {}


def _judge_keys(arm: Arm) -> Finding:
    word = arm.canaries.table("ipc")["word"]
    found, errors = arm.inside.table("found"), arm.inside.table("errors")
    read = sorted(name for name, value in found.items() if value == word)
    saw = f"read {read}; refused {errors}; listed {arm.inside.listed('listed')}"
    if not read:
        return expect(bool(errors), saw)
    return violated(saw, parts=tuple(sorted({name.partition(" ")[0] for name in read})))


# --- uts ---------------------------------------------------------------------------------------


def _read_hostname(pid: int) -> str:
    """The host name in a process's uts namespace, by entering it."""
    namespace = os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            kernel.setns(namespace, kernel.CLONE_NEWUTS)
            os.write(writer, os.uname().nodename.encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.close(namespace)
    with open(reader) as pipe:
        name = pipe.read()
    os.waitpid(child, 0)
    return name


def _observe_name(look: Look) -> dict[str, Any]:
    return {"name": _read_hostname(look.pid), "machine": os.uname().nodename}


def _judge_name(arm: Arm) -> Finding:
    names = [arm.inside.text("uname"), arm.inside.text("gethostname")]
    if "hostname" not in arm.asked:
        return expect(False, f"{names}; the name could not be asked for")
    asked = arm.asked.text("hostname")
    return expect(names == [asked, asked], f"{names}, asked {asked!r}")


def _judge_machine_name(arm: Arm) -> Finding:
    name, machine = arm.outside.text("name"), arm.outside.text("machine")
    unchanged = machine == arm.canaries.text("hostname")
    asked = arm.asked.text("hostname") if "hostname" in arm.asked else None
    return expect(unchanged and name == asked, f"{name!r} inside, the machine is {machine!r}")


def _name_domain() -> str:
    return Path("/proc/sys/kernel/domainname").read_text().strip()


def _read_names(look: Look) -> dict[str, Any]:
    return {"host": os.uname().nodename, "domain": _name_domain()}


def _observe_names(look: Look) -> dict[str, Any]:
    """Both names of the machine; what a job has changed is put back."""
    found = _read_names(look)
    if found["host"] != look.canaries.hostname:
        kernel.sethostname(look.canaries.hostname)
    if found["domain"] != "(none)":
        kernel.setdomainname("(none)")
    return found


def _judge_set(arm: Arm) -> Finding:
    before, now = arm.inside.text("before"), arm.inside.text("now")
    done, errors = arm.inside.listed("done"), arm.inside.table("errors")
    if not done and not errors:
        return unfinished("nothing was tried")
    # A name of its own it may change; the machine's tells itself by its name.
    machine = before == arm.canaries.text("hostname")
    saw = f"{before!r} became {now!r}; set {done}, refused {errors}"
    return expect(not (done and machine), saw)


def _judge_names(arm: Arm) -> Finding:
    before = arm.outside.table("before")
    now = {name: arm.outside.text(name) for name in ("host", "domain")}
    return expect(before == now, f"{before} before, {now} after")


CHECKS: tuple[Check, ...] = (
    Check(
        id="ipc.sysv",
        cases=(PLAIN,),
        probe="ipc:reach_sysv",
        arguments=lambda look: {"key": _canary(look)["key"], "size": len(_canary(look)["word"])},
        before=lambda look: look.canaries.ipc.look(),
        observe=_observe_segment,
        inside=_judge_sysv,
        outside=_judge_segment,
        likely="no ipc namespace is made (CLONE_NEWIPC)",
    ),
    Check(
        id="ipc.mqueue",
        cases=(PLAIN,),
        probe="ipc:reach_mqueue",
        arguments=lambda look: {"name": _canary(look)["name"], "own": look.bench.nonce()},
        observe=_read_links,
        inside=_judge_queue,
        outside=_judge_link,
        likely="no ipc namespace is made (CLONE_NEWIPC)",
    ),
    Check(
        id="ipc.siblings",
        cases=(PLAIN,),
        scenario=_meet,
        inside=_judge_met,
        outside=_judge_siblings,
        likely="two containers share one ipc namespace",
    ),
    Check(
        id="ipc.keyring",
        cases=(PLAIN,),
        probe="ipc:read_keys",
        arguments=_name_keys,
        observe=_end_reader,
        inside=_judge_keys,
        # Who has read a key is not told.
        outside=None,
        likely="the job keeps the caller's session keyring, or is the caller's user to the kernel",
    ),
    Check(
        id="uts.hostname",
        cases=(STRANGER,),
        probe="ipc:read_names",
        observe=_observe_name,
        inside=_judge_name,
        outside=_judge_machine_name,
        request={"hostname": "xdc-asked"},
        likely="no uts namespace is made, or the name is not set in it",
    ),
    Check(
        id="uts.no-host-set",
        cases=(ROOT, ADMIN),
        probe="ipc:set_names",
        arguments=lambda look: {"host": look.bench.nonce(), "domain": look.bench.nonce()},
        before=_read_names,
        observe=_observe_names,
        inside=_judge_set,
        outside=_judge_names,
        likely="no uts namespace is made (CLONE_NEWUTS)",
    ),
)
