"""Attacks by the job, on what it can reach once it runs: knobs, handles, namespaces, state.

Each is made by root of the container, and where it can become one, by user 1000 too: a plain user
alone shows nothing, for on the machine itself modes stop it. What is reached the job keeps open, so
that the observer sees the same by the kernel's word.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from execdrv_conformance import kernel
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check
from execdrv_conformance.finding import Arm, Finding, expect, holds, unfinished, violated
from execdrv_conformance.observe import descriptor, process


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
#: Entries of the root that a search for the state directory looks at.
MOST_ENTRIES = 5000


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


def _links_of(look: Look, wanted: Callable[[dict[str, Any]], bool]) -> list[str]:
    return [one["link"] for one in descriptor.list_tree_descriptors(look.pid) if wanted(one)]


# --- settings and release agents ---------------------------------------------------------------


def _look_at_settings(look: Look) -> dict[str, Any]:
    names = {path.rpartition("/")[2] for path in SETTINGS}
    return {
        "held": _links_of(
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
        "held": _links_of(
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
        "held": _links_of(look, lambda one: one["place"] == place),
        "changed": [] if content == facts["word"] else ["the canary"],
    }


# --- namespaces --------------------------------------------------------------------------------


def _start_neighbour(bench: Bench) -> dict[str, Any]:
    """A process of the machine in namespaces of its own."""
    word = bench.nonce()
    ready, said = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.closerange(3, said)
            os.closerange(said + 1, 4096)
            kernel.unshare(
                kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWNET | kernel.CLONE_NEWNS
            )
            kernel.sethostname(word)
            os.write(said, b".")
            os.execve("/bin/sleep", [word, "60"], {})
        finally:
            os._exit(127)
    os.close(said)
    with open(ready, "rb") as file:
        if not file.read(1):
            raise OSError(errno.ECHILD, "the neighbour did not start")
    links = process.read_namespaces(pid)
    own = process.read_namespaces("self")
    return {
        "pid": pid,
        "word": word,
        "links": [link for name, link in links.items() if link != own.get(name)],
    }


def _foreign_links(look: Look) -> set[str]:
    """Namespaces of the neighbour, and of the machine's processes where the job has its own."""
    own = set(process.read_namespaces(look.pid).values())
    level = process.read_namespaces("self")["pid"]
    tree = process.list_tree(look.pid)
    found = set(look.bench.share(_start_neighbour)["links"])
    for pid in process.list_pids():
        try:
            links = process.read_namespaces(pid)
        except OSError:
            continue
        # Those in a pid namespace of their own belong to a container.
        if pid not in tree and links.get("pid") == level:
            found |= set(links.values())
    return found - own


def _namespace_arguments(look: Look) -> dict[str, Any]:
    neighbour = look.bench.share(_start_neighbour)
    links = sorted(_foreign_links(look))
    return {"pid": neighbour["pid"], "word": neighbour["word"], "links": links}


def _look_at_namespaces(look: Look) -> dict[str, Any]:
    neighbour = look.bench.share(_start_neighbour)
    foreign = _foreign_links(look)
    entered: list[str] = []
    for pid in process.list_tree(look.pid):
        links = [*process.read_namespaces(pid).values(), _link_for_children(pid)]
        entered += [link for link in links if link in foreign]
    os.kill(neighbour["pid"], 9)
    os.waitpid(neighbour["pid"], 0)
    return {
        "entered": sorted(set(entered)),
        "offered": len(neighbour["links"]),
        "foreign": len(foreign),
    }


def _link_for_children(pid: int) -> str:
    # Who enters a pid namespace is not in it; the children are.
    try:
        return os.readlink(f"/proc/{pid}/ns/pid_for_children")
    except OSError:
        return ""


def _judge_entered(arm: Arm) -> Finding:
    entered, tried = arm.inside.listed("entered"), arm.inside.number("tried")
    if entered:
        return violated(f"setns succeeds on {entered[:3]}")
    return holds(f"{tried} descriptors tried, none entered {arm.inside.text('problem')}".strip())


def _judge_links(arm: Arm) -> Finding:
    entered = arm.outside.listed("entered")
    if not arm.outside.number("offered"):
        return unfinished("the neighbour has no namespace of its own")
    foreign = arm.outside.number("foreign")
    return expect(not entered, f"of {foreign} namespaces of the machine the job is in {entered}")


# --- state -------------------------------------------------------------------------------------


def _state_files(bench: Bench) -> dict[str, list[int]]:
    """Device and inode of what execdrv keeps on this machine, by path."""
    state = bench.scratch / "state"
    if bench.is_control:
        # There is no container, but the same files lie there.
        state.mkdir(mode=0o700, exist_ok=True)
        (state / "lock").touch(0o600)
    places = {}
    for top in (state, Path("/run/execdrv")):
        waiting = [top]
        device = None
        while waiting:
            path = waiting.pop()
            try:
                found = path.lstat()
                device = found.st_dev if device is None else device
                # What is mounted below, such as a container's root, is none of the state.
                if found.st_dev != device:
                    continue
                waiting += path.iterdir() if stat.S_ISDIR(found.st_mode) else ()
            except OSError:
                continue
            places[str(path)] = [found.st_dev, found.st_ino]
    return places


def _state_content(bench: Bench) -> dict[str, Any]:
    return {path: [place, *_content(Path(path))] for path, place in _state_files(bench).items()}


