"""kill -9 of the command, of the supervisor and of both, at random moments of a container's life.

Within a second no process of the job may be left, and after `execdrv gc` nothing at all (CLEAN).
The one declared exception: chroot with both killed at once, whose strays `gc` ends.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from casekit import command_line, processes_with, repeats, wait_until

from execdrv import Host

pytestmark = pytest.mark.alone


def children(pid: int) -> list[int]:
    try:
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def job_of(token: str) -> list[int]:
    """Processes of the job: the command's own words hold the token too, after `run`."""
    found = []
    for pid in processes_with(token):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"run" not in words:
            found.append(pid)
    return found


def gc(state: Path) -> None:
    argv = [sys.executable, "-m", "execdrv", "gc", "--root", str(state)]
    result = subprocess.run(argv, capture_output=True, timeout=30, check=False)
    assert result.returncode == 0, result


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def longest_life_s(driver: str, R: Path) -> float:
    """How long a run takes that ends by itself: the span from which moments are drawn."""
    started = time.monotonic()
    argv = command_line(driver, R, "--", "true")
    assert subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=30, check=False).returncode == 0
    return time.monotonic() - started


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("victim", ["command", "supervisor", "both"])
def test_nothing_survives_kill_9(driver: str, R: Path, state: Path, victim: str) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    span_s = longest_life_s(driver, R) * 1.3
    for number in range(repeats(50)):
        token = f"6{uuid.uuid4().int % 10**7:07}"
        job = f"(setsid sleep {token} >/dev/null 2>&1 &); sleep {token} & sleep {token}"
        argv = command_line(driver, R, "--", "sh", "-c", job)
        streams = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(argv, **streams) as command:  # type: ignore[call-overload]
            moment_s = chance.uniform(0, span_s)
            time.sleep(moment_s)
            where = f"seed {seed}, run {number}, after {moment_s:.3f} s"
            victims = children(command.pid)[:1] if victim != "command" else []
            if victim != "supervisor":
                victims.append(command.pid)
            for pid in victims:
                kill(pid)
            if not victims:  # there was no supervisor yet, or no more
                command.terminate()
            killed = time.monotonic()
            command.wait(timeout=10)
            if victim == "both" and driver == "chroot":
                gc(state)
            wait_until(lambda: not job_of(token), timeout_s=10)  # noqa: B023
            took_s = time.monotonic() - killed
            assert took_s < 1 or (victim, driver) == ("both", "chroot"), where
    gc(state)
    with Host(root=str(state)) as host:
        assert host.containers() == []


@pytest.mark.timeout(600)
def test_many_runs_leave_one_process_as_it_was(host: Host, R: Path, driver: str) -> None:
    """Descriptors, threads, children, groups and mounts after all runs are as after the first."""

    def measure() -> tuple[int, int, int, str]:
        return (
            len(os.listdir("/proc/self/fd")),
            len(os.listdir("/proc/self/task")),
            len(children(os.getpid())),
            Path("/proc/self/mountinfo").read_text(),
        )

    def server_descriptors() -> int:
        launcher = host._launcher  # the fork server has no public name
        pid = _peer_pid(launcher._server.socket)
        return len(os.listdir(f"/proc/{pid}/fd"))

    runs = repeats(300)
    for _ in range(10):
        assert host.run(driver, ["true"], rootfs=R).code == 0
    before, server_before = measure(), server_descriptors()
    for _ in range(runs):
        assert host.run(driver, ["true"], rootfs=R).code == 0
    assert measure() == before
    assert server_descriptors() == server_before


def _peer_pid(sock: socket.socket) -> int:
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("iII", credentials)[0])
