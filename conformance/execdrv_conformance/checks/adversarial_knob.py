"""Attacks by the job on what it can open once it runs: settings, release agents, handles.

Each is made by root of the container, and where it can become one, by user 1000 too: a plain user
alone shows nothing, for on the machine itself modes stop it. What is reached the job keeps open, so
that the observer sees the same by the kernel's word.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from execdrv_conformance import kernel
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check
from execdrv_conformance.finding import Arm, Finding, holds, violated
from execdrv_conformance.observe import descriptor


def _own_root(bench: Bench) -> dict[str, Any]:
    """A root of the case's own: what the job does to a root without a layer stays there."""
    return {} if bench.is_control else {"rootfs": bench.fresh_root()}


#: Root in a root of its own without a layer: a walk, or a handle, begins on the machine's disk.
HOSTILE = Case(
    name="hostile-root",
    fields={"user": "0", "root_mode": "direct"},
    more_fields=_own_root,
)
#: The same with capabilities that open what only their lack keeps shut.
CAPABLE = Case(
    name="hostile-capable",
    fields={"user": "0", "root_mode": "direct", "cap_add": ("SYS_ADMIN", "DAC_READ_SEARCH")},
    more_fields=_own_root,
)

#: Each of them makes the kernel run a program, or act, on the machine.
SETTINGS = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hotplug",
    "/proc/sys/kernel/poweroff_cmd",
    "/proc/sys/kernel/usermodehelper/bset",
    "/proc/sys/kernel/usermodehelper/inheritable",
    "/proc/sys/fs/binfmt_misc/register",
    "/sys/kernel/uevent_helper",
    "/proc/sysrq-trigger",
)


def judge_reached(arm: Arm) -> Finding:
    """Whether any way of a probe reached anything."""
    reached = arm.inside.listed("reached")
    if reached:
        return violated(f"reached {reached[:3]}, {len(reached)} in all")
    return holds(f"nothing reached: {arm.inside.table('outcomes')}")


def judge_held(arm: Arm) -> Finding:
    """Whether the job has anything open that it must not reach, or has changed it."""
    held, changed = arm.outside.listed("held"), arm.outside.listed("changed")
    if held or changed:
        return violated(f"the job has {held[:3]} open; changed: {changed}")
    return holds("nothing of it is open in the job, and nothing has changed")


def differing(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names whose values are not the same."""
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


def _read_values(paths: Iterable[str]) -> dict[str, str]:
    values = {}
    for path in paths:
        try:
            values[path] = Path(path).read_text()
        except OSError:
            # Not in this kernel, or not to be read.
            continue
    return values


def links_of(look: Look, wanted: Callable[[dict[str, Any]], bool]) -> list[str]:
    """Links of what the job's processes have open, if wanted."""
    return [one["link"] for one in descriptor.list_tree_descriptors(look.pid) if wanted(one)]


# --- settings and release agents ---------------------------------------------------------------


def _look_at_settings(look: Look) -> dict[str, Any]:
    names = {path.rpartition("/")[2] for path in SETTINGS}
    return {
        "held": links_of(
            look, lambda one: one["writable"] and one["link"].rpartition("/")[2] in names
        ),
        "changed": differing(look.bench.share(_settings), _read_values(SETTINGS)),
    }


def _settings(_: Bench) -> dict[str, str]:
    return _read_values(SETTINGS)


def _setting_arguments(look: Look) -> dict[str, Any]:
    # What they are before the first attempt.
    look.bench.share(_settings)
    return {"names": list(SETTINGS)}


def _agents(_: Bench) -> dict[str, str]:
    return _read_values(str(path) for path in Path("/sys/fs/cgroup").glob("*/release_agent"))


def _agent_arguments(look: Look) -> dict[str, Any]:
    look.bench.share(_agents)
    lines = Path("/proc/cgroups").read_text().splitlines()[1:]
    controllers = [line.split()[0] for line in lines]
    # Where every controller is on v2, a hierarchy without one; it ends with its last mount.
    return {"controllers": [*controllers, f"none,name={look.bench.nonce()}"]}


def _look_at_agents(look: Look) -> dict[str, Any]:
    return {
        "held": links_of(
            look, lambda one: one["writable"] and one["link"].endswith("release_agent")
        ),
        "changed": differing(look.bench.share(_agents), _agents(look.bench)),
    }


# --- handles -----------------------------------------------------------------------------------


def _handle_arguments(look: Look) -> dict[str, Any]:
    try:
        handle = kernel.name_to_handle(str(look.canaries.files.secret))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        handle = None
    return {"handle": handle, "places": ["/", "/tmp", "/mnt", "."]}


def _look_for_canary(look: Look) -> dict[str, Any]:
    facts = look.canaries.files.facts()
    place = [facts["device"], facts["inode"]]
    content = Path(facts["secret"]).read_text()
    return {
        "held": links_of(look, lambda one: one["place"] == place),
        "changed": [] if content == facts["word"] else ["the canary"],
    }


CHECKS = (
    Check(
        id="esc.release-agent",
        cases=(HOSTILE,),
        probe="adversarial_knob:open_release_agents",
        arguments=_agent_arguments,
        observe=_look_at_agents,
        inside=judge_reached,
        outside=judge_held,
        likely="CAP_SYS_ADMIN without a cgroup namespace, or the machine's hierarchies in view",
    ),
    Check(
        id="esc.core-pattern",
        cases=(HOSTILE, CAPABLE),
        probe="adversarial_knob:open_settings",
        arguments=_setting_arguments,
        observe=_look_at_settings,
        inside=judge_reached,
        outside=judge_held,
        likely="/proc/sys is not read-only, or the job may mount a procfs",
    ),
    Check(
        id="esc.handle",
        cases=(HOSTILE, CAPABLE),
        probe="adversarial_knob:open_handles",
        arguments=_handle_arguments,
        observe=_look_for_canary,
        inside=judge_reached,
        outside=judge_held,
        likely="the job has CAP_DAC_READ_SEARCH",
    ),
)
