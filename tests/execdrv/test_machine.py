"""Facts about the machine: each asks the kernel, lazily, raises nothing and leaves nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from execdrv import machine
from execdrv.guarantees.facts import MACHINE_FACTS
from execdrv.linux import cgroups, trial
from execdrv.linux.procfs import list_children
from execdrv.machine import describe_machine, detect_facts


def test_every_fact_has_a_detector_and_no_other() -> None:
    assert set(machine._DETECTORS) == set(MACHINE_FACTS)


def test_every_fact_can_be_looked_at() -> None:
    found = detect_facts(MACHINE_FACTS)
    assert set(found) == set(MACHINE_FACTS)
    assert all(isinstance(value, bool) for value in found.values())


def test_an_unknown_fact_is_false() -> None:
    assert detect_facts(["no.such"]) == {"no.such": False}


def test_only_what_was_asked_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bool:
        raise AssertionError("looked at")

    for name in MACHINE_FACTS:
        if name != "smp":
            monkeypatch.setitem(machine._DETECTORS, name, fail)
    assert detect_facts(["smp"]) == {"smp": len(os.sched_getaffinity(0)) > 1}


def test_what_cannot_be_read_is_false_never_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine, "read_optional", lambda path: None)
    monkeypatch.setattr(machine.os, "stat", refuse)
    monkeypatch.setattr(machine.os, "listdir", refuse)
    monkeypatch.setattr(machine.os, "open", refuse)
    monkeypatch.setattr(trial, "detect_veth", refuse)
    monkeypatch.setattr(trial, "detect_compat32", refuse)
    found = detect_facts(MACHINE_FACTS)
    for name in ("root", "overlay", "lsm", "tty", "mqueue", "veth", "loop", "compat32", "ns.mnt"):
        assert found[name] is False, name


def with_texts(texts: dict[str, str]) -> Callable[[str], str | None]:
    return texts.get


@pytest.mark.parametrize(
    ("name", "texts", "expected"),
    [
        ("overlay", {"/proc/filesystems": "nodev\toverlay\n\text4\n"}, True),
        ("mqueue", {"/proc/filesystems": "nodev\tmqueue\n"}, True),
        ("mqueue", {"/proc/filesystems": "nodev\tmqueues\n"}, False),
        ("tty", {"/proc/filesystems": "nodev\tdevpts\n"}, True),
        ("lsm", {"/proc/self/attr/current": "unconfined\n\0"}, True),
        ("lsm", {"/proc/self/attr/current": "\0"}, False),
        ("tiocsti", {"/proc/sys/dev/tty/legacy_tiocsti": "1\n"}, True),
        ("ns.pid", {"/proc/sys/user/max_pid_namespaces": "0\n"}, False),
        ("ns.pid", {"/proc/sys/user/max_pid_namespaces": "5\n"}, True),
        ("ns.pid", {}, True),
    ],
)
def test_root_reads_facts_from_the_kernels_texts(
    monkeypatch: pytest.MonkeyPatch, name: str, texts: dict[str, str], expected: bool
) -> None:
    status = {"/proc/self/status": "Name:\tx\nCapEff:\t000001ffffffffff\n"}
    monkeypatch.setattr(machine, "read_optional", with_texts({**status, **texts}))
    assert detect_facts([name]) == {name: expected}


@pytest.mark.parametrize(
    ("name", "texts", "expected"),
    [
        ("overlay", {"/proc/filesystems": "nodev\toverlay\n"}, False),
        ("tty", {"/proc/filesystems": "nodev\tdevpts\n"}, False),
        ("tiocsti", {"/proc/sys/dev/tty/legacy_tiocsti": "0\n"}, False),
        ("tiocsti", {}, True),
        ("ns.mnt", {}, False),
        ("ns.user", {}, True),
        ("ns.user", {"/proc/sys/kernel/unprivileged_userns_clone": "0\n"}, False),
        ("ns.user", {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}, False),
        ("ns.user", {"/proc/sys/user/max_user_namespaces": "0\n"}, False),
        ("veth", {}, False),
    ],
)
def test_without_capabilities_less_is_true(
    monkeypatch: pytest.MonkeyPatch, name: str, texts: dict[str, str], expected: bool
) -> None:
    status = {"/proc/self/status": "CapEff:\t0000000000000000\n"}
    monkeypatch.setattr(machine, "read_optional", with_texts({**status, **texts}))
    assert detect_facts([name]) == {name: expected}


def test_without_any_cgroup_no_cgroup_fact_is_true(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "detect_layout", cgroups.Layout)
    names = [name for name in MACHINE_FACTS if name.startswith("cgroup")]
    assert not any(detect_facts(names).values())


def test_a_read_only_hierarchy_is_no_cgroup(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def layout(*, read_only: bool) -> cgroups.Layout:
        hierarchy = cgroups.Hierarchy(
            version=1,
            controllers=("cpuset",),
            mountpoint=str(tmp_path),
            mount_root="/",
            own=str(tmp_path),
            own_group="/",
            read_only=read_only,
        )
        return cgroups.Layout(hierarchies=(hierarchy,))

    for read_only in (True, False):
        found_layout = layout(read_only=read_only)
        monkeypatch.setattr(cgroups, "detect_layout", lambda: found_layout)  # noqa: B023
        found = detect_facts(["cgroup", "cgroup.cpuset"])
        assert found == {"cgroup": not read_only, "cgroup.cpuset": not read_only}


def test_root_is_uid_0_of_the_initial_namespace_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "geteuid", lambda: 1000)
    assert detect_facts(["root"]) == {"root": False}


def test_the_description_has_a_way_out_of_all_that_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "detect_facts", lambda names: dict.fromkeys(names, False))
    found = describe_machine()
    assert {one.name for one in found} == {"kernel", "architecture", *MACHINE_FACTS}
    for one in found:
        assert one.text
        assert bool(one.hint) == (not one.present), one
        assert "\n" not in one.hint


@pytest.mark.parametrize(
    ("release", "present"),
    [("6.18.44-x", True), ("5.10.0", True), ("5.9.16", False), ("4.19", False), ("10.1", True)],
)
def test_the_kernel_has_a_floor(
    monkeypatch: pytest.MonkeyPatch, release: str, present: bool
) -> None:
    uname = os.uname()
    fake = os.uname_result((uname.sysname, uname.nodename, release, uname.version, uname.machine))
    monkeypatch.setattr(machine.os, "uname", lambda: fake)
    (kernel,) = [one for one in describe_machine() if one.name == "kernel"]
    assert kernel.present is present


def test_nothing_is_left_of_looking() -> None:
    def state() -> tuple[object, ...]:
        return (
            len(os.listdir("/proc/self/fd")),
            sorted(os.listdir("/sys/class/net")),
            Path("/proc/self/mountinfo").read_text(),
            os.readlink("/proc/self/ns/net"),
            list_children(os.getpid()),
        )

    detect_facts(MACHINE_FACTS)  # imports
    before = state()
    detect_facts(MACHINE_FACTS)
    assert state() == before
