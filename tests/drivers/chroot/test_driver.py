"""The chroot driver's operations: what each leaves behind, also when it fails or is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from driver_boxes import Boxes, Running, in_fork

import execdrv_chroot.driver
from execdrv.driver import Box
from execdrv.errors import (
    CommandNotExecutableError,
    CommandNotFoundError,
    IsolationError,
    StartError,
    UnsupportedError,
)
from execdrv.init import open_init
from execdrv.init.link import InitLink
from execdrv.limits import Limits
from execdrv.linux import syscalls
from execdrv.linux.capabilities import capability_mask
from execdrv.linux.leases import LEASE_BASE
from execdrv.linux.procfs import ProcessId, detect_process, is_running
from execdrv.linux.strays import Mark, end_strays
from execdrv_chroot import ChrootDriver, plugin


def plain_box(boxes: Boxes, *argv: str, **fields: Any) -> Box:
    return boxes.box(boxes._spec(argv or ("true",), fields))


@contextlib.contextmanager
def living_box(boxes: Boxes, *argv: str, **fields: Any) -> Iterator[Box]:
    """A box with an init's link and no output, for a process that plays the supervisor."""
    box = plain_box(boxes, *argv, **fields)
    null = os.open("/dev/null", os.O_RDWR)
    link = InitLink(open_init())
    yield attrs.evolve(box, init=link, stdio=(null, null, null))
    link.close()
    os.close(null)


def start(driver: ChrootDriver, box: Box) -> ProcessId:
    assert list(driver.check(box)) == []
    driver.create(box)
    driver.isolate(box)
    driver.limit(box, Limits())
    return driver.start(box)


def has_uid(uid: int) -> list[str]:
    """Living processes of the user, by an own look at /proc."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            text = status.read_text()
            if f"\nUid:\t{uid}\t" in text and "\nState:\tZ" not in text:
                found.append(status.parent.name)
    return found


@contextlib.contextmanager
def decoy(become: Callable[[], None]) -> Iterator[int]:
    """A process that is none of the container's; it must live to the end of the block."""
    pid = os.fork()
    if pid == 0:
        try:
            become()
            signal.pause()
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def wait_until(holds: Callable[[], object], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.002)


# --- the contract ------------------------------------------------------------------------------


def test_the_plugin_brings_the_driver_by_its_name() -> None:
    assert [driver.name for driver in plugin.execdrv_drivers()] == ["chroot"]


def test_defaults_are_a_user_of_its_own_without_rights() -> None:
    defaults = ChrootDriver.defaults
    assert (defaults.uid, defaults.gid, defaults.capabilities) == (None, None, frozenset())
    assert (defaults.root_mode, defaults.net, defaults.namespaces) == ("direct", "host", ())
    assert not ChrootDriver.uses_group


@pytest.mark.parametrize("code", [0, 1, 3, 125, 126, 127, 128, 255])
def test_exit_codes_are_exact(boxes: Boxes, code: int) -> None:
    result = boxes.sh(f"exit {code}")
    assert (result.code, result.signal) == (code, None)


@pytest.mark.parametrize("name", ["KILL", "SEGV", "ABRT", "TERM", "HUP"])
def test_a_job_can_end_by_any_signal_of_its_own(boxes: Boxes, name: str) -> None:
    result = boxes.sh(f"kill -{name} $$; echo alive")
    assert (result.code, result.signal) == (None, getattr(signal, f"SIG{name}"))
    assert result.text == ""


def test_a_command_that_can_not_run_is_a_typed_error(boxes: Boxes) -> None:
    with pytest.raises(CommandNotFoundError, match="'nosuchcmd'"):
        boxes.run("nosuchcmd")
    with pytest.raises(CommandNotFoundError, match="'/nosuch/x'"):
        boxes.run("/nosuch/x")
    with pytest.raises(CommandNotExecutableError, match="'/etc'"):
        boxes.run("/etc")


def test_the_command_is_looked_up_in_the_root_alone(boxes: Boxes) -> None:
    assert Path("/usr/bin/env").exists()
    with pytest.raises(CommandNotFoundError):
        boxes.run("/usr/bin/env")
    (boxes.rootfs / "bin/onlyin").symlink_to("busybox-copy")
    (boxes.rootfs / "bin/busybox-copy").write_text("#!/bin/sh\nexit 9\n")
    (boxes.rootfs / "bin/busybox-copy").chmod(0o755)
    assert boxes.run("onlyin").code == 9


