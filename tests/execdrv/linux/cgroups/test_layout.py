from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from execdrv.linux.cgroups import Layout, detect_layout
from execdrv.linux.cgroups.layout import (
    own_directory,
    parse_mountinfo,
    parse_own_groups,
    visible_mounts,
)

Sample = Callable[[str], Layout]


def test_detect_finds_every_hierarchy_of_a_hybrid_machine(sample: Sample, tmp_path: Path) -> None:
    layout = sample("hybrid")
    assert layout.mode == "hybrid"
    memory = layout.v1("memory")
    assert memory is not None
    assert memory.own == f"{tmp_path}/sys/fs/cgroup/memory/outer/0539"
    assert layout.unified is not None
    assert layout.unified.own == f"{tmp_path}/sys/fs/cgroup/unified"
    assert layout.v1("name=systemd") is not None


def test_detect_keeps_controllers_that_share_a_hierarchy_together(
    sample: Sample, tmp_path: Path
) -> None:
    layout = sample("v1")
    assert layout.mode == "v1"
    cpu = layout.v1("cpu")
    assert cpu is layout.v1("cpuacct")
    assert cpu is not None
    assert cpu.controllers == ("cpu", "cpuacct")
    assert cpu.own == f"{tmp_path}/sys/fs/cgroup/cpu,cpuacct/user.slice"
    assert layout.unified is None


def test_detect_takes_no_mount_option_for_a_controller(sample: Sample) -> None:
    names = {name for h in sample("v1").hierarchies for name in h.controllers}
    assert "xattr" not in names and "rw" not in names


def test_detect_respects_a_mount_root_below_the_hierarchys_root(
    sample: Sample, tmp_path: Path
) -> None:
    layout = sample("v1-container")
    memory, pids, freezer = (layout.v1(name) for name in ("memory", "pids", "freezer"))
    assert memory is not None and pids is not None and freezer is not None
    assert memory.own == f"{tmp_path}/sys/fs/cgroup/memory"
    assert memory.read_only
    assert pids.own == f"{tmp_path}/sys/fs/cgroup/pids/inner"
    assert not pids.read_only
    assert freezer.own is None, "another container's group must not be taken for the own one"


def test_detect_gives_an_empty_layout_where_nothing_is_mounted(sample: Sample) -> None:
    assert sample("none") == Layout()
    assert sample("none").mode == "none"


@pytest.mark.parametrize("text", ["", "\n", "nonsense", "1 2 3 - x", "a b c d e f - g h i", "0:"])
def test_detect_never_raises_on_odd_text(text: str) -> None:
    assert detect_layout(mountinfo=text, own=text).hierarchies == ()


def test_detect_on_this_machine_names_the_directory_that_lists_this_process(
    machine: Layout,
) -> None:
    for hierarchy in machine.hierarchies:
        if hierarchy.own is not None:
            listed = Path(hierarchy.own, "cgroup.procs").read_text().split()
            assert str(os.getpid()) in listed


def test_named_hierarchies_alone_count_as_none() -> None:
    mountinfo = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
    assert detect_layout(mountinfo=mountinfo, own="1:name=systemd:/x\n").mode == "none"


def test_mountpoints_lose_their_octal_escapes() -> None:
    line = r"35 31 0:32 /a\134b /mnt/a\040b\011c\012d rw - cgroup cgroup rw,memory"
    (mount,) = parse_mountinfo(line)
    assert mount.mountpoint == "/mnt/a b\tc\nd"
    assert mount.root == "/a\\b"


def test_a_covered_mount_is_not_seen(kit: SimpleNamespace, tmp_path: Path) -> None:
    texts = kit.read_sample("hybrid", tmp_path)
    cover = f"60 31 0:70 / {tmp_path}/sys/fs/cgroup rw - tmpfs tmpfs rw\n"
    assert detect_layout(mountinfo=texts["mountinfo"] + cover, own=texts["own"]) == Layout()


