"""Strays are found by root and user, and ended; whoever else has one of the two is spared.

Each test makes a tiny root, users of its own (far above any real one) and processes that end by
themselves after some seconds.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from execdrv.errors import CleanupError
from execdrv.linux import procfs, strays, syscalls
from execdrv.linux.capabilities import capability_mask
from execdrv.linux.procfs import ProcessId
from execdrv.linux.strays import Mark, detect_uids, end_descendants, end_strays, find_strays

BUSYBOX = "/usr/bin/busybox"
NUMBERS = itertools.count()
SLEEP = ("/busybox", "sleep", "60")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="chroot(2) and other users need root")


class Nest:
    """Roots and processes in them; what is left of it is ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Another test, in this process or beside it, has other users.
        self.uid = 2_050_000_000 + (os.getpid() * 100 + 2 * next(NUMBERS)) % 40_000_000
        self.pids: list[int] = []

    def make_root(self, name: str) -> Path:
        root = self.path / name
        root.mkdir(mode=0o755)
        shutil.copy(BUSYBOX, root / "busybox")
        # A shell reads it for its background jobs.
        (root / "dev").mkdir(mode=0o755)
        os.mknod(root / "dev/null", 0o20666, os.makedev(1, 3))
        (root / "dev/null").chmod(0o666)
        return root

    def start(self, root: Path, uid: int, *argv: str) -> ProcessId:
        """A process in a chroot, that has executed its command when this returns."""
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(read_end)
                become(root, uid)
                os.execv((argv or SLEEP)[0], argv or SLEEP)
            finally:
                os._exit(1)
        os.close(write_end)
        os.read(read_end, 1)
        os.close(read_end)
        self.pids.append(pid)
        process = procfs.detect_process(pid)
        assert process is not None
        return process

    def start_storm(self, root: Path, uid: int) -> None:
        """64 processes that fork and exit without pause for eight seconds.

        Below a process that reaps at once, as a good pid 1 does: else their zombies would take
        every process number of the machine.
        """
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)
                if os.fork() == 0:
                    become(root, uid)
                    os.execv("/stray", ("/stray", "comets", "64", "8"))
                os.close(write_end)
                os.close(read_end)
                signal.pause()
            finally:
                os._exit(1)
        self.pids.append(pid)
        os.close(write_end)
        os.read(read_end, 1)
        os.close(read_end)

    def mark(self, root: Path, uid: int, since: int = 0) -> Mark:
        info = root.stat()
        return Mark(device=info.st_dev, inode=info.st_ino, uid=uid, since=since)

    def close(self) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def become(root: Path, uid: int) -> None:
    os.chroot(root)
    os.chdir("/")
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


@pytest.fixture
def nest(tmp_path: Path) -> Iterator[Nest]:
    if not os.path.exists(BUSYBOX):
        pytest.skip(f"no static busybox at {BUSYBOX}")
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    made = Nest(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="session")
def stray_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    target = tmp_path_factory.mktemp("stray") / "stray"
    source = Path(__file__).with_name("stray.c")
    command = ["gcc", "-O2", "-static", "-pthread", "-Wall", "-Werror", "-o"]
    subprocess.run([*command, str(target), str(source)], check=True, timeout=120)
    return target


