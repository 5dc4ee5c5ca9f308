"""Attacks by what a job may find open or running: descriptors, working directories, programs.

Scenarios of several containers each, as root and as user 1000; their case and its root are those of
`adversarial_setup` too.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from execdrv.errors import ExecdrvError
from execdrv_conformance.agent import AgentError
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check
from execdrv_conformance.checks.adversarial_knob import differing
from execdrv_conformance.finding import Arm, Finding, expect, holds, violated
from execdrv_conformance.observe import descriptor, process

SETUP = Case(name="hostile-setup", budget_s=120.0)
USERS = ("0", "1000:1000")

Two = tuple[dict[str, Any], dict[str, Any]]


def spoilt_root(bench: Bench) -> Path:
    """The one root that these scenarios put things into: a copy takes longer than a container."""
    return bench.fresh_root()


# --- descriptors and working directories -------------------------------------------------------

#: Numbers that a driver's own descriptors are likely to have.
LIKELY_FDS = range(3, 11)
MOST_FDS = 4096


def _climb(bench: Bench) -> Two:
    """Out by what is open, and by working directories that name a descriptor."""
    files = bench.canaries.files.facts()
    marker = bench.nonce()
    canary = {
        "directory": files["directory"],
        "secret": [files["device"], files["inode"]],
        "marker": marker,
    }
    root = bench.share(spoilt_root)
    forms = _forms(bench, root)
    reached: list[str] = []
    opened: dict[str, list[int]] = {}
    started = 0
    held: list[str] = []
    for user in USERS:
        with bench.agent(user=user, rootfs=root) as look:
            facts = look.agent.call(
                "adversarial_reach:climb_descriptors", {"canary": canary, "most": MOST_FDS}
            )
            reached += [f"user {user}: {one}" for one in facts["reached"]]
            opened[user] = facts["opened"]
            held += _directories(look, files["directory"])
    for number, form in enumerate(forms):
        user = USERS[number % 2]
        with (
            contextlib.suppress(AgentError, ExecdrvError),
            bench.agent(user=user, rootfs=root, workdir=form) as look,
        ):
            started += 1
            facts = look.agent.call("adversarial_reach:climb_here", {"canary": canary})
            reached += [f"workdir {form}: {one}" for one in facts["reached"]]
    mark = Path(files["directory"], marker)
    marked = mark.exists()
    mark.unlink(missing_ok=True)
    inside = {"reached": reached, "opened": opened, "asked": len(forms), "started": started}
    content = bench.canaries.files.look()["content"]
    return inside, {"marked": marked, "held": held, "intact": content == files["word"]}


def _forms(bench: Bench, root: Path) -> list[str]:
    """Working directories that name a descriptor, by /proc or by a link in the root."""
    numbers = sorted({*LIKELY_FDS, bench.canaries.descriptor})
    forms = [f"/proc/self/fd/{number}" for number in numbers]
    for whose in ("1", "thread-self"):
        forms += [f"/proc/{whose}/fd/{number}" for number in bench.rng.sample(numbers, 2)]
    for number in bench.rng.sample(numbers, 3):
        (root / f"to-{number}").symlink_to(f"/proc/self/fd/{number}")
        forms.append(f"/to-{number}")
    return forms


def _directories(look: Look, directory: str) -> list[str]:
    """Descriptors of the job that are the canary's directory."""
    found = os.stat(directory)
    place = [found.st_dev, found.st_ino]
    return [
        f"{one['fd']}: {one['link']}"
        for one in descriptor.list_tree_descriptors(look.pid)
        if one["place"] == place
    ]


def _judge_climb(arm: Arm) -> Finding:
    reached, opened = arm.inside.listed("reached"), arm.inside.table("opened")
    if reached:
        return violated(f"{reached[0]} ({len(reached)} ways)")
    started, asked = arm.inside.number("started"), arm.inside.number("asked")
    return holds(f"open: {opened}; of {asked} working directories {started} were accepted")


def _judge_marker(arm: Arm) -> Finding:
    held, marked = arm.outside.listed("held"), arm.outside.flag("marked")
    saw = f"of the canary's directory the job holds {held or 'nothing'}; a mark in it: {marked}"
    return expect(not held and not marked and arm.outside.flag("intact"), saw)


# --- programs ----------------------------------------------------------------------------------

#: Read by Python: whoever executes it by its own program runs this.
_SCRIPT = """#!/proc/self/exe
import os
print({word!r})
fd = os.open("/proc/self/exe", os.O_RDONLY)
"""
_F_GET_SEALS, _F_SEAL_WRITE = 1034, 8