def _content(path: Path) -> list[Any]:
    try:
        found = path.lstat()
        data = path.read_bytes().hex() if stat.S_ISREG(found.st_mode) else ""
    except OSError as error:
        # It has gone since it was listed, or nobody may read it.
        return [errno.errorcode.get(error.errno or 0, "?")]
    return [found.st_mode, found.st_uid, found.st_size, data]


def _state_arguments(look: Look) -> dict[str, Any]:
    content = look.bench.share(_state_content)
    return {
        "paths": list(content),
        "places": [one[0] for one in content.values()],
        "most": MOST_ENTRIES,
    }


def _look_at_state(look: Look) -> dict[str, Any]:
    before = look.bench.share(_state_content)
    places = [one[0] for one in before.values()]
    return {
        "held": _links_of(look, lambda one: one["place"] in places),
        "changed": differing(before, _state_content(look.bench)),
        "files": len(places),
    }


def _judge_state(arm: Arm) -> Finding:
    reached = arm.inside.listed("reached")
    saw = f"{arm.inside.number('looked')} files looked at, reached {reached[:3] or 'none of it'}"
    return expect(not reached, saw)


# --- processes that join -----------------------------------------------------------------------

CATCH_S = 0.3


def _join(bench: Bench) -> tuple[dict[str, Any], dict[str, Any]]:
    """The job lies in wait; a process joins, by the driver if it can."""
    with bench.agent(user="0") as look:
        look.agent.begin("adversarial:catch_joining", {"seconds": CATCH_S, "first": True})
        look.agent.next_fact()
        joining, how = _start_joining(bench, look)
        tracer = 0
        try:
            inside = look.agent.finish(seen=1)
            if joining:
                tracer = int(process.read_status(joining)["TracerPid"])
        finally:
            if joining:
                os.kill(joining, 9)
        return inside, {"joined": bool(joining), "how": how, "tracer": tracer}


def _start_joining(bench: Bench, look: Look) -> tuple[int, str]:
    """The process that joins, as the observer finds it, and how it came; 0: none."""
    if look.container is None:
        word = bench.nonce()
        pid = os.fork()
        if pid == 0:
            try:
                os.closerange(3, 4096)
                os.execve("/bin/sleep", [word, "5"], {})
            finally:
                os._exit(127)
        return pid, "a plain process"
    join: Any = getattr(look.container, "exec", None)
    if join is None:
        return 0, "a container has no operation `exec`"
    word = bench.nonce()
    join([*bench.python("import time; time.sleep(5)"), word])
    deadline = time.monotonic() + CATCH_S
    while time.monotonic() < deadline:
        if marked := process.find_marked(word):
            return marked[-1], "exec"
        time.sleep(0.002)
    return 0, "exec started nothing"


def _judge_caught(arm: Arm) -> Finding:
    seen = arm.inside.listed("seen")
    if not seen:
        return violated("no process has joined")
    caught = [*arm.inside.listed("traced"), *arm.inside.listed("opened")]
    return expect(not caught, f"{len(seen)} processes appeared, got hold of {caught[:3] or 'none'}")


def _judge_joining(arm: Arm) -> Finding:
    if not arm.outside.flag("joined"):
        return violated(f"no process has joined: {arm.outside.text('how')}")
    tracer = arm.outside.number("tracer")
    return expect(not tracer, f"the joining process's tracer is {tracer}")


CHECKS = (
    Check(
        id="esc.release-agent",
        cases=(HOSTILE,),
        probe="adversarial:open_release_agents",
        arguments=_agent_arguments,
        observe=_look_at_agents,
        inside=judge_reached,
        outside=judge_held,
        likely="CAP_SYS_ADMIN without a cgroup namespace, or the machine's hierarchies in view",
    ),
    Check(
        id="esc.core-pattern",
        cases=(HOSTILE, CAPABLE),
        probe="adversarial:open_settings",
        arguments=_setting_arguments,
        observe=_look_at_settings,
        inside=judge_reached,
        outside=judge_held,
        likely="/proc/sys is not read-only, or the job may mount a procfs",
    ),
    Check(
        id="esc.handle",
        cases=(HOSTILE, CAPABLE),
        probe="adversarial:open_handles",
        arguments=_handle_arguments,
        observe=_look_for_canary,
        inside=judge_reached,
        outside=judge_held,
        likely="the job has CAP_DAC_READ_SEARCH",
    ),
    Check(
        id="esc.setns",
        cases=(HOSTILE,),
        probe="adversarial:enter_namespaces",
        arguments=_namespace_arguments,
        observe=_look_at_namespaces,
        inside=_judge_entered,
        outside=_judge_links,
        likely="the machine's processes or a descriptor of theirs are in reach of CAP_SYS_ADMIN",
    ),
    Check(
        id="esc.exec-ptrace",
        cases=(HOSTILE,),
        scenario=_join,
        inside=_judge_caught,
        outside=_judge_joining,
        likely="a joining process can be traced before it has the job's walls",
    ),
    Check(
        id="esc.state",
        cases=(HOSTILE,),
        probe="adversarial:find_state",
        arguments=_state_arguments,
        observe=_look_at_state,
        inside=_judge_state,
        outside=judge_held,
        likely="the state directory lies in the job's root, or a descriptor of it leaks",
    ),
)