def has_uid(uid: int) -> list[str]:
    """Living processes of the uid, by an own look at /proc."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            text = status.read_text()
            if f"\nUid:\t{uid}\t" in text and "\nState:\tZ" not in text:
                found.append(status.parent.name)
    return found


def in_subreaper(act: Callable[[], None]) -> None:
    """Run `act` in a child that is a subreaper, as supervisors are."""
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
            act()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def test_all_descendants_are_ended_however_deep(nest: Nest) -> None:
    root = nest.make_root("root")
    script = (
        "(/busybox setsid /busybox sleep 60 &); (trap '' TERM; /busybox sleep 60) & "
        "/busybox sh -c '/busybox sh -c \"/busybox sleep 60 &\" &'; exec /busybox sleep 60"
    )

    def act() -> None:
        priority = os.getpriority(os.PRIO_PROCESS, 0)
        nest.start(root, nest.uid, "/busybox", "sh", "-c", script)
        wait_until(lambda: len(has_uid(nest.uid)) >= 4)
        ended = os.fork()
        if ended == 0:
            os._exit(3)
        wait_until(lambda: "\nState:\tZ" in Path(f"/proc/{ended}/status").read_text())
        statuses: dict[int, int] = {}

        def reap() -> None:
            with contextlib.suppress(ChildProcessError):
                while (found := os.waitpid(-1, os.WNOHANG))[0]:
                    statuses[found[0]] = os.waitstatus_to_exitcode(found[1])

        assert end_descendants(timeout_s=5, reap=reap) == []
        # The status of who had ended before is not lost.
        assert statuses[ended] == 3
        assert has_uid(nest.uid) == []
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
        assert os.getpriority(os.PRIO_PROCESS, 0) == priority
        assert end_descendants(timeout_s=5) == []

    in_subreaper(act)


def test_a_storm_of_descendants_is_ended(nest: Nest, stray_program: Path) -> None:
    root = nest.make_root("root")
    shutil.copy(stray_program, root / "stray")

    def act() -> None:
        nest.start(root, nest.uid, "/stray", "comets", "64", "8")
        time.sleep(0.3)
        began = time.monotonic()
        assert end_descendants(timeout_s=5) == []
        assert time.monotonic() - began < 7
        assert has_uid(nest.uid) == []

    in_subreaper(act)


def test_a_child_that_does_not_end_in_time_is_returned(
    nest: Nest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act() -> None:
        child = nest.start(nest.make_root("root"), nest.uid)
        kill = os.kill
        monkeypatch.setattr(os, "kill", lambda pid, signum: None)
        assert end_descendants(timeout_s=0.2) == [child.pid]
        kill(child.pid, signal.SIGKILL)

    in_subreaper(act)


def test_found_is_who_has_both_root_and_user(nest: Nest) -> None:
    root, other = nest.make_root("root"), nest.make_root("other")
    stray = nest.start(root, nest.uid)
    nest.start(other, nest.uid)
    nest.start(root, nest.uid + 1)
    assert find_strays(nest.mark(root, nest.uid)) == [stray]


@pytest.mark.parametrize("leased", [False, True])
def test_ended_is_who_has_both_and_nobody_else(nest: Nest, leased: bool) -> None:
    root, other = nest.make_root("root"), nest.make_root("other")
    victims = [nest.start(root, nest.uid) for _ in range(3)]
    spared = [nest.start(other, nest.uid), nest.start(root, nest.uid + 1)]
    assert end_strays(nest.mark(root, nest.uid), leased=leased) == []
    assert not any(procfs.is_running(process) for process in victims)
    assert all(procfs.is_running(process) for process in spared)


@pytest.mark.parametrize("leased", [False, True])
def test_nothing_to_end_is_no_error(nest: Nest, leased: bool) -> None:
    root = nest.make_root("root")
    assert end_strays(nest.mark(root, nest.uid), leased=leased) == []
    assert find_strays(nest.mark(root, nest.uid)) == []


def test_a_process_older_than_the_container_is_spared(nest: Nest) -> None:
    root = nest.make_root("root")
    older = nest.start(root, nest.uid)
    mark = nest.mark(root, nest.uid, since=older.start_time + 1)
    assert find_strays(mark) == []
    assert end_strays(mark, leased=True) == []
    assert procfs.is_running(older)
    assert find_strays(nest.mark(root, nest.uid, since=older.start_time)) == [older]


@pytest.mark.parametrize("leased", [False, True])
def test_who_stands_below_a_living_init_is_spared(nest: Nest, leased: bool) -> None:
    """Two containers of two state directories may have the same root and user."""
    root = nest.make_root("root")
    init, job = start_below(nest, root, b"execdrv-init", uid=0)
    assert find_strays(nest.mark(root, nest.uid)) == []
    assert end_strays(nest.mark(root, nest.uid), leased=leased) == []
    assert procfs.is_running(job)
    os.kill(init, signal.SIGKILL)
    os.waitpid(init, 0)
    assert end_strays(nest.mark(root, nest.uid), leased=leased) == []
    assert not procfs.is_running(job)


def test_a_job_that_calls_itself_an_init_is_not_spared(nest: Nest) -> None:
    root = nest.make_root("root")
    pretender, job = start_below(nest, root, b"execdrv-init", uid=nest.uid)
    found = find_strays(nest.mark(root, nest.uid))
    assert {process.pid for process in found} == {pretender, job.pid}


def start_below(nest: Nest, root: Path, name: bytes, *, uid: int) -> tuple[int, ProcessId]:
    """A process of that name and uid in the root, and its child of the nest's uid."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            Path("/proc/self/comm").write_bytes(name)
            become(root, uid)
            child = os.fork()
            if child == 0:
                become(Path("/"), nest.uid) if uid == 0 else None
                os.execv(SLEEP[0], SLEEP)
            os.write(write_end, b"%d" % child)
            signal.pause()
        finally:
            os._exit(1)
    nest.pids.append(pid)
    job = int(os.read(read_end, 32))
    os.close(read_end)
    os.close(write_end)
    nest.pids.append(job)
    wait_until(lambda: Path(f"/proc/{job}/comm").read_bytes() in (b"sleep\n", b"busybox\n"))
    process = procfs.detect_process(job)
    assert process is not None
    return pid, process


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_process_whose_first_thread_has_ended_is_ended(nest: Nest, stray_program: Path) -> None:
    root = nest.make_root("root")
    shutil.copy(stray_program, root / "stray")
    stray = nest.start(root, nest.uid, "/stray", "headless", "30")
    wait_until(lambda: "State:\tZ" in Path(f"/proc/{stray.pid}/status").read_text())
    assert find_strays(nest.mark(root, nest.uid)) == [stray]
    assert end_strays(nest.mark(root, nest.uid)) == []
    assert find_strays(nest.mark(root, nest.uid)) == []
    assert os.waitpid(stray.pid, os.WNOHANG)[0] == stray.pid


