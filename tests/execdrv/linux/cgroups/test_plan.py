from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from execdrv.errors import SpecError, UnsupportedError
from execdrv.limits import Limits
from execdrv.linux.cgroups import GroupPlan, Hierarchy, Layout, UnifiedGroup, plan_group

Sample = Callable[[str], Layout]
ALL = Limits(memory_bytes=1 << 26, memory_swap_bytes=0, cpus=0.5, pids=16)
SCOPE = "/cg/user.slice/session-3.scope"


def _v2(own: str = SCOPE, **state: Any) -> Layout:
    """A v2 machine whose own group is `own`, with a state that differs in `state`."""
    unified = Hierarchy(
        version=2,
        controllers=("cpu", "memory", "pids"),
        mountpoint="/cg",
        mount_root="/",
        own=own,
        own_group=own.removeprefix("/cg") or "/",
    )
    group = UnifiedGroup(is_root=False, available=unified.controllers, ours=(7,))
    return Layout(hierarchies=(unified,), unified_group=attrs.evolve(group, **state))


def _paths(plan: GroupPlan) -> list[str]:
    return [directory.path for directory in plan.dirs]


def test_a_group_stands_below_the_own_group_of_each_hierarchy(
    sample: Sample, tmp_path: Path
) -> None:
    plan = plan_group(sample("hybrid"), "execdrv-1", limits=ALL, devices=True)
    top = f"{tmp_path}/sys/fs/cgroup"
    assert _paths(plan) == [
        f"{top}/unified/execdrv-1",
        f"{top}/cpu/execdrv-1",
        f"{top}/memory/outer/0539/execdrv-1",
        f"{top}/devices/execdrv-1",
        f"{top}/pids/execdrv-1",
    ]
    assert plan.enable == () and plan.leaf == ""


def test_only_hierarchies_that_are_needed_are_used(sample: Sample, tmp_path: Path) -> None:
    plan = plan_group(sample("hybrid"), "g", limits=Limits(pids=3), devices=False)
    top = f"{tmp_path}/sys/fs/cgroup"
    assert _paths(plan) == [f"{top}/unified/g", f"{top}/pids/g"]


def test_everywhere_is_every_v1_hierarchy_after_those_that_are_needed(
    sample: Sample, tmp_path: Path
) -> None:
    layout = sample("hybrid")
    plan = plan_group(layout, "g", limits=Limits(pids=3), devices=False, everywhere=True)
    top = f"{tmp_path}/sys/fs/cgroup"
    assert _paths(plan)[:2] == [f"{top}/unified/g", f"{top}/pids/g"]
    assert sorted(_paths(plan)) == sorted(f"{h.own}/g" for h in layout.hierarchies)
    assert [d.controllers for d in plan.dirs] == [(), ("pids",)] + [()] * (len(plan.dirs) - 2)


def test_a_parent_is_asked_for_only_where_something_is_limited(
    sample: Sample, tmp_path: Path
) -> None:
    plan = plan_group(
        sample("hybrid"), "g", limits=Limits(pids=3), devices=False, parent="mine", everywhere=True
    )
    top = f"{tmp_path}/sys/fs/cgroup"
    assert _paths(plan)[:2] == [f"{top}/unified/mine/g", f"{top}/pids/mine/g"]
    assert f"{top}/cpu/g" in _paths(plan)


def test_v1_alone_uses_the_freezer_to_end_fork_storms(sample: Sample, tmp_path: Path) -> None:
    plan = plan_group(sample("v1"), "g", limits=Limits(cpus=1), devices=False)
    top = f"{tmp_path}/sys/fs/cgroup"
    assert _paths(plan) == [f"{top}/cpu,cpuacct/user.slice/g", f"{top}/freezer/g"]
    assert plan.dirs[0].controllers == ("cpu", "cpuacct")


def test_no_cgroups_and_no_limit_give_an_empty_plan(sample: Sample) -> None:
    assert plan_group(sample("none"), "g", limits=Limits(), devices=False).dirs == ()


