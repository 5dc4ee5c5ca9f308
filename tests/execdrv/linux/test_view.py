"""The mount plan as data: what is in it, and in which order."""

from __future__ import annotations

import pytest

from execdrv.linux import syscalls
from execdrv.linux.mounts import Attach, Cover, MakeLink, MakeNode, NewFs, Protect, Seal
from execdrv.linux.view import plan_mounts
from execdrv.spec import Bind, Tmpfs


def targets(steps: tuple[object, ...], *kinds: type) -> list[bytes]:
    return [step.target for step in steps if isinstance(step, kinds)]  # type: ignore[attr-defined]


def test_what_nobody_asked_for_comes_in_a_fixed_order() -> None:
    assert targets(plan_mounts(), NewFs) == [b"/proc", b"/dev", b"/dev/pts", b"/dev/shm", b"/tmp"]
    assert isinstance(plan_mounts()[0], NewFs)


def test_parts_of_proc_are_guarded_before_anything_else_is_mounted() -> None:
    kinds = [type(step) for step in plan_mounts()]
    guards = [index for index, kind in enumerate(kinds) if kind in (Cover, Protect)]
    assert guards == list(range(1, len(guards) + 1))


@pytest.mark.parametrize(
    "path",
    [
        *("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/kallsyms"),
        *("/proc/scsi", "/proc/acpi", "/proc/asound", "/proc/latency_stats", "/proc/interrupts"),
        *("/proc/kmsg", "/proc/kpageflags", "/proc/vmallocinfo", "/proc/mtrr"),
    ],
)
def test_files_that_tell_of_the_machine_are_covered(path: str) -> None:
    assert path.encode() in targets(plan_mounts(), Cover)


@pytest.mark.parametrize(
    "path", ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"]
)
def test_files_that_change_the_machine_are_protected(path: str) -> None:
    assert path.encode() in targets(plan_mounts(), Protect)


def test_devices_work_on_dev_and_its_terminals_only() -> None:
    for step in plan_mounts(tmpfs=[Tmpfs(target="/x")]):
        if isinstance(step, NewFs):
            devices = not step.attributes & syscalls.MOUNT_ATTR_NODEV
            assert devices == (step.target in (b"/dev", b"/dev/pts")), step
            assert step.attributes & syscalls.MOUNT_ATTR_NOSUID, step


def test_nodes_are_the_six_documented_ones() -> None:
    nodes = {
        step.target: (step.major, step.minor)
        for step in plan_mounts()
        if isinstance(step, MakeNode)
    }
    assert nodes == {
        b"/dev/null": (1, 3),
        b"/dev/zero": (1, 5),
        b"/dev/full": (1, 7),
        b"/dev/random": (1, 8),
        b"/dev/urandom": (1, 9),
        b"/dev/tty": (5, 0),
    }
    links = targets(plan_mounts(), MakeLink)
    assert links == [b"/dev/ptmx", b"/dev/fd", b"/dev/stdin", b"/dev/stdout", b"/dev/stderr"]


def test_dev_is_sealed_last() -> None:
    steps = plan_mounts(binds=[Bind(source="/usr", target="/dev/x")])
    assert steps[-1] == Seal(target=b"/dev")
    assert isinstance(steps[-2], Attach)


@pytest.mark.parametrize(
    ("tmpfs", "binds", "expected"),
    [
        ((), ("/a", "/b"), ["/a", "/b"]),
        ((), ("/b", "/a"), ["/b", "/a"]),
        ((), ("/a/b/c", "/a", "/a/b"), ["/a", "/a/b", "/a/b/c"]),
        (("/a/b",), ("/a",), ["/a", "/a/b"]),
        (("/a",), ("/b",), ["/a", "/b"]),
        (("//a//b/",), ("/./a/.", "/c"), ["/./a/.", "/c", "//a//b/"]),
    ],
)
def test_targets_with_fewer_names_come_first_then_tmpfs_then_as_given(
    tmpfs: tuple[str, ...], binds: tuple[str, ...], expected: list[str]
) -> None:
    steps = plan_mounts(
        tmpfs=[Tmpfs(target=target) for target in tmpfs],
        binds=[Bind(source="/usr", target=target) for target in binds],
    )
    asked = [
        step.target.decode()
        for step in steps
        if isinstance(step, Attach) or (isinstance(step, NewFs) and step.asked)
    ]
    assert asked == expected


def test_a_bind_keeps_its_index() -> None:
    steps = plan_mounts(
        binds=[Bind(source="/usr", target="/a/b"), Bind(source="/etc", target="/c")]
    )
    assert {step.target: step.tree for step in steps if isinstance(step, Attach)} == {
        b"/a/b": 0,
        b"/c": 1,
    }


def test_size_and_mode_of_a_tmpfs_become_options() -> None:
    (step,) = [
        step
        for step in plan_mounts(tmpfs=[Tmpfs(target="/x", size=65536, mode=0o750)])
        if isinstance(step, NewFs) and step.asked
    ]
    assert step.options == ((b"mode", b"750"), (b"size", b"65536"))
