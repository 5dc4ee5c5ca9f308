"""The lxc driver, ready to run commands, and what is on the machine that liblxc might touch."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from driver_boxes import Boxes

from execdrv_lxc import LxcDriver


@pytest.fixture
def boxes(tmp_path: Path, rootfs: Path) -> Boxes:
    """The lxc driver on a tiny root; skips where it can't work at all."""
    obstacle = LxcDriver().availability()
    if obstacle is not None:
        pytest.skip(obstacle)
    # Also for jobs of other users.
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(directory.stat().st_mode | 0o111)
    return Boxes(driver=LxcDriver, rootfs=rootfs, scratch=tmp_path)


@pytest.fixture(scope="session")
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    program = tmp_path_factory.mktemp("probe") / "probe"
    source = Path(__file__).parents[1] / "native/probe.c"
    subprocess.run(["gcc", "-Wall", "-Werror", "-static", "-o", program, source], check=True)
    return program


@pytest.fixture
def probe(_compiled: Path, rootfs: Path) -> str:
    """The native driver's probe.c in the root; see there."""
    shutil.copy(_compiled, rootfs / "bin/probe")
    os.chmod(rootfs / "bin/probe", 0o755)
    return "/bin/probe"


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
