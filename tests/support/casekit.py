"""What cases share as plain functions: the command line, repeats, CLEAN's snapshot."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

#: Runs of a case that repeats: all of them in `make test-long`, a part in CI.
LONG = os.environ.get("EXECDRV_CASES") == "long"
#: What `repeats` and `volume` have decided, for the end of the run.
REPEATED: list[str] = []


def repeats(count: int) -> int:
    """How often: `count`, or at CI size a twentieth of it, at least 10; told at the end."""
    chosen = count if LONG else max(10, count // 20)
    _tell(f"{chosen} of {count}")
    return chosen


def volume(size: int) -> int:
    """How many bytes: `size`, or at CI size an eighth of it; told at the end."""
    chosen = size if LONG else size // 8
    _tell(f"{chosen >> 20} MiB of {size >> 20}")
    return chosen


def _tell(chosen: str) -> None:
    case = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
    REPEATED.append(f"{case}: {chosen}")


#: An entry of this process's sys.path that is nowhere: it marks this run's fork servers.
RUN_MARK = f"/nonexistent/execdrv-cases-{os.getpid()}"

Command = Callable[..., "subprocess.CompletedProcess[bytes]"]


def command_line(driver: str, root: Path | str | bytes | None, *options: Any) -> list[Any]:
    """`execdrv run --driver=D --rootfs=R OPTIONS`, by this interpreter."""
    rootfs = [] if root is None else ["--rootfs", root]
    return [sys.executable, "-m", "execdrv", "run", f"--driver={driver}", *rootfs, *options]


def error_line(result: subprocess.CompletedProcess[bytes]) -> str:
    """The one line that the command complained in; fails if there are more, or a traceback."""
    lines = result.stderr.decode("utf-8", "surrogateescape").splitlines()
    ours = [line for line in lines if line.startswith("execdrv:")]
    assert b"Traceback" not in result.stderr, result.stderr
    assert len(ours) == 1, result.stderr
    return ours[0]


def assert_unsupported(result: subprocess.CompletedProcess[bytes], *words: str) -> None:
    """125 and one line with each of `words`: what a driver does with what it does not offer."""
    assert result.returncode == 125, result
    line = error_line(result)
    for word in words:
        assert word in line, line


def tree_hash(path: Path) -> str:
    """Names, types, modes, owners and contents of a tree."""
    digest = hashlib.sha256()
    for directory, names, files in os.walk(os.fsencode(path)):
        names.sort()
        for name in sorted([*names, *files]):
            inner = os.path.join(directory, name)
            found = os.lstat(inner)
            digest.update(repr((inner, found.st_mode, found.st_uid, found.st_gid)).encode())
            if stat.S_ISREG(found.st_mode):
                with open(inner, "rb") as file:
                    digest.update(file.read())
            elif stat.S_ISLNK(found.st_mode):
                digest.update(os.readlink(inner))
    return digest.hexdigest()


#: Groups of containers (execdrv.state.kernel_name), and those that liblxc makes by itself.
_GROUP_NAME = re.compile(r"execdrv-[0-9a-f]{16}|lxc\.")


def _empty_groups() -> list[str]:
    """Groups of execdrv or LXC without a process: what has some is another's, or shows as one."""
    found = []
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        for name in names:
            path = os.path.join(directory, name)
            if _GROUP_NAME.match(name) and not _has_process(path):
                found.append(path)
    return sorted(found)


def _has_process(group: str) -> bool:
    for directory, _, _ in os.walk(group):
        try:
            if Path(directory, "cgroup.procs").read_text():
                return True
        except OSError:
            continue
    return False


def _own_processes(state: Path) -> list[str]:
    """Children of this process, what names the case or this run, and inits that nobody owns."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            comm = Path(f"/proc/{name}/comm").read_text().strip()
            words = Path(f"/proc/{name}/cmdline").read_bytes()
            fields = Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        dead, parent = fields[0] == "Z", int(fields[1])
        # A supervisor has the command's words, a fork server this process's sys.path.
        named = os.fsencode(state.parent) + b"/" in words or RUN_MARK.encode() in words
        # An init below a living supervisor may be another's; its container's state would show.
        # The dead ones of process 1 wait for the machine's own init, which takes its time.
        orphan = comm == "execdrv-init" and parent in (0, 1) and not dead
        if parent == os.getpid() or named or orphan:
            found.append(f"{name} {comm}")
    return sorted(found)


def _leftover_state(state: Path) -> list[str]:
    found = [*state.glob("containers/*"), *Path("/run/execdrv/leases").glob("*")]
    locks = Path("/run/lxc/lock")
    return sorted([*map(str, found), *map(str, locks.rglob("*execdrv*") if locks.exists() else [])])


def snapshot(state: Path) -> dict[str, set[str]]:
    """All that a case must leave as it found it, as sets of lines."""
    null = os.stat("/dev/null")
    umask = os.umask(0o022)
    os.umask(umask)
    handlers = [signal.getsignal(number) for number in (2, 13, 15, 17)]
    named = Path("/run/netns")
    return {
        "mounts": set(Path("/proc/self/mountinfo").read_text().splitlines()),
        "groups": set(_empty_groups()),
        "interfaces": set(os.listdir("/sys/class/net")),
        "network namespaces": set(os.listdir(named)) if named.is_dir() else set(),
        "state": set(_leftover_state(state)),
        "processes": set(_own_processes(state)),
        "/dev/null": {repr((null.st_mode, null.st_uid, null.st_gid, null.st_rdev))},
        "this process": {os.getcwd(), f"{umask:o}", os.uname().nodename, repr(handlers)},
        "descriptors": {str(len(os.listdir("/proc/self/fd")))},
    }


#: Kinds of which nothing may go away either. What was there of the others may be somebody else's.
_LASTING = ("mounts", "/dev/null", "this process", "descriptors")


def find_leftovers(before: dict[str, set[str]], state: Path, *, timeout_s: float) -> list[str]:
    """What differs from `before`, and still does after `timeout_s`.

    Only differences seen at once count: others use the machine too, and what they make meanwhile
    comes and goes.
    """
    deadline = time.monotonic() + timeout_s
    left: set[tuple[str, str]] | None = None
    while True:
        now = snapshot(state)
        differing = {(kind, line) for kind, lines in now.items() for line in lines - before[kind]}
        differing |= {
            (kind, f"gone: {line}") for kind in _LASTING for line in before[kind] - now[kind]
        }
        left = differing if left is None else left & differing
        if not left or time.monotonic() > deadline:
            return sorted(f"{kind}: {line}" for kind, line in left)
        time.sleep(0.02)


def wait_until(condition: Callable[[], object], *, timeout_s: float = 5.0) -> None:
    """Poll a condition; fails after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def processes_with(token: str) -> list[int]:
    """Processes whose command line holds a token (the case's own, made unique)."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                words: Sequence[bytes] = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if any(token.encode() in word for word in words):
                found.append(int(name))
    return found
