"""Making room on cgroup2; only a machine (or the VM of scripts/vm) with v2 controllers shows it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from execdrv.errors import CreateError, UnsupportedError
from execdrv.limits import Limits
from execdrv.linux.cgroups import (
    Group,
    GroupDir,
    GroupPlan,
    Layout,
    apply_limits,
    check_limits,
    detect_layout,
    make_group,
    open_group,
    plan_group,
)

LIMITS = Limits(memory_bytes=64 << 20, pids=8)
Scope = Callable[..., None]


@pytest.fixture
def own(machine: Layout, kit: SimpleNamespace) -> Iterator[str]:
    """A group below the machine's root, for a child that is to be alone in it."""
    unified = machine.unified
    if unified is None or not {"memory", "pids"} <= set(unified.controllers):
        pytest.skip(
            f"needs memory and pids on cgroup2; this machine is {machine.mode} "
            "(scripts/vm/run.sh has them)"
        )
    path = f"{unified.mountpoint}/execdrv-test-own-{os.getpid()}"
    Path(unified.mountpoint, "cgroup.subtree_control").write_text("+memory +pids")
    os.mkdir(path)
    yield path
    with contextlib.suppress(OSError):
        Path(path, "cgroup.kill").write_text("1")
    kit.wait_until(lambda: "populated 0" in Path(path, "cgroup.events").read_text())
    left = [found for found in kit.groups_named(machine, "execdrv-") if found != path]
    outer = GroupDir(path=path, version=2)
    assert open_group(GroupPlan(name="own", dirs=(outer,))).remove() == []
    assert left == []


@pytest.fixture
def inside(own: str, kit: SimpleNamespace) -> Scope:
    """Runs a function in a child that stands alone in `own`."""

    def run(action: Callable[[], None], *, timeout_s: float = 20.0) -> None:
        def enter() -> None:
            Path(own, "cgroup.procs").write_text("0")
            action()

        kit.in_child(enter, timeout_s=timeout_s)

    return run


def _pids(path: str) -> list[int]:
    return [int(pid) for pid in Path(path, "cgroup.procs").read_text().split()]


def _make(name: str, *ours: int) -> Group:
    layout = detect_layout(ours=ours)
    assert check_limits(layout, LIMITS) == []
    return make_group(plan_group(layout, name, limits=LIMITS, devices=False))


def _sleep() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"])


def test_our_own_processes_make_room_and_return(own: str, inside: Scope) -> None:
    def check() -> None:
        group = _make("execdrv-a")
        assert group.plan.unified is not None
        assert group.plan.unified.path == f"{own}/execdrv-a"
        assert _pids(own) == []
        assert _pids(f"{own}/execdrv-self") == [os.getpid()]
        apply_limits(group, LIMITS)
        assert Path(own, "execdrv-a/pids.max").read_text() == "9\n"
        assert group.remove() == []
        assert _pids(own) == [os.getpid()]
        assert Path(own, "cgroup.subtree_control").read_text().strip() == ""
        assert not os.path.exists(f"{own}/execdrv-self")

    inside(check)


def test_the_leaf_stays_until_the_last_group_is_gone(own: str, inside: Scope) -> None:
    def check() -> None:
        first = _make("execdrv-a")
        second = _make("execdrv-b")
        assert second.plan.leaf == first.plan.leaf
        assert first.remove() == []
        assert _pids(f"{own}/execdrv-self") == [os.getpid()]
        apply_limits(second, LIMITS)
        assert second.remove() == []
        assert _pids(own) == [os.getpid()]

    inside(check)


def test_processes_named_as_ours_move_too(own: str, inside: Scope) -> None:
    def check() -> None:
        sleeper = _sleep()
        group = _make("execdrv-a", sleeper.pid)
        assert sorted(_pids(f"{own}/execdrv-self")) == sorted([os.getpid(), sleeper.pid])
        assert group.remove() == []
        assert sorted(_pids(own)) == sorted([os.getpid(), sleeper.pid])
        sleeper.kill()
        sleeper.wait()

    inside(check)


