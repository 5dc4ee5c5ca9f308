from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from execdrv.errors import CreateError, IsolationError
from execdrv.limits import Limits
from execdrv.linux.cgroups import (
    Group,
    GroupDir,
    GroupPlan,
    Layout,
    check_limits,
    make_group,
    open_group,
    plan_group,
)

EVERYTHING = Limits(memory_bytes=1 << 26, cpus=0.5, pids=16)


def _plan(layout: Layout, name: str) -> GroupPlan:
    limits = Limits() if check_limits(layout, EVERYTHING) else EVERYTHING
    return plan_group(layout, name, limits=limits, devices=layout.v1("devices") is not None)


def test_make_makes_every_planned_directory_and_nothing_else(
    make: Any, machine: Layout, kit: SimpleNamespace
) -> None:
    old = os.umask(0o022)
    try:
        group = make(Limits())
    finally:
        os.umask(old)
    paths = [directory.path for directory in group.plan.dirs]
    assert paths
    assert sorted(kit.groups_named(machine, group.plan.name)) == sorted(paths)
    assert {stat.S_IMODE(os.stat(path).st_mode) for path in paths} == {0o755}


def test_make_adopts_no_group_that_is_there_already(make: Any, layout: Layout) -> None:
    group = make(Limits())
    with pytest.raises(CreateError) as caught:
        make_group(group.plan)
    assert caught.value.errno == errno.EEXIST
    assert repr(group.plan.dirs[0].path) in str(caught.value)
    assert all(os.path.isdir(directory.path) for directory in group.plan.dirs)


def test_make_leaves_nothing_when_one_directory_can_not_be_made(
    make: Any, layout: Layout, machine: Layout, kit: SimpleNamespace
) -> None:
    plan = _plan(layout, make.name())
    foreign = plan.dirs[-1].path
    os.mkdir(foreign)
    try:
        with pytest.raises(CreateError):
            make_group(plan)
        assert kit.groups_named(machine, plan.name) == [foreign]
    finally:
        os.rmdir(foreign)


def test_make_names_the_path_whose_parent_is_missing(make: Any, layout: Layout) -> None:
    plan = plan_group(layout, make.name(), parent="no-such-group", limits=Limits(), devices=False)
    with pytest.raises(CreateError, match="no-such-group") as caught:
        make_group(plan)
    assert caught.value.errno == errno.ENOENT


def test_a_parent_is_used_in_every_hierarchy_and_stays(
    make: Any, layout: Layout, machine: Layout, kit: SimpleNamespace
) -> None:
    limits = EVERYTHING if not check_limits(layout, EVERYTHING) else Limits()
    parent = make.prefix + "-parent"
    plan = plan_group(layout, make.name(), parent=parent, limits=limits, devices=False)
    parents = [os.path.dirname(directory.path) for directory in plan.dirs]
    assert {os.path.basename(path) for path in parents} == {parent}
    try:
        for path in parents:
            os.mkdir(path)
        assert check_limits(layout, limits, parent=parent) == []
        group = make(limits, parent=parent)
        assert sorted(kit.groups_named(machine, plan.name)) == sorted(
            directory.path for directory in plan.dirs
        )
        assert group.remove() == []
        assert all(os.path.isdir(path) for path in parents)
    finally:
        for path in parents:
            os.rmdir(path)


def test_a_child_enters_every_hierarchy_before_it_executes(
    make: Any, layout: Layout, kit: SimpleNamespace
) -> None:
    group = make(Limits() if check_limits(layout, EVERYTHING) else EVERYTHING)
    pid = kit.spawn(group, "sleep", "60")
    kit.wait_until(lambda: group.processes() == [pid])
    for directory in group.plan.dirs:
        with open(directory.job + "/cgroup.procs") as stream:
            assert stream.read().split() == [str(pid)]
    group.kill()
    assert kit.wait_status(pid) == -9


def test_a_process_can_enter_every_hierarchy_that_there_is(
    make: Any, layout: Layout, kit: SimpleNamespace
) -> None:
    # cpuset among them, which takes no process before it has processors.
    group = make(Limits(), everywhere=True)
    assert len(group.plan.dirs) == len(layout.hierarchies)
    pid = kit.spawn(group, "sleep", "60")
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    entered = [line for line in lines if line.endswith(f"/{group.plan.name}/job")]
    assert len(entered) == len(layout.hierarchies)
    group.kill()
    assert kit.wait_status(pid) == -9


def test_the_descriptors_are_closed_on_exec(make: Any) -> None:
    descriptors = make(Limits()).procs_fds()
    assert descriptors
    assert not any(os.get_inheritable(descriptor) for descriptor in descriptors)
    for descriptor in descriptors:
        os.close(descriptor)


def test_descriptors_of_a_group_that_is_partly_gone_are_an_error_and_none_stays_open(
    make: Any, layout: Layout
) -> None:
    group = make(EVERYTHING if not check_limits(layout, EVERYTHING) else Limits())
    os.rmdir(group.plan.dirs[-1].job)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(IsolationError):
        group.procs_fds()
    assert len(os.listdir("/proc/self/fd")) == before


def test_add_moves_a_running_process(make: Any, kit: SimpleNamespace) -> None:
    outside = Group(plan=GroupPlan(name="none"))
    pid = kit.spawn(outside, "sleep", "60")
    group = make(Limits())
    group.add(pid)
    assert group.processes() == [pid]
    group.kill()
    assert kit.wait_status(pid) == -9


def test_add_of_a_process_that_is_gone_is_an_error(make: Any, kit: SimpleNamespace) -> None:
    pid = kit.spawn(Group(plan=GroupPlan(name="none")), "true")
    kit.wait_status(pid)
    with pytest.raises(IsolationError, match=str(pid)):
        make(Limits()).add(pid)


def test_a_plan_alone_opens_the_group_again(make: Any, kit: SimpleNamespace) -> None:
    group = make(Limits())
    pid = kit.spawn(group, "sleep", "60")
    again = open_group(group.plan)
    kit.wait_until(lambda: again.processes() == [pid])
    assert again.remove() == []
    assert kit.wait_status(pid) == -9


def test_an_empty_plan_is_a_group_that_does_nothing() -> None:
    group = make_group(GroupPlan(name="g"))
    assert group.procs_fds() == [] and group.processes() == [] and group.remove() == []
    group.kill()
    assert group.stats().cpu_usage_us is None


def test_two_hundred_groups_leave_no_directory_and_no_descriptor(
    make: Any, layout: Layout, machine: Layout, kit: SimpleNamespace
) -> None:
    limits = EVERYTHING if not check_limits(layout, EVERYTHING) else Limits()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        group = make(limits)
        pid = kit.spawn(group, "true")
        assert kit.wait_status(pid) == 0
        assert group.remove() == []
        make.made.clear()
    assert kit.groups_named(machine, make.prefix) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_plan_is_plain_data() -> None:
    plan = GroupPlan(
        name="g", dirs=(GroupDir(path="/a", version=1, controllers=("cpu",)),), own_pids=(1,)
    )
    assert GroupPlan(name="g", dirs=tuple(plan.dirs), own_pids=(1,)) == plan