def test_a_second_mount_on_a_fresh_sys_is_seen_and_the_first_is_not() -> None:
    text = (
        "27 1 254:0 / / rw - ext4 /dev/vda rw\n"
        "23 27 0:22 / /sys rw - sysfs sysfs rw\n"
        "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
        "70 23 0:22 / /sys rw - sysfs sysfs rw\n"
        "71 70 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    )
    seen = visible_mounts(parse_mountinfo(text), ["cgroup2"])
    assert [mount.mount_id for mount in seen] == [71]


def test_a_chroot_whose_root_mount_is_not_listed_still_sees_its_mounts() -> None:
    text = "80 79 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    assert len(visible_mounts(parse_mountinfo(text), ["cgroup2"])) == 1


def test_the_mount_that_shows_the_own_group_and_can_be_written_is_taken() -> None:
    base = "27 1 254:0 / / rw - ext4 /dev/vda rw\n"
    mounts = [
        "31 27 0:28 /elsewhere /a rw - cgroup cgroup rw,memory\n",
        "32 27 0:28 / /b ro - cgroup cgroup rw,memory\n",
        "33 27 0:28 / /c rw - cgroup cgroup rw,memory\n",
    ]
    for order in (mounts, mounts[::-1]):
        memory = detect_layout(mountinfo=base + "".join(order), own="4:memory:/x\n").v1("memory")
        assert memory is not None
        assert memory.own == "/c/x"


@pytest.mark.parametrize(
    ("root", "group", "own"),
    [
        ("/", "/", "/m"),
        ("/", "/a/b", "/m/a/b"),
        ("/a", "/a", "/m"),
        ("/a", "/a/b", "/m/b"),
        ("/a", "/ab", None),
        ("/a", "/", None),
        # Cgroup namespaces: the mount's root, or the own group, stands outside.
        ("/..", "/", None),
        ("/../../x", "/", None),
        ("/", "/../x", None),
        ("/../x", "/../x", "/m"),
    ],
)
def test_own_directory_is_told_only_where_it_is_sure(
    root: str, group: str, own: str | None
) -> None:
    assert own_directory("/m", root, group) == own


def test_own_groups_keep_colons_and_lose_the_deleted_mark() -> None:
    groups = parse_own_groups("4:cpu,cpuacct:/a:b\n0::/x (deleted)\n")
    assert groups == {("cpu", "cpuacct"): "/a:b", (): "/x"}


def _fake_scope(kit: SimpleNamespace, top: Path, **own_files: str) -> None:
    """A FAKE v2 tree as systemd makes it; no kernel is behind it."""
    own = "user.slice/user-0.slice/session-3.scope"
    files = {
        "cgroup.controllers": "cpuset cpu io memory pids\n",
        "cgroup.subtree_control": "memory pids\n",
        "user.slice/cgroup.subtree_control": "memory pids\n",
        "user.slice/user-0.slice/cgroup.subtree_control": "memory pids\n",
        f"{own}/cgroup.subtree_control": "",
        f"{own}/cgroup.type": "domain\n",
        f"{own}/cgroup.procs": f"{os.getpid()}\n",
        f"{own}/memory.max": "max\n",
        f"{own}/pids.max": "max\n",
        f"{own}/cpu.max": "max 100000\n",
        f"{own}/io.max": "",
    }
    for name, text in own_files.items():
        files[f"{own}/{name.replace('_', '.')}"] = text
    kit.write_tree(top / "sys/fs/cgroup", files)


def test_detect_tells_what_can_be_handed_down_on_v2(
    sample: Sample, kit: SimpleNamespace, tmp_path: Path
) -> None:
    _fake_scope(kit, tmp_path)
    layout = sample("v2")
    assert layout.mode == "v2"
    assert layout.unified is not None
    assert layout.unified.controllers == ("cpuset", "cpu", "io", "memory", "pids")
    state = layout.unified_group
    assert state is not None
    assert not state.is_root
    assert state.ours == (os.getpid(),)
    assert state.foreign == ()
    assert state.finite == ()
    assert set(state.available) == {"cpuset", "cpu", "io", "memory", "pids"}


def test_detect_tells_other_processes_from_our_own_on_v2(
    sample: Sample, kit: SimpleNamespace, tmp_path: Path
) -> None:
    _fake_scope(kit, tmp_path, cgroup_procs=f"{os.getpid()}\n4000001\n0\n")
    layout = sample("v2")
    assert layout.unified_group is not None
    assert layout.unified_group.foreign == (4000001, 0)
    ours = detect_layout(**kit.read_sample("v2", tmp_path), ours=[4000001])
    assert ours.unified_group is not None
    assert ours.unified_group.foreign == (0,)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("memory_max", "1048576\n"),
        ("memory_high", "1048576\n"),
        ("memory_swap_max", "0\n"),
        ("cpu_max", "50000 100000\n"),
        ("pids_max", "100\n"),
        ("io_max", "8:0 rbps=1000 wbps=max riops=max wiops=max\n"),
        ("cpuset_cpus", "0-1\n"),
    ],
)
def test_detect_names_each_finite_limit_of_the_own_v2_group(
    sample: Sample, kit: SimpleNamespace, tmp_path: Path, name: str, text: str
) -> None:
    _fake_scope(kit, tmp_path, **{name: text})
    state = sample("v2").unified_group
    assert state is not None
    assert state.finite == (f"{name.replace('_', '.')}={text.strip()}",)


def test_a_leaf_that_has_just_gone_does_not_hide_what_its_group_can_get(
    kit: SimpleNamespace, tmp_path: Path
) -> None:
    # Another supervisor of ours took it away between two looks.
    _fake_scope(kit, tmp_path)
    texts = kit.read_sample("v2", tmp_path)
    texts["own"] = texts["own"].strip() + "/execdrv-self\n"
    state = detect_layout(**texts).unified_group
    assert state is not None
    assert set(state.available) == {"cpuset", "cpu", "io", "memory", "pids"}
    assert state.ours == (os.getpid(),)


def test_detect_takes_a_namespaces_root_for_no_real_root(
    sample: Sample, kit: SimpleNamespace, tmp_path: Path
) -> None:
    files = {"cgroup.type": "domain\n", "cgroup.procs": "1\n", "cgroup.controllers": "memory\n"}
    kit.write_tree(tmp_path / "sys/fs/cgroup", files)
    state = sample("v2-container").unified_group
    assert state is not None
    assert not state.is_root
    (tmp_path / "sys/fs/cgroup/cgroup.type").unlink()
    state = sample("v2-container").unified_group
    assert state is not None
    assert state.is_root