def test_arguments_arrive_byte_for_byte(boxes: Boxes) -> None:
    words = [b"", b"\n", b"'\"", b"\xff\xfe", b"$HOME"]
    result = boxes.run(b"printf", b"[%s]", *words)
    assert result.stdout == b"".join(b"[%s]" % word for word in words)


def test_nothing_runs_before_start(boxes: Boxes) -> None:
    canary = boxes.rootfs / "tmp/canary"
    seen: list[bool] = []

    def look(box: Box) -> None:
        time.sleep(0.05)
        if canary.exists():
            raise AssertionError("the command has run")
        seen.append(True)

    assert boxes.run("touch", "/tmp/canary", before_start=look).code == 0
    assert canary.exists()


def test_a_root_that_forbids_programs_is_said_at_the_start(boxes: Boxes) -> None:
    """Mounted noexec: that is no matter for the driver, and the command's error says it."""

    def mount_noexec() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(None, b"/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
        place = os.fsencode(boxes.rootfs)
        syscalls.mount(place, place, flags=syscalls.MS_BIND)
        flags = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_NOEXEC | syscalls.MS_NOSUID
        syscalls.mount(None, place, flags=flags)

    with pytest.raises(CommandNotExecutableError):
        boxes.run("true", first=mount_noexec)


def test_limits_are_refused_and_none_is_fine(boxes: Boxes) -> None:
    box = plain_box(boxes)
    driver = ChrootDriver()
    assert list(driver.limit(box, Limits())) == []
    for limits in (Limits(memory_bytes=1 << 20), Limits(cpus=0.5), Limits(pids=4)):
        with pytest.raises(UnsupportedError, match=f"cannot limit {limits.names()[0]}") as caught:
            driver.limit(box, limits)
        assert "native" in caught.value.hint


# --- check -------------------------------------------------------------------------------------


@pytest.mark.parametrize("caps", [["SYS_CHROOT"], ["ALL"], ["CHOWN", "SYS_CHROOT"]])
def test_the_capability_to_leave_is_refused(boxes: Boxes, caps: list[str]) -> None:
    (refusal,) = boxes.check(user="0:0", cap_add=caps)
    assert "SYS_CHROOT" in refusal.message
    assert ("ALL" in refusal.message) is ("ALL" in caps)
    assert refusal.field == "cap_add"


def test_a_user_of_the_range_for_containers_own_is_refused(boxes: Boxes) -> None:
    (refusal,) = boxes.check(user=f"{LEASE_BASE + 7}:5")
    assert f"user {LEASE_BASE + 7}" in refusal.message
    assert refusal.field == "user"


def test_ids_that_are_not_mapped_are_refused_by_number(boxes: Boxes) -> None:
    def enter_user_namespace() -> None:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
            Path(f"/proc/self/{name}").write_text(text)

    refusals = boxes.check(user="5:6", first=enter_user_namespace)
    assert [refusal.field for refusal in refusals] == ["user", "group"]
    assert "user 5" in refusals[0].message and "group 6" in refusals[1].message
    assert boxes.check(user="0:0", first=enter_user_namespace) == []


def test_what_is_wrong_with_the_root_is_said_together(boxes: Boxes) -> None:
    os.mknod(boxes.rootfs / "dev/kvm", 0o20666, os.makedev(10, 232))
    boxes.rootfs.chmod(0o700)
    nodes, mode = boxes.check()
    assert "'/dev/kvm'" in nodes.message
    assert "mode 0700" in mode.message
    # Root without capabilities is who the directory belongs to.
    assert len(boxes.check(user="0:0")) == 1


def test_nodes_are_asked_for_where_they_are_required(boxes: Boxes) -> None:
    assert boxes.check() == []
    (refusal,) = boxes.check(require=["dev.usable"])
    assert "lacks zero, full" in refusal.message


def test_check_changes_nothing(boxes: Boxes) -> None:
    tree = sorted(boxes.rootfs.rglob("*"))
    before = os.listdir("/proc/self/fd")
    box = plain_box(boxes)
    list(ChrootDriver().check(box))
    os.close(box.root)
    assert dict(box.facts) == {}
    assert os.listdir("/proc/self/fd") == before
    assert sorted(boxes.rootfs.rglob("*")) == tree


def test_without_the_capabilities_the_driver_is_unavailable(boxes: Boxes) -> None:
    assert ChrootDriver().availability() is None

    def answer(uid: int) -> str | None:
        kept = syscalls.capget()[1] & ~capability_mask(["SYS_CHROOT", "SETUID"])
        syscalls.capset(kept, kept, 0)
        if uid:
            syscalls.prctl(8, 0)  # PR_SET_KEEPCAPS
        return ChrootDriver().availability()

    assert "SETUID, SYS_CHROOT" in in_fork(lambda: answer(0))

    def as_user() -> str | None:
        os.setresuid(1000, 1000, 1000)
        return ChrootDriver().availability()

    assert "needs root" in in_fork(as_user)


# --- isolate and destroy -----------------------------------------------------------------------


def test_a_root_that_can_not_be_changed_is_an_isolation_error(boxes: Boxes) -> None:
    def drop() -> None:
        kept = syscalls.capget()[1] & ~capability_mask(["SYS_CHROOT"])
        syscalls.capset(kept, kept, 0)

    with pytest.raises(IsolationError, match="Operation not permitted"):
        boxes.run("true", first=drop, check=False)


def test_an_init_that_says_nothing_is_ended(
    boxes: Boxes, uid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stay_silent(box: Box, link: InitLink) -> None:
        os.set_inheritable(link.gate_fd, True)
        os.setresuid(uid, uid, uid)
        os.execv("/bin/sleep", ["sleep", "60"])

    monkeypatch.setattr(execdrv_chroot.driver, "_become_init", stay_silent)
    monkeypatch.setattr(InitLink.wait_ready, "__kwdefaults__", {"timeout_s": 0.2})

    def isolate() -> bool:
        with living_box(boxes) as box:
            with pytest.raises(IsolationError, match="said nothing"):
                ChrootDriver().isolate(box)
            with pytest.raises(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
        return True

    assert in_fork(isolate)
    assert has_uid(uid) == []


def test_start_without_isolate_is_an_error(boxes: Boxes) -> None:
    with pytest.raises(StartError, match="was not isolated"):
        ChrootDriver().start(plain_box(boxes))


DAEMONS = (
    "(setsid sleep 1000 &); (trap '' TERM HUP INT; sleep 1000) & "
    "sh -c 'sh -c \"sleep 1000 &\" &'; exec sleep 1000"
)


def test_destroy_ends_the_whole_tree_of_a_running_job(boxes: Boxes, uid: int) -> None:
    def live() -> tuple[int, list[str]]:
        driver = ChrootDriver()
        with living_box(boxes, "/bin/sh", "-c", DAEMONS) as box:
            start(driver, box)
            wait_until(lambda: len(has_uid(uid)) >= 4)
            count = len(has_uid(uid))
            driver.destroy(box)
            left = has_uid(uid)
            driver.destroy(box)
        return count, left

    count, left = in_fork(live)
    assert count >= 4
    assert left == []


def test_a_daemon_does_not_outlive_the_job(boxes: Boxes, uid: int) -> None:
    def look(running: Running) -> int:
        wait_until(lambda: (boxes.rootfs / "tmp/ready").exists())
        return len(has_uid(uid))

    script = "(setsid sleep 1000 >/dev/null 2>&1 &); touch /tmp/ready; cat"
    result = boxes.sh(script, look=look)
    assert (result.code, result.seen) == (0, 2)
    assert has_uid(uid) == []


@pytest.mark.usefixtures("programs")
def test_destroy_ends_a_storm_of_processes(boxes: Boxes, uid: int) -> None:
    """64 that fork and exit without pause, each in a session of its own."""

    def live() -> float:
        driver = ChrootDriver()
        with living_box(boxes, "/bin/stray", "comets", "64", "8") as box:
            start(driver, box)
            time.sleep(0.3)
            began = time.monotonic()
            driver.destroy(box)
            return time.monotonic() - began

    # By itself the storm would go on for longer.
    assert in_fork(live) < 6
    assert has_uid(uid) == []


def test_orphans_are_reaped_while_the_job_runs(boxes: Boxes) -> None:
    def look(running: Running) -> int:
        wait_until(lambda: (boxes.rootfs / "tmp/ready").exists())
        time.sleep(0.3)
        zombies = 0
        for child in Path(f"/proc/{running.watched.pid}/task").glob("*/children"):
            for pid in child.read_text().split():
                zombies += "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
        return zombies

    script = "for i in $(seq 200); do (sleep 0.01 &); done; touch /tmp/ready; cat"
    assert boxes.sh(script, look=look).seen == 0


def test_the_job_ends_with_its_init(boxes: Boxes, uid: int) -> None:
    def live() -> bool:
        with living_box(boxes, "sleep", "1000") as box:
            init = start(ChrootDriver(), box)
            os.kill(init.pid, signal.SIGKILL)
            wait_until(lambda: has_uid(uid) == [], within_s=1)
            ChrootDriver().destroy(box)
        return True

    assert in_fork(live)


def test_destroy_from_the_record_ends_the_init(boxes: Boxes, uid: int) -> None:
    """In a fresh process: nothing but spec, order and facts are left of the box."""

    def live() -> bool:
        with living_box(boxes, "sleep", "1000") as box:
            init = start(ChrootDriver(), box)
            record = attrs.evolve(box, init=None, root=-1)
            fresh = os.fork()
            if fresh == 0:
                with contextlib.suppress(BaseException):
                    ChrootDriver().destroy(record)
                    ChrootDriver().destroy(record)
                    os._exit(0)
                os._exit(1)
            assert os.waitpid(fresh, 0)[1] == 0
            assert not is_running(init)
            wait_until(lambda: has_uid(uid) == [], within_s=1)
            os.waitpid(init.pid, 0)
        return True

    assert in_fork(live)


def test_destroy_of_what_was_never_isolated_is_fine(boxes: Boxes) -> None:
    box = plain_box(boxes)
    ChrootDriver().destroy(box)
    os.close(box.root)


def test_destroy_spares_a_process_that_has_the_inits_number_now(boxes: Boxes) -> None:
    with decoy(lambda: os.execv("/bin/sleep", ["sleep", "60"])) as pid:
        process = detect_process(pid)
        assert process is not None
        box = plain_box(boxes)
        box.facts["init"] = {"pid": pid, "start_time": process.start_time - 1}
        ChrootDriver().destroy(box)
        assert is_running(process)


# --- supervisor and starter killed ---------------------------------------------------------------


@attrs.define
class Family:
    """A supervisor with a running job, and the process that started it, a subreaper as it is."""

    supervisor: int
    starter: int
    facts: dict[str, Any]


def mark_of(boxes: Boxes, since: int = 0) -> Mark:
    """What the jobs' processes have in common."""
    info = boxes.rootfs.stat()
    uid: int = boxes.uid  # type: ignore[attr-defined]
    return Mark(device=info.st_dev, inode=info.st_ino, uid=uid, since=since)


@pytest.fixture
def make_family(boxes: Boxes) -> Iterator[Callable[..., Family]]:
    made: list[Family] = []

    def make(*argv: str) -> Family:
        read_end, write_end = os.pipe()
        starter = os.fork()
        if starter == 0:
            try:
                syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
                supervisor = os.fork()
                if supervisor == 0:
                    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
                    with living_box(boxes, *argv) as box:
                        start(ChrootDriver(), box)
                        init = box.facts["init"]
                        text = f"{os.getpid()} {init['pid']} {init['start_time']}"
                        os.write(write_end, text.encode())
                        signal.pause()
                signal.pause()
            finally:
                os._exit(1)
        os.close(write_end)
        supervisor, pid, start_time = map(int, os.read(read_end, 64).split())
        os.close(read_end)
        facts = {"init": {"pid": pid, "start_time": start_time}}
        family = Family(supervisor=supervisor, starter=starter, facts=facts)
        made.append(family)
        return family

    yield make
    for family in made:
        for pid in (family.starter, family.supervisor):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.waitpid(family.starter, 0)
    # Also where the test has failed.
    end_strays(mark_of(boxes), leased=True)


def test_a_job_without_supervisor_has_no_first_process(
    boxes: Boxes, uid: int, make_family: Callable[..., Family]
) -> None:
    family = make_family("sleep", "1000")
    assert len(has_uid(uid)) == 1
    os.kill(family.supervisor, signal.SIGKILL)
    wait_until(lambda: has_uid(uid) == [], within_s=1)
    assert not is_running(ProcessId(**family.facts["init"]))


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("command", [("/bin/sh", "-c", DAEMONS), ("/bin/stray", "headless", "60")])
def test_strays_are_ended_after_both_were_killed_and_a_decoy_is_not(
    boxes: Boxes, uid: int, make_family: Callable[..., Family], tmp_path: Path, command: Any
) -> None:
    def become() -> None:
        os.chroot(tmp_path)
        os.setresuid(uid, uid, uid)

    family = make_family(*command)
    if command[0] == "/bin/sh":
        wait_until(lambda: len(has_uid(uid)) >= 4)
    with decoy(become) as other:
        wait_until(lambda: str(other) in has_uid(uid))
        for pid in (family.starter, family.supervisor):
            os.kill(pid, signal.SIGKILL)
        record = attrs.evolve(plain_box(boxes, *command), facts=family.facts)
        os.close(record.root)
        in_fork(lambda: ChrootDriver().destroy(record))
        since = family.facts["init"]["start_time"]
        assert end_strays(mark_of(boxes, since=since), leased=True) == []
        assert has_uid(uid) == [str(other)]
