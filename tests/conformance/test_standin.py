"""The stand-in host: what is inside stays inside, and nothing is left of it outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from execdrv_conformance.observe import group, mount, process
from execdrv_conformance.standin.guard import MEMORY_BYTES, make_guard
from execdrv_conformance.standin.handle import StandIn, StandInError
from execdrv_conformance.standin.key import list_keys, remove_keys

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def _groups(name: str) -> list[str]:
    found = []
    for controller in group.list_hierarchies():
        own = group.directory_of(os.getpid(), controller)
        if own is not None and os.path.isdir(os.path.join(own, name)):
            found.append(os.path.join(own, name))
    return found


def _make(kit_root: str, tmp_path: Path) -> StandIn:
    return StandIn(f"xdc-t-{os.getpid()}", directory=tmp_path, root=kit_root)


def test_the_machine_is_as_before(kit_root: str, tmp_path: Path) -> None:
    before = (
        mount.read_mounts(),
        os.uname().nodename,
        Path("/proc/net/dev").read_text().count("\n"),
        Path("/proc/sysvipc/shm").read_text(),
        list_keys("xdc-t-"),
        sorted(os.listdir("/dev/shm")),
    )
    standin = _make(kit_root, tmp_path)
    standin.start()
    inside = standin.ask({"ask": "machine"}, timeout_s=30)
    assert inside["facts"]["root"]
    assert _groups(standin.name), "the guard groups are there while it runs"
    standin.close()
    assert standin.problems == []
    assert _groups(standin.name) == []
    assert os.listdir(tmp_path) == []
    after = (
        mount.read_mounts(),
        os.uname().nodename,
        Path("/proc/net/dev").read_text().count("\n"),
        Path("/proc/sysvipc/shm").read_text(),
        list_keys("xdc-t-"),
        sorted(os.listdir("/dev/shm")),
    )
    assert after == before


def test_everything_inside_ends_with_the_front_end(kit_root: str, tmp_path: Path) -> None:
    """kill -9 of the process that started it: no process is left; the groups are for `sweep`."""
    name = f"xdc-k-{os.getpid()}"
    program = f"""
import sys, time
from pathlib import Path
from execdrv_conformance.standin.handle import StandIn
standin = StandIn({name!r}, directory=Path({str(tmp_path)!r}), root={kit_root!r})
standin.start()
print("up", flush=True)
time.sleep(60)
"""
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    groups = _groups(name)
    inside = {pid for one in groups for pid in group.list_members(one)}
    assert len(inside) >= 4, "the program, its pid 1, the worker and two canaries"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert process.wait_ended(sorted(inside), timeout_s=10.0) == []
    for one in groups:
        os.rmdir(one)
    # It belongs to the machine's root, and no process holds it.
    assert list_keys(f"{name}-")
    assert remove_keys(f"{name}-") == []


def test_a_request_that_takes_too_long_ends_it(kit_root: str, tmp_path: Path) -> None:
    standin = _make(kit_root, tmp_path)
    standin.start()
    with pytest.raises(StandInError, match="no answer in"):
        standin.ask({"ask": "machine"}, timeout_s=0.0001)
    begun = time.monotonic()
    with pytest.raises(StandInError, match="has ended"):
        standin.ask({"ask": "machine"}, timeout_s=5)
    assert time.monotonic() - begun < 1
    assert standin.problems == []
    assert os.listdir(tmp_path) == []


def test_guard_groups_bound_the_whole_session() -> None:
    name = f"xdc-g-{os.getpid()}"
    guard = make_guard(name)
    try:
        limits = [
            int(Path(one, "memory.limit_in_bytes").read_text())
            for one in guard.directories
            if Path(one, "memory.limit_in_bytes").exists()
        ] + [
            int(Path(one, "memory.max").read_text())
            for one in guard.directories
            if Path(one, "memory.max").exists()
        ]
        assert limits == [MEMORY_BYTES] or guard.problems
        child = subprocess.Popen(["sleep", "60"])
        for directory in guard.directories:
            Path(directory, "cgroup.procs").write_text(str(child.pid))
        assert guard.remove() == []
        assert child.wait(5) == -9
    finally:
        guard.remove()
