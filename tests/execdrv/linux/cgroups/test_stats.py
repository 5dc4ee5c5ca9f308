from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from execdrv.limits import Limits
from execdrv.linux.cgroups import (
    GroupDir,
    GroupPlan,
    GroupStats,
    Layout,
    apply_limits,
    check_limits,
    open_group,
)


def test_a_group_that_is_gone_has_no_numbers() -> None:
    directory = GroupDir(path="/no/such", version=1, controllers=("memory", "pids", "cpuacct"))
    assert open_group(GroupPlan(name="g", dirs=(directory,))).stats() == GroupStats()


def test_v1_oom_kills_of_groups_below_are_counted_too(
    make: Any, layout: Layout, kit: SimpleNamespace
) -> None:
    limits = Limits(memory_bytes=32 << 20)
    if layout.v1("memory") is None or check_limits(layout, limits):
        pytest.skip("needs the v1 controller memory")
    group = make(limits)
    apply_limits(group, limits)
    for directory in group.plan.dirs:
        os.makedirs(directory.path + "/inner/job")
    inner = open_group(
        GroupPlan(
            name="inner",
            dirs=tuple(
                GroupDir(path=d.path + "/inner", version=d.version, controllers=d.controllers)
                for d in group.plan.dirs
            ),
        )
    )
    for expected, victim in enumerate((group, inner, inner, group), start=1):
        pid = kit.spawn_python(victim, "x = b'x' * (100 << 20)")
        assert kit.wait_status(pid) == -9
        assert group.stats().oom_kills == expected


def test_processor_time_is_counted_with_a_cpu_limit(
    make: Any, layout: Layout, kit: SimpleNamespace
) -> None:
    if check_limits(layout, Limits(cpus=1)):
        pytest.skip("needs the controller cpu")
    group = make(Limits(cpus=1))
    assert (group.stats().cpu_usage_us or 0) == 0
    code = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    start = time.monotonic()
    assert kit.wait_status(kit.spawn_python(group, code)) == 0
    usage_us = group.stats().cpu_usage_us
    assert usage_us is not None
    assert 190_000 <= usage_us <= (time.monotonic() - start) * 1.1e6


def test_v2_numbers_are_read_from_their_files(kit: SimpleNamespace, tmp_path: Path) -> None:
    # A FAKE v2 directory.
    files = {
        "memory.events": "low 0\nhigh 0\nmax 7\noom 2\noom_kill 2\noom_group_kill 0\n",
        "memory.peak": "1048576\n",
        "cpu.stat": "usage_usec 12345\nuser_usec 1\nsystem_usec 2\n",
        "pids.peak": "5\n",
    }
    kit.write_tree(tmp_path, files)
    directory = GroupDir(path=str(tmp_path), version=2, controllers=("memory", "cpu", "pids"))
    stats = open_group(GroupPlan(name="g", dirs=(directory,))).stats()
    assert stats == GroupStats(
        oom_kills=2, memory_peak_bytes=1048576, cpu_usage_us=12345, pids_peak=5
    )
