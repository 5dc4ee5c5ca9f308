"""The native driver's operations: what each leaves behind, also when it fails."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import driver_boxes
import pytest
from driver_boxes import Boxes, Running, enter_stand_in, in_fork

import execdrv_native.driver
from execdrv.driver import Box
from execdrv.errors import CommandNotFoundError, IsolationError, StartError, UnsupportedError
from execdrv.init import open_init
from execdrv.init.link import InitLink
from execdrv.linux import cgroups, obstacle, syscalls
from execdrv.linux.procfs import detect_process, is_running, list_children
from execdrv.spec import ContainerSpec
from execdrv_native import NativeDriver, plugin


def plain_box(boxes: Boxes, **fields: Any) -> Box:
    return boxes.box(ContainerSpec(argv=["true"], rootfs=str(boxes.rootfs), **fields))


# --- the contract ------------------------------------------------------------------------------


def test_the_plugin_brings_the_driver_by_its_name() -> None:
    assert [driver.name for driver in plugin.execdrv_drivers()] == ["native"]


def test_the_offers_are_whole_and_allowed_for_a_driver_of_this_project() -> None:
    assert NativeDriver.offers.problems() == ()
    assert NativeDriver.offers.problems_for_builtin() == ()


def test_what_is_not_built_yet_is_declared_absent() -> None:
    for id in ("sec.on", "tty.alloc", "user.map", "time.ns", "pause.tree", "life.exec-join"):
        status = NativeDriver.offers.status(id)
        assert status is not None and status.kind == "absent", id


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 3", 3), ("exit 255", 255)])
def test_exit_codes_are_exact(boxes: Boxes, script: str, code: int) -> None:
    result = boxes.sh(script)
    assert (result.code, result.signal) == (code, None)


def test_death_by_a_signal_is_told_from_an_exit(boxes: Boxes) -> None:
    result = boxes.sh("kill -9 $$")
    assert (result.code, result.signal) == (None, 9)


def test_a_missing_command_is_a_typed_error_and_nothing_runs(boxes: Boxes) -> None:
    with pytest.raises(CommandNotFoundError, match="'/nosuch'"):
        boxes.run("/nosuch")


def test_start_returns_the_init_whose_end_is_the_containers_end(boxes: Boxes) -> None:
    def look(running: Running) -> Any:
        comm = Path(f"/proc/{running.watched.pid}/comm").read_text()
        return comm, running.watched == running.isolated.init, running.job != running.watched

    assert boxes.run("cat", look=look).seen == ("execdrv-init\n", True, True)


def test_the_record_can_name_the_init(boxes: Boxes) -> None:
    result = boxes.run("true")
    assert set(result.facts) == {"init"}
    assert set(result.facts["init"]) == {"pid", "start_time"}


# --- limits ------------------------------------------------------------------------------------


def test_every_limit_that_was_asked_has_a_receipt_and_is_in_the_kernel(boxes: Boxes) -> None:
    def look(running: Running) -> dict[str, str]:
        group = running.box.group
        assert group is not None
        files = ("pids.max", "memory.limit_in_bytes", "memory.max")
        return {
            name: Path(directory.path, name).read_text().strip()
            for directory in group.plan.dirs
            for name in files
            if Path(directory.path, name).exists()
        }

    result = boxes.run("cat", look=look, memory="32M", pids=7, cpus=0.5)
    assert [receipt.name for receipt in result.receipts] == ["memory", "cpus", "pids"]
    assert result.seen["pids.max"] == "8"
    assert str(32 << 20) in result.seen.values()


def test_no_limit_means_no_receipt(boxes: Boxes) -> None:
    assert boxes.run("true").receipts == ()


def test_a_memory_hog_is_killed_and_just_below_it_is_not(boxes: Boxes) -> None:
    script = "dd if=/dev/zero of=/tmp/file bs=1M count={} 2>/dev/null; echo $?"
    assert boxes.sh(script.format(40), memory="64M").text == "0\n"
    assert boxes.sh(script.format(200), memory="64M").text == "137\n"


def test_the_job_and_its_children_are_limited_together(boxes: Boxes) -> None:
    script = "for i in 1 2 3 4 5 6; do sleep 5 & done; wait"
    assert boxes.sh("sleep 0 & wait", pids=3).stderr == b""
    assert b"fork" in boxes.sh(script, pids=3).stderr


# --- check -------------------------------------------------------------------------------------


def test_a_limit_without_its_controller_is_refused_by_name(
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "detect_layout", cgroups.Layout)
    for name, value in (("memory", "64M"), ("cpus", 1), ("pids", 5)):
        (refusal,) = boxes.check(**{name: value})
        assert name in refusal.message


def test_a_capability_that_execdrv_lacks_is_refused(
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obstacle, "detect_bounding", lambda: (1 << 64) - 1 - (1 << 24))
    (refusal,) = boxes.check(cap_add=["SYS_RESOURCE"])
    assert refusal.message == "cannot give capability SYS_RESOURCE: execdrv does not have it itself"
    assert boxes.check(cap_add=["SYS_ADMIN"]) == []


def test_making_nodes_is_refused_where_devices_are_not_controlled(
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "devices_supported", lambda layout: False)
    (refusal,) = boxes.check(cap_add=["MKNOD"])
    assert refusal.guarantee == "dev.no-disk"
    assert boxes.check() == []


def test_a_private_root_is_refused_without_overlay(
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obstacle, "detect_overlay", lambda: False)
    (refusal,) = boxes.check()
    assert refusal.field == "root_mode"
    assert boxes.check(root_mode="read-only") == []


def test_other_values_than_the_known_are_refused(boxes: Boxes) -> None:
    box = attrs.evolve(plain_box(boxes), root_mode="other", net="bridge")
    fields = [refusal.field for refusal in NativeDriver().check(box)]
    assert set(fields) >= {"root_mode", "net"}


def test_an_ordinary_user_is_told_that_it_needs_root(boxes: Boxes) -> None:
    def first() -> None:
        os.setresuid(1000, 1000, 1000)

    with pytest.raises(UnsupportedError, match="needs root"):
        boxes.run("true", first=first)


def test_check_changes_nothing(boxes: Boxes) -> None:
    def first() -> None:
        boxes.scratch.chmod(0o755)

    before = sorted(os.listdir(boxes.scratch)), sorted(os.listdir(boxes.rootfs))
    assert boxes.check(memory="64M", root_mode="private", first=first) == []
    assert (sorted(os.listdir(boxes.scratch)), sorted(os.listdir(boxes.rootfs))) == before


# --- where the root can't be exchanged ---------------------------------------------------------


def _enter_plain_chroot(boxes: Boxes) -> None:
    """A chroot into a directory that is no mount point, with all that Python may still need."""
    enter_stand_in()
    place = boxes.scratch / "chroot"
    (place / "whole").mkdir(parents=True)
    top = os.fsencode(place / "whole")
    syscalls.mount(b"/", top, flags=syscalls.MS_BIND | syscalls.MS_REC)
    os.chroot(place)
    # The same names as before, over links, in a root that is a plain directory.
    for name in os.listdir("/whole"):
        os.symlink(f"whole/{name}", f"/{name}")
    os.chdir("/")


def test_a_chroot_that_is_no_mount_point_is_refused_in_words(boxes: Boxes) -> None:
    with pytest.raises(UnsupportedError, match="not a mount point, inside a chroot"):
        boxes.run("true", first=lambda: _enter_plain_chroot(boxes))


def test_a_chroot_that_is_no_mount_point_is_refused_while_isolating_too(boxes: Boxes) -> None:
    with pytest.raises(IsolationError, match="a chroot, or the initramfs"):
        boxes.run("true", first=lambda: _enter_plain_chroot(boxes), check=False)


def test_a_chroot_that_is_a_mount_point_would_leave_the_old_root_and_is_refused(
    boxes: Boxes,
) -> None:
    place = boxes.scratch / "chroot"
    place.mkdir()

    def first() -> None:
        enter_stand_in()
        # Where the mount above is shared, pivot_root refuses by itself.
        syscalls.mount(None, b"/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.mount(b"/", os.fsencode(place), flags=syscalls.MS_BIND | syscalls.MS_REC)
        os.chroot(place)
        os.chdir("/")

    with pytest.raises(IsolationError, match="a chroot, or the initramfs"):
        boxes.run("true", first=first)


# --- failures and destroy ----------------------------------------------------------------------


@pytest.mark.parametrize("where", ["_set_loopback_up", "_join_groups", "enter_root"])
def test_a_failed_isolate_says_what_failed_and_leaves_no_process(boxes: Boxes, where: str) -> None:
    def first() -> None:
        import execdrv_native.child

        def fail(*_: object) -> None:
            raise OSError(13, "Permission denied")

        setattr(execdrv_native.child, where, fail)

    # `run` fails by itself if a process or a group is left.
    with pytest.raises(IsolationError, match=r"cannot .*: permission denied"):
        boxes.run("true", first=first)


def test_a_failure_after_the_init_stands_ends_and_reaps_it(boxes: Boxes) -> None:
    def fail(group: object) -> None:
        raise IsolationError("cannot control devices: because")

    def first() -> None:
        execdrv_native.driver.cgroups.allow_devices = fail  # type: ignore[assignment]
        # In place of ending what is left: what the driver left is what `run` complains of.
        driver_boxes.kill_own_children = lambda **_: list_children(os.getpid())

    with pytest.raises(IsolationError, match="cannot control devices"):
        boxes.run("true", first=first)


def test_isolate_without_init_or_group_is_refused(boxes: Boxes) -> None:
    box = plain_box(boxes)
    with pytest.raises(IsolationError, match="no init"):
        NativeDriver().isolate(box)
    with with_init(box) as ready, pytest.raises(IsolationError, match="no cgroup"):
        NativeDriver().isolate(ready)


@contextlib.contextmanager
def with_init(box: Box) -> Iterator[Box]:
    link = InitLink(open_init())
    yield attrs.evolve(box, init=link)
    link.close()
    os.close(link.memfd)


def test_start_before_isolate_is_refused(boxes: Boxes) -> None:
    with pytest.raises(StartError, match="was not isolated"):
        NativeDriver().start(plain_box(boxes))


def test_destroy_from_the_record_alone_ends_a_running_job(boxes: Boxes) -> None:
    def look(running: Running) -> Any:
        record = {"init": dict(running.box.facts["init"])}
        bare = attrs.evolve(running.box, init=None, group=None, facts=record)

        def destroy() -> None:
            NativeDriver().destroy(bare)
            NativeDriver().destroy(bare)

        in_fork(destroy)
        if not is_running(running.watched) and not is_running(running.job):
            raise _GoneError

    with pytest.raises(_GoneError):
        boxes.run("sleep", "100", look=look)


class _GoneError(Exception):
    """The job has ended, so that there is nothing more to wait for."""


def test_destroy_ends_no_process_that_has_the_number_by_chance(boxes: Boxes) -> None:
    canary = subprocess.Popen(["sleep", "60"])
    try:
        found = detect_process(canary.pid)
        assert found is not None
        box = plain_box(boxes)
        box.facts["init"] = {"pid": found.pid, "start_time": found.start_time - 1}
        NativeDriver().destroy(box)
        assert canary.poll() is None
        assert os.waitpid(canary.pid, os.WNOHANG) == (0, 0)
    finally:
        canary.send_signal(signal.SIGKILL)
        canary.wait()


def test_destroy_of_what_was_never_isolated_does_nothing(boxes: Boxes) -> None:
    NativeDriver().destroy(plain_box(boxes))


def test_many_runs_in_one_process_leave_no_descriptor_and_no_child(boxes: Boxes) -> None:
    def runs() -> tuple[list[str], list[str]]:
        listings = []
        for _ in range(2):
            for _ in range(10):
                boxes.run_here("true")
            listings.append(sorted(os.listdir("/proc/self/fd")))
        return listings[0], listings[1]

    first, second = in_fork(runs)
    assert first == second