def test_a_shared_group_puts_the_container_beside_it(own: str, inside: Scope) -> None:
    def check() -> None:
        sleeper = _sleep()
        group = _make("execdrv-beside")
        assert group.plan.unified is not None
        assert group.plan.unified.path == f"{os.path.dirname(own)}/execdrv-beside"
        assert sorted(_pids(own)) == sorted([os.getpid(), sleeper.pid])
        apply_limits(group, LIMITS)
        assert group.remove() == []
        sleeper.kill()
        sleeper.wait()

    inside(check)


def test_a_shared_group_with_a_limit_is_refused_with_the_way_out(own: str, inside: Scope) -> None:
    def check() -> None:
        sleeper = _sleep()
        Path(own, "memory.max").write_text(str(256 << 20))
        layout = detect_layout()
        problems = check_limits(layout, LIMITS)
        assert {problem.guarantee for problem in problems} == {  # type: ignore[attr-defined]
            "mem.limit-oom",
            "pids.limit",
        }
        with pytest.raises(UnsupportedError, match=r"memory\.max") as caught:
            plan_group(layout, "execdrv-a", limits=LIMITS, devices=False)
        assert "Delegate=yes" in caught.value.hint
        # Without a limit nothing has to be moved, and the outer limit holds.
        plan = plan_group(layout, "execdrv-a", limits=Limits(), devices=True)
        assert plan.dirs[0].path == f"{own}/execdrv-a"
        assert make_group(plan).remove() == []
        sleeper.kill()
        sleeper.wait()

    inside(check)


def test_a_stranger_who_comes_between_plan_and_make_is_not_moved(own: str, inside: Scope) -> None:
    def check() -> None:
        plan = plan_group(detect_layout(), "execdrv-a", limits=LIMITS, devices=False)
        assert plan.leaf
        sleeper = _sleep()
        with pytest.raises(CreateError, match=str(sleeper.pid)):
            make_group(plan)
        assert sorted(_pids(own)) == sorted([os.getpid(), sleeper.pid])
        assert not os.path.exists(plan.leaf)
        sleeper.kill()
        sleeper.wait()

    inside(check)


def test_after_a_crash_the_plan_alone_gives_the_room_back(
    own: str, inside: Scope, kit: SimpleNamespace
) -> None:
    def check() -> None:
        group = _make("execdrv-a")

        # Another process, which stands elsewhere, cleans up.
        def clean_up() -> None:
            Path(os.path.dirname(own), "cgroup.procs").write_text("0")
            assert open_group(group.plan).remove() == []

        kit.in_child(clean_up)
        assert _pids(own) == [os.getpid()]

    inside(check)


def test_supervisors_that_come_and_go_at_once_do_not_meet(own: str, inside: Scope) -> None:
    def check() -> None:
        gate, opener = os.pipe()
        workers = []
        for number in range(4):
            pid = os.fork()
            if pid == 0:
                try:
                    os.close(opener)
                    ours = [int(text) for text in os.read(gate, 100).split()]
                    for _ in range(10):
                        group = _make(f"execdrv-w{number}", *ours)
                        apply_limits(group, LIMITS)
                        assert group.remove() == []
                    os._exit(0)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(1)
            workers.append(pid)
        listing = " ".join(map(str, [os.getpid(), *workers])).encode().ljust(100)
        for _ in workers:
            os.write(opener, listing)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers]
        assert statuses == [0, 0, 0, 0]
        assert _pids(own) == [os.getpid()]
        assert Path(own, "cgroup.subtree_control").read_text().strip() == ""

    inside(check, timeout_s=60)


def test_a_group_below_never_exceeds_the_outer_limit(
    own: str, inside: Scope, kit: SimpleNamespace
) -> None:
    def check() -> None:
        Path(own, "memory.max").write_text(str(64 << 20))
        big = Limits(memory_bytes=512 << 20)
        layout = detect_layout()
        group = make_group(plan_group(layout, "execdrv-a", limits=big, devices=False))
        apply_limits(group, big)
        pid = kit.spawn_python(group, "x = b'x' * (128 << 20)")
        assert kit.wait_status(pid) == -signal.SIGKILL
        assert group.remove() == []

    inside(check)