@pytest.mark.parametrize(
    ("limits", "guarantee", "controller"),
    [
        (Limits(memory_bytes=1 << 20), "mem.limit-oom", "memory"),
        (Limits(cpus=1), "cpu.quota", "cpu"),
        (Limits(pids=1), "pids.limit", "pids"),
    ],
)
def test_a_limit_without_its_controller_is_refused_by_its_guarantee(
    sample: Sample, limits: Limits, guarantee: str, controller: str
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        plan_group(sample("none"), "g", limits=limits, devices=False)
    assert caught.value.guarantee == guarantee
    assert repr(controller) in str(caught.value)


def test_a_read_only_hierarchy_is_refused_by_name(sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="read-only") as caught:
        plan_group(sample("v1-container"), "g", limits=Limits(memory_bytes=1 << 20), devices=False)
    assert f"{tmp_path}/sys/fs/cgroup/memory" in str(caught.value)


def test_a_hierarchy_that_does_not_show_the_own_group_is_not_used(sample: Sample) -> None:
    plan = plan_group(sample("v1-container"), "g", limits=Limits(pids=1), devices=False)
    assert [directory.controllers for directory in plan.dirs] == [("pids",)]


def test_devices_need_v1_devices_or_cgroup2(sample: Sample) -> None:
    with pytest.raises(UnsupportedError) as caught:
        plan_group(sample("v1-container"), "g", limits=Limits(), devices=True)
    assert caught.value.guarantee == "dev.no-disk"
    plan = plan_group(_v2(), "g", limits=Limits(), devices=True)
    assert plan.dir_of("devices") is None
    assert plan.unified is not None


def test_v2_without_a_controller_stands_below_and_moves_nobody() -> None:
    plan = plan_group(_v2(foreign=(9,)), "g", limits=Limits(), devices=True)
    assert _paths(plan) == [f"{SCOPE}/g"]
    assert plan.enable == () and plan.leaf == "" and plan.own_pids == ()


def test_v2_moves_our_own_processes_to_a_leaf_when_nobody_else_is_there() -> None:
    plan = plan_group(_v2(), "g", limits=ALL, devices=False)
    assert _paths(plan) == [f"{SCOPE}/g"]
    assert plan.leaf == f"{SCOPE}/execdrv-self"
    assert plan.own_pids == (7,)
    assert plan.enable == ("/cg", "/cg/user.slice", SCOPE)
    assert plan.dirs[0].controllers == ("memory", "cpu", "pids")


def test_v2_stands_beside_a_group_that_others_share_if_it_has_no_limits() -> None:
    plan = plan_group(_v2(foreign=(9,)), "g", limits=ALL, devices=False)
    assert _paths(plan) == ["/cg/user.slice/g"]
    assert plan.leaf == ""
    assert plan.enable == ("/cg", "/cg/user.slice")


def test_v2_is_refused_where_the_container_would_escape_an_outer_limit() -> None:
    layout = _v2(foreign=(9,), finite=("memory.max=1048576",))
    with pytest.raises(UnsupportedError, match=r"memory\.max=1048576") as caught:
        plan_group(layout, "g", limits=ALL, devices=False)
    assert "systemd-run --scope -p Delegate=yes" in caught.value.hint
    # A limit of the own group is no reason where the container stands below it.
    below = _v2(finite=("memory.max=1048576",))
    assert plan_group(below, "g", limits=ALL, devices=False).leaf


def test_v2_is_refused_where_nothing_above_the_shared_group_is_visible() -> None:
    with pytest.raises(UnsupportedError, match="nothing above"):
        plan_group(_v2("/cg", foreign=(9,)), "g", limits=ALL, devices=False)


def test_v2_real_root_holds_groups_beside_processes() -> None:
    plan = plan_group(_v2("/cg", is_root=True, foreign=(9,)), "g", limits=ALL, devices=False)
    assert _paths(plan) == ["/cg/g"]
    assert plan.leaf == ""
    assert plan.enable == ("/cg",)


def test_v2_uses_the_leaf_that_an_earlier_container_made() -> None:
    plan = plan_group(_v2(f"{SCOPE}/execdrv-self", foreign=(9,)), "g", limits=ALL, devices=False)
    assert _paths(plan) == [f"{SCOPE}/g"]
    assert plan.leaf == f"{SCOPE}/execdrv-self"
    assert plan.enable[-1] == SCOPE


def test_v2_refuses_a_threaded_group() -> None:
    with pytest.raises(UnsupportedError, match="threaded"):
        plan_group(_v2(threaded=True), "g", limits=ALL, devices=False)


def test_v2_refuses_a_controller_that_can_not_be_handed_down() -> None:
    layout = _v2(available=("pids",))
    with pytest.raises(UnsupportedError, match="'memory'") as caught:
        plan_group(layout, "g", limits=Limits(memory_bytes=1 << 20), devices=False)
    assert SCOPE in str(caught.value)
    assert plan_group(layout, "g", limits=Limits(pids=1), devices=False).dirs


def test_a_parent_stands_below_each_mountpoint(sample: Sample, tmp_path: Path) -> None:
    plan = plan_group(
        sample("hybrid"), "g", parent="jobs/mine", limits=Limits(memory_bytes=1), devices=False
    )
    top = f"{tmp_path}/sys/fs/cgroup"
    assert _paths(plan) == [f"{top}/unified/jobs/mine/g", f"{top}/memory/jobs/mine/g"]


def test_a_parent_on_v2_moves_nobody_and_is_enabled_from_the_top() -> None:
    plan = plan_group(_v2(foreign=(9,)), "g", parent="jobs", limits=ALL, devices=False)
    assert _paths(plan) == ["/cg/jobs/g"]
    assert plan.leaf == ""
    assert plan.enable == ("/cg", "/cg/jobs")


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "..",
        ".",
        "a/..",
        "../a",
        "a//b",
        "/a",
        "a/",
        "a\0b",
        "a\nb",
        "a/./b",
        "x" * 256,
        "\ud800",
    ],
)
def test_a_parent_that_is_no_path_below_is_refused(parent: str) -> None:
    with pytest.raises(SpecError) as caught:
        plan_group(_v2(), "g", parent=parent, limits=Limits(), devices=False)
    assert caught.value.field == "cgroup_parent"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\n", "a\0"])
def test_a_name_that_is_no_component_is_refused(name: str) -> None:
    with pytest.raises(SpecError):
        plan_group(_v2(), name, limits=Limits(), devices=False)


def test_planning_makes_nothing(sample: Sample, tmp_path: Path) -> None:
    plan_group(sample("hybrid"), "g", limits=ALL, devices=True)
    assert list(tmp_path.iterdir()) == []
