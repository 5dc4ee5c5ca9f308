"""Attacks on whoever ends a job and cleans up, and on the supervisor while it runs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import struct
import time
from pathlib import Path
from typing import Any

from execdrv.container import Container
from execdrv.errors import ExecdrvError
from execdrv.spec import Bind
from execdrv_conformance.bench import Bench
from execdrv_conformance.check import Case, Check
from execdrv_conformance.finding import Arm, Finding, expect, holds, unfinished, violated
from execdrv_conformance.observe import group, process
from execdrv_conformance.observe.snapshot import wait_for_rest

WRECK = Case(name="hostile-wreck")
#: Memory and latency are measured: alone.
FLOOD = Case(name="hostile-flood", exclusive=True)

# --- teardown ----------------------------------------------------------------------------------

#: What any job can build, and what only one with the capabilities for it can.
PLAIN_TRICKS = ("deep", "closed", "names", "nodes", "links", "processes")
MORE_TRICKS = (
    *("immutable", "busy-mount", "hidden-mount", "own-mount", "groups", "hidden-groups"),
)
CAPABILITIES = ("SYS_ADMIN", "LINUX_IMMUTABLE")
#: Seconds that the end of one container may take.
DESTROY_S = 3.0


def _wreck(bench: Bench) -> tuple[None, dict[str, Any]]:
    """A container each for root, a user, and a root with capabilities that leaves more behind."""
    outside = bench.directory("outside")
    (outside / "below").mkdir()
    (outside / "below/precious").write_text("precious")
    root = bench.fresh_root()
    root.chmod(0o777)
    (root / "vol").mkdir()
    (root / "tmp").chmod(0o1777)
    facts: dict[str, Any] = {"built": {}, "refused": {}, "left": {}, "took_s": {}, "errors": {}}
    kept = _contents(outside)
    # What the first container of a state directory makes for good is no leftover.
    bench.run(["/bin/sh", "-c", "exit 0"])
    try:
        for title, fields in _wreckers(bench):
            _wreck_one(bench, title, {**fields, "rootfs": root}, outside, facts)
    finally:
        _remove_groups()
        _remove_wreck(root)
    facts["kept"] = _contents(outside) == kept
    return None, facts


def _wreckers(bench: Bench) -> list[tuple[str, dict[str, Any]]]:
    """Who builds: last the one whose spec the declaration is read for."""
    capable = {"user": "0", "cap_add": CAPABILITIES}
    conditions = bench.declaration.conditions(capable, bench.machine)
    found: list[tuple[str, dict[str, Any]]] = []
    if bench.declaration.is_offered("esc.teardown", conditions):
        found.append(("capable", capable))
    return [*found, ("user 1000", {"user": "1000:1000"}), ("root", {"user": "0"})]


def _wreck_one(
    bench: Bench, title: str, fields: dict[str, Any], outside: Path, facts: dict[str, Any]
) -> None:
    tricks = [*PLAIN_TRICKS, *MORE_TRICKS]
    binds = [Bind(source=os.fsencode(outside), target=b"/vol")]
    before = bench.snapshot()
    begun = 0.0
    try:
        with bench.agent(binds=binds, **fields) as look:
            # In a place of the root's, and in a file system in memory where there is one.
            for place in ("/wreck", "/tmp/wreck"):
                arguments = {
                    "place": f"{place}-{title.replace(' ', '-')}",
                    "outside": str(outside),
                    "tricks": tricks,
                }
                said = look.agent.call("sabotage:build_wreck", arguments)
                facts["built"].setdefault(title, []).extend(said["built"])
                facts["refused"].setdefault(title, {}).update(said["refused"])
            begun = time.monotonic()
    except ExecdrvError as error:
        if not begun:
            raise
        facts["errors"][title] = f"{type(error).__name__}: {error}"
    facts["took_s"][title] = round(time.monotonic() - begun, 3)
    facts["left"][title] = wait_for_rest(before, bench.snapshot)


def _contents(top: Path) -> list[str]:
    return sorted(
        f"{path.relative_to(top)} {path.lstat().st_mode} "
        f"{path.read_text() if path.is_file() else ''}"
        for path in top.rglob("*")
    )


def _remove_groups() -> None:
    """What a job has made beside its own group lies in the groups of this process."""
    for controller in group.list_hierarchies():
        own = group.directory_of(os.getpid(), controller)
        for directory in reversed(group.list_groups(own) if own is not None else []):
            if "/nested-" in directory:
                with contextlib.suppress(OSError):
                    os.rmdir(directory)


def _remove_wreck(root: Path) -> None:
    """Without a layer the wreck is the caller's: modes and flags first, then bottom up by fd."""
    shutil.rmtree(root, onerror=lambda function, path, _: _force(function, path))
    for _ in range(8):
        if not root.exists():
            return
        _open_all(os.open(root, os.O_RDONLY | os.O_DIRECTORY))
        shutil.rmtree(root, ignore_errors=True)


