from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from execdrv.errors import LimitError, SpecError
from execdrv.limits import Limits
from execdrv.linux.cgroups import Layout, apply_limits, check_limits, devices_supported
from execdrv.linux.cgroups import check as check_module

Sample = Callable[[str], Layout]
ALL = Limits(memory_bytes=1 << 26, memory_swap_bytes=0, cpus=0.5, pids=16)


def test_check_lists_everything_that_is_missing_at_once(sample: Sample) -> None:
    found = check_limits(sample("none"), ALL, devices=True)
    assert [problem.guarantee for problem in found] == [  # type: ignore[attr-defined]
        "mem.limit-oom",
        "mem.swap",
        "cpu.quota",
        "pids.limit",
        "dev.no-disk",
    ]
    assert all(problem.reason for problem in found)  # type: ignore[attr-defined]


def test_check_finds_nothing_where_nothing_is_asked(sample: Sample) -> None:
    for name in ("none", "v1-container"):
        assert check_limits(sample(name), Limits()) == []


def test_check_of_this_machine_lets_pass_what_then_works(make: Any, layout: Layout) -> None:
    limits = Limits(memory_bytes=1 << 26, cpus=0.5, pids=16)
    problems = check_limits(layout, limits)
    if problems:
        pytest.skip(f"this machine lacks a controller: {problems[0]}")
    assert len(apply_limits(make(limits), limits)) == 3


def test_check_changes_nothing(layout: Layout, kit: SimpleNamespace) -> None:
    before = kit.groups_named(layout, "")
    check_limits(layout, ALL, devices=True)
    devices_supported(layout)
    mine = [path for path in kit.groups_named(layout, "") if path not in before]
    assert not [path for path in mine if os.path.basename(path) == "execdrv"]


def test_check_names_a_parent_that_does_not_exist(layout: Layout) -> None:
    (problem,) = check_limits(layout, Limits(), parent="no-such-group/here")
    assert isinstance(problem, SpecError)
    assert problem.field == "cgroup_parent"
    assert "mkdir -p" in problem.hint


def test_check_names_a_parent_that_is_no_path(layout: Layout) -> None:
    (problem,) = check_limits(layout, Limits(), parent="../x")
    assert problem.field == "cgroup_parent"  # type: ignore[attr-defined]


def test_check_sees_the_quota_above_that_v1_would_refuse(make: Any, layout: Layout) -> None:
    cpu = layout.v1("cpu")
    if cpu is None:
        pytest.skip("needs the v1 controller cpu; cgroup2 takes any quota below another")
    outer = make(Limits(cpus=0.5))
    apply_limits(outer, Limits(cpus=0.5))
    path = outer.plan.dir_of("cpu").path
    inside = attrs.evolve(
        layout,
        hierarchies=tuple(attrs.evolve(h, own=path) if h is cpu else h for h in layout.hierarchies),
    )
    (problem,) = check_limits(inside, Limits(cpus=0.6))
    assert problem.guarantee == "cpu.quota"  # type: ignore[attr-defined]
    assert path in str(problem)
    assert check_limits(inside, Limits(cpus=0.5)) == []
    # And it is true: the kernel refuses what was refused, and takes what was let pass.
    inner = make(Limits(cpus=0.5), layout=inside)
    apply_limits(inner, Limits(cpus=0.5))
    with pytest.raises(LimitError):
        apply_limits(inner, Limits(cpus=0.6))


def _fake_v1_memory(kit: SimpleNamespace, tmp_path: Path, *, memsw: bool) -> None:
    """A FAKE own group in the v1 memory hierarchy of the sample `hybrid`."""
    own = tmp_path / "sys/fs/cgroup/memory/outer/0539"
    kit.write_tree(own, {"memory.limit_in_bytes": "1\n"})
    if memsw:
        kit.write_tree(own, {"memory.memsw.limit_in_bytes": "1\n"})
    (tmp_path / "sys/fs/cgroup/unified").mkdir(parents=True)


def test_check_refuses_swap_that_is_not_counted(
    sample: Sample, kit: SimpleNamespace, tmp_path: Path
) -> None:
    _fake_v1_memory(kit, tmp_path, memsw=False)
    asked = Limits(memory_bytes=1 << 26, memory_swap_bytes=1 << 20)
    (problem,) = check_limits(sample("hybrid"), asked)
    assert problem.guarantee == "mem.swap"  # type: ignore[attr-defined]
    assert check_limits(sample("hybrid"), Limits(memory_bytes=1 << 26)) == []
    kit.write_tree(
        tmp_path / "sys/fs/cgroup/memory/outer/0539", {"memory.memsw.limit_in_bytes": "1\n"}
    )
    assert check_limits(sample("hybrid"), asked) == []


def test_check_refuses_v2_memory_where_swap_would_go_uncounted(
    sample: Sample, kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A FAKE v2 group without memory.swap.max.
    own = "user.slice/user-0.slice/session-3.scope"
    files = {
        "cgroup.controllers": "memory\n",
        "cgroup.subtree_control": "memory\n",
        "user.slice/cgroup.subtree_control": "memory\n",
        "user.slice/user-0.slice/cgroup.subtree_control": "memory\n",
        f"{own}/cgroup.subtree_control": "",
        f"{own}/cgroup.type": "domain\n",
        f"{own}/memory.max": "max\n",
    }
    kit.write_tree(tmp_path / "sys/fs/cgroup", files)
    asked = Limits(memory_bytes=1 << 26)
    monkeypatch.setattr(check_module, "swap_in_use", lambda: True)
    (problem,) = check_limits(sample("v2"), asked)
    assert problem.guarantee == "mem.limit-oom"  # type: ignore[attr-defined]
    monkeypatch.setattr(check_module, "swap_in_use", lambda: False)
    assert check_limits(sample("v2"), asked) == []
