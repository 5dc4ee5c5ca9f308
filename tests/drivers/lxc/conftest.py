"""The lxc driver, ready to run commands, and what is on the machine that liblxc might touch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from driver_boxes import Boxes, boxes_of

from execdrv_lxc import LxcDriver


@pytest.fixture
def boxes(tmp_path: Path, rootfs: Path) -> Boxes:
    """The lxc driver on a tiny root; skips where it can't work at all."""
    return boxes_of(LxcDriver, rootfs=rootfs, scratch=tmp_path)


@pytest.fixture
def liblxc() -> None:
    """Skips where the bindings are missing."""
    from execdrv_lxc import binding

    obstacle = binding.detect_obstacle()
    if obstacle is not None:
        pytest.skip(obstacle)


@pytest.fixture
def list_traces() -> Callable[[], set[str]]:
    """Where liblxc leaves things: its run directory, and the top of every cgroup hierarchy."""

    def look() -> set[str]:
        found = set()
        for top, _, files in os.walk("/run/lxc"):
            found |= {top, *(f"{top}/{name}" for name in files)}
        for hierarchy in os.scandir("/sys/fs/cgroup"):
            if hierarchy.is_dir(follow_symlinks=False):
                with os.scandir(hierarchy.path) as entries:
                    found |= {entry.path for entry in entries if entry.name.startswith("lxc")}
        return found

    return look