def _force(_: Any, path: str) -> None:
    with contextlib.suppress(OSError):
        _clear_flags(path)


def _open_all(top: int) -> None:
    """Make every directory below a descriptor removable; closes it."""
    waiting = [top]
    while waiting:
        fd = waiting.pop()
        _clear_flags_of(fd)
        for name in os.listdir(fd):
            with contextlib.suppress(OSError):
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    os.chmod(name, 0o700, dir_fd=fd)
                    waiting.append(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd))
                elif stat.S_ISREG(found.st_mode):
                    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd)
                    _clear_flags_of(file)
                    os.close(file)
        os.close(fd)


def _clear_flags(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    _clear_flags_of(fd)
    os.close(fd)


def _clear_flags_of(fd: int) -> None:
    with contextlib.suppress(OSError):
        # FS_IOC_SETFLAGS (ioctl_iflags(2)).
        fcntl.ioctl(fd, 0x40086602, struct.pack("l", 0))


def _judge_wreck(arm: Arm) -> Finding:
    built, left = arm.outside.table("built"), arm.outside.table("left")
    missing = {title: sorted({*PLAIN_TRICKS} - {*done}) for title, done in built.items()}
    if not built or any(missing.values()):
        return unfinished(f"not all was built: {missing}, {arm.outside.table('refused')}")
    left = {title: rest for title, rest in left.items() if rest}
    slow = [title for title, took in arm.outside.table("took_s").items() if took > DESTROY_S]
    if left or slow or arm.outside.table("errors") or not arm.outside.flag("kept"):
        return violated(
            f"left {str(left)[:300]}; errors {arm.outside.table('errors')}; slow {slow}; "
            f"canary tree kept: {arm.outside.flag('kept')}"
        )
    more = sorted({name for done in built.values() for name in done} - {*PLAIN_TRICKS})
    return holds(f"nothing left of {len(built)} wrecks ({', '.join(more) or 'plain ones'} too)")


# --- floods ------------------------------------------------------------------------------------

FLOOD_BYTES = 64 << 20
SIGNALS = 2000
ORPHANS = 300
#: Bytes that any process of execdrv may grow by, and seconds for its answer to a request.
GROWTH_BYTES = 24 << 20
ANSWER_S = 1.0
#: The longest single argument is 128 KiB (execve(2)); all together a quarter of the stack.
ARGUMENTS, ARGUMENT_BYTES = 12, 120_000
_SPILL = (
    "import os,sys,time\n"
    "d=b'x'*(1<<20)\n"
    "for i in range(int(sys.argv[1])>>20):\n"
    " for n in (1,2): os.write(n,d[:len(d)//2])\n"
    "time.sleep(30)\n"
)
_COUNT = "import sys;print(len(sys.argv), sum(map(len, sys.argv)))"


def _flood(bench: Bench) -> tuple[None, dict[str, Any]]:
    facts: dict[str, Any] = {}
    facts["output"] = _flood_output(bench)
    facts["signals"] = _flood_signals(bench)
    facts["arguments"] = _flood_arguments(bench)
    return None, facts


class _Scale:
    """Weighs the processes between a job and this one, and times their answers."""

    def __init__(self, container: Container, pid: int) -> None:
        self._container = container
        self.pids = _supervisors(pid)
        self._before = {pid: _peak(pid) for pid in self.pids}
        self.answers_s: list[float] = []

    def ask(self) -> None:
        """One request: a signal that does nothing."""
        begun = time.monotonic()
        self._container.signal(_SIGURG)
        self.answers_s.append(round(time.monotonic() - begun, 4))

    def facts(self) -> dict[str, Any]:
        """Growth of the heaviest, and the slowest answer."""
        growth = [_peak(pid) - before for pid, before in self._before.items()]
        return {
            "weighed": len(growth),
            "growth": max(growth, default=0),
            "slowest_s": max(self.answers_s, default=0.0),
            "asked": len(self.answers_s),
        }


_SIGURG = 23


def _supervisors(pid: int) -> list[int]:
    """Ancestors of a job, up to this process or the first of the stand-in host."""
    found = []
    while (pid := process.parent_of(pid)) > 1 and pid != os.getpid():
        found.append(pid)
    return found


def _peak(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    return int(process.read_status(pid)["VmHWM"].split()[0]) * 1024


def _written(pid: int) -> int:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def _flood_output(bench: Bench) -> dict[str, Any]:
    """More output than anybody wants to keep."""
    word = bench.nonce()
    argv = [*bench.python(_SPILL, str(FLOOD_BYTES)), word]
    with bench.start(argv, capture=4096) as container:
        pid = _find(word)
        scale = _Scale(container, pid)
        deadline = time.monotonic() + 10
        while (written := _written(pid)) < FLOOD_BYTES and time.monotonic() < deadline:
            scale.ask()
        return {"written": written, **scale.facts()}


def _find(word: str) -> int:
    """The job that carries a word: the youngest of those that do."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for pid in reversed(process.find_marked(word)):
            with contextlib.suppress(OSError):
                if process.read_words(pid)[-1:] == [word.encode()]:
                    return pid
        time.sleep(0.005)
    raise TimeoutError("the job did not start")


def _flood_signals(bench: Bench) -> dict[str, Any]:
    """Signals and dead orphans from inside, signals to the job from outside."""
    with bench.agent(user="0") as look:
        if look.container is None:
            return {}
        look.agent.begin("sabotage:storm", {"signals": SIGNALS, "children": ORPHANS})
        look.agent.next_fact()
        scale = _Scale(look.container, look.pid)
        for _ in range(100):
            scale.ask()
        said = look.agent.finish(seen=1)
        scale.ask()
        return {**said, **scale.facts()}


def _flood_arguments(bench: Bench) -> dict[str, Any]:
    """A command line near the limit arrives whole; one beyond it is refused; others run on."""
    argv = bench.python(_COUNT, *["a" * ARGUMENT_BYTES] * ARGUMENTS)
    begun = time.monotonic()
    exit = bench.run(argv, capture=4096)
    facts: dict[str, Any] = {"said": exit.stdout.decode(errors="replace").strip(), "error": ""}
    try:
        bench.run(bench.python(_COUNT, *["a" * ARGUMENT_BYTES] * 40), capture=4096)
    except ExecdrvError as error:
        facts["error"] = type(error).__name__
    facts["after"] = bench.run(["/bin/sh", "-c", "exit 7"]).code
    facts["took_s"] = round(time.monotonic() - begun, 3)
    return facts


def _judge_flood(arm: Arm) -> Finding:
    output, signals = arm.outside.table("output"), arm.outside.table("signals")
    arguments = arm.outside.table("arguments")
    if output["written"] < FLOOD_BYTES or signals["sent"] + signals["refused"] < SIGNALS:
        return unfinished(f"the flood did not happen: {output}, {signals}")
    wanted = f"{ARGUMENTS + 1} {ARGUMENTS * ARGUMENT_BYTES + 2}"
    bounded = all(
        one["growth"] <= GROWTH_BYTES and one["slowest_s"] <= ANSWER_S and one["weighed"] > 0
        for one in (output, signals)
    )
    whole = arguments["said"] == wanted and bool(arguments["error"]) and arguments["after"] == 7
    saw = (
        f"{output['written'] >> 20} MiB of output: {output['growth'] >> 10} KiB more, answers in "
        f"{output['slowest_s']} s; {signals['sent']} signals: {signals['growth'] >> 10} KiB more, "
        f"{signals['slowest_s']} s; arguments: {arguments}"
    )
    return expect(bounded and whole, saw)


CHECKS = (
    Check(
        id="esc.teardown",
        cases=(WRECK,),
        scenario=_wreck,
        inside=None,
        outside=_judge_wreck,
        likely="the clean-up walks what the job has made, or ends before all of it has ended",
    ),
    Check(
        id="esc.flood",
        cases=(FLOOD,),
        scenario=_flood,
        inside=None,
        outside=_judge_flood,
        likely="output is kept whole, or read by the one thread that answers",
    ),
)