def _overwrite(bench: Bench) -> Two:
    """Programs of the machine by /proc/PID/exe, before and after they have ended."""
    place = bench.directory("program")
    copy = place / "runtime"
    shutil.copyfile("/bin/sleep", copy)
    copy.chmod(0o777)
    before = _hash_programs(bench)
    seen, writable, held = 0, [], []
    for user in USERS:
        pid = _start_program(copy, int(user.partition(":")[0]))
        try:
            with bench.agent(user=user) as look:
                programs = _programs(look, copy)
                facts = look.agent.call("adversarial_reach:hold_programs", {"programs": programs})
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                pid = 0
                more = look.agent.call("adversarial_reach:reopen_programs", {"held": facts["held"]})
                seen += facts["seen"]
                writable += [*facts["writable"], *(f"again {fd}" for fd in more["reopened"])]
                held += [
                    f"{one['fd']}: {one['link']}"
                    for one in descriptor.list_tree_descriptors(look.pid)
                    if one["place"] in programs
                ]
        finally:
            if pid:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    inside = {"seen": seen, "writable": writable, "ran": _run_scripts(bench)}
    return inside, {"held": held, "changed": differing(before, _hash_programs(bench))}


def _start_program(path: Path, uid: int) -> int:
    """A process of the machine that runs from a file anybody may write."""
    ready, said = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.execve(path, ["runtime", "60"], {})
        finally:
            os._exit(127)
    os.close(said)
    with open(ready, "rb") as file:
        # End of file: exec has closed the other end.
        file.read()
    return pid


def _programs(look: Look, copy: Path) -> list[list[int]]:
    """Device and inode of every program of the machine that a process runs from.

    The job's own are its root's. A sealed copy in memory can't be written by anybody.
    """
    at = copy.stat()
    found = [[at.st_dev, at.st_ino]]
    own = set(process.list_tree(look.pid))
    # The control reaches all; while it held one of the machine's for writing, nobody could run it.
    for pid in [] if look.bench.is_control else process.list_pids():
        if pid in own:
            continue
        with contextlib.suppress(OSError):
            at = os.stat(f"/proc/{pid}/exe")
            if not _is_sealed(pid):
                found.append([at.st_dev, at.st_ino])
    return sorted(found)


def _is_sealed(pid: int) -> bool:
    if not os.readlink(f"/proc/{pid}/exe").startswith("/memfd:"):
        return False
    with open(f"/proc/{pid}/exe", "rb") as file:
        return bool(fcntl.fcntl(file, _F_GET_SEALS) & _F_SEAL_WRITE)


def _hash_programs(bench: Bench) -> dict[str, str]:
    """The interpreter, execdrv, and the driver under test."""
    import execdrv

    paths = [os.path.realpath(sys.executable), *map(str, Path(execdrv.__path__[0]).rglob("*.*"))]
    spec = importlib.util.find_spec(bench.declaration.origin.get("module", "execdrv"))
    if spec is not None and spec.origin:
        paths += map(str, Path(spec.origin).parent.glob("*.py"))
    return {
        path: hashlib.sha256(Path(path).read_bytes()).hexdigest()
        for path in paths
        if os.path.isfile(path)
    }


def _run_scripts(bench: Bench) -> list[str]:
    """Users for whom a script was run whose interpreter is the program that executes it."""
    if bench.is_control:
        return []
    root, word = bench.share(spoilt_root), bench.nonce()
    (root / "script").write_text(_SCRIPT.format(word=word))
    (root / "script").chmod(0o755)
    ran = []
    for user in USERS:
        with contextlib.suppress(ExecdrvError):
            exit = bench.run(["/script"], rootfs=root, user=user, capture=4096)
            if word.encode() in exit.stdout:
                ran.append(user)
    return ran


def _judge_programs(arm: Arm) -> Finding:
    writable, ran = arm.inside.listed("writable"), arm.inside.listed("ran")
    if writable or ran:
        return violated(
            f"opens for writing: {writable[:3]}; a script by its interpreter ran: {ran}"
        )
    return holds(f"{arm.inside.number('seen')} links looked at, none to a program of the machine")


def _judge_written(arm: Arm) -> Finding:
    held, changed = arm.outside.listed("held"), arm.outside.listed("changed")
    saw = f"of the machine's programs the job has {held[:2] or 'none'} open; changed: {changed}"
    return expect(not held and not changed, saw)


CHECKS = (
    Check(
        id="esc.fd-cwd",
        cases=(SETUP,),
        scenario=_climb,
        inside=_judge_climb,
        outside=_judge_marker,
        likely="a descriptor is inherited, or the working directory is entered while one is open",
    ),
    Check(
        id="esc.self-exe",
        cases=(SETUP,),
        scenario=_overwrite,
        inside=_judge_programs,
        outside=_judge_written,
        likely="a process in the job's view runs from a file of the machine",
    ),
)