def test_comets_of_a_leased_uid_are_all_ended(nest: Nest, stray_program: Path) -> None:
    """Processes that fork and exit without pause: no look at /proc alone can catch them."""
    root = nest.make_root("root")
    shutil.copy(stray_program, root / "stray")
    nest.start_storm(root, nest.uid)
    time.sleep(0.3)
    assert has_uid(nest.uid)
    began = time.monotonic()
    assert end_strays(nest.mark(root, nest.uid), leased=True) == []
    # By itself the storm would go on for longer than this.
    assert time.monotonic() - began < 7
    for _ in range(20):
        assert has_uid(nest.uid) == []


def test_a_stray_that_stops_who_comes_to_end_it_is_ended(nest: Nest, stray_program: Path) -> None:
    root = nest.make_root("root")
    shutil.copy(stray_program, root / "stray")
    nest.start(root, nest.uid, "/stray", "stopper", "30")
    assert end_strays(nest.mark(root, nest.uid), leased=True) == []
    assert has_uid(nest.uid) == []


def test_what_is_left_after_the_time_is_returned(
    nest: Nest, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = nest.make_root("root")
    stray = nest.start(root, nest.uid)
    monkeypatch.setattr(strays, "_kill_stray", lambda stray, mark: None)
    began = time.monotonic()
    assert end_strays(nest.mark(root, nest.uid), timeout_s=0.2) == [stray]
    assert 0.2 <= time.monotonic() - began < 3


def test_a_recycled_number_is_not_killed(nest: Nest) -> None:
    root = nest.make_root("root")
    process = nest.start(root, nest.uid)
    earlier = ProcessId(pid=process.pid, start_time=process.start_time - 1)
    strays._kill_stray(earlier, nest.mark(root, nest.uid))
    assert procfs.is_running(process)


def test_a_process_that_can_not_be_looked_at_is_named(nest: Nest) -> None:
    root = nest.make_root("root")
    stray = nest.start(root, nest.uid)
    mark = nest.mark(root, nest.uid)

    def act() -> None:
        zombie = os.fork()
        if zombie == 0:
            os.setresuid(nest.uid + 1, nest.uid + 1, nest.uid + 1)
            os._exit(0)
        wait_until(lambda: "\nState:\tZ" in Path(f"/proc/{zombie}/status").read_text())
        kept = syscalls.capget()[1] & ~capability_mask(["SYS_PTRACE"])
        syscalls.capset(kept, kept, 0)
        # A zombie can't be looked at either, and is nobody's business.
        assert find_strays(attrs.evolve(mark, uid=nest.uid + 1)) == []
        for look in (find_strays, end_strays):
            with pytest.raises(CleanupError, match=f"process {stray.pid} of uid {nest.uid}"):
                look(mark)

    in_subreaper(act)
    assert procfs.is_running(stray)


@pytest.mark.parametrize(
    ("uid", "effective"),
    [
        (0, 0),
        # -1 to setresuid(2): leave as it is.
        (2**32 - 1, 0),
        (2_049_999_999, 1),
    ],
)
def test_the_killer_of_a_uid_never_kills_with_privilege(
    uid: int, effective: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Were its uid or its capabilities still ours, it would reach every process of the machine."""
    record = os.open(tmp_path / "record", os.O_RDWR | os.O_CREAT)
    # Nothing is killed here, whatever the code does.
    monkeypatch.setattr(os, "kill", lambda pid, signum: os.write(record, b"%d;" % pid))
    if effective:
        monkeypatch.setattr(syscalls, "capget", lambda: (effective, 0, 0))
    assert not strays._kill_uid(uid)
    assert os.pread(record, 64, 0) == b""
    if effective:
        # The guard alone was in the way.
        monkeypatch.setattr(syscalls, "capget", lambda: (0, 0, 0))
        assert strays._kill_uid(uid)
        assert os.pread(record, 64, 0) == b"-1;"
    os.close(record)


def test_strays_are_ended_where_no_process_can_be_made(
    nest: Nest, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = nest.make_root("root")
    nest.start(root, nest.uid)

    def fail() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fail)
    assert end_strays(nest.mark(root, nest.uid), leased=True) == []
    assert has_uid(nest.uid) == []


def test_uids_in_use_are_seen(nest: Nest) -> None:
    nest.start(nest.make_root("root"), nest.uid)
    uids = detect_uids()
    assert {0, nest.uid} <= uids
    assert nest.uid + 1 not in uids
