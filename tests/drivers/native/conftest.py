"""The native driver, ready to run commands, and a program that tries what a job must not do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from driver_boxes import Boxes

from execdrv_native import NativeDriver


@pytest.fixture
def boxes(tmp_path: Path, rootfs: Path) -> Boxes:
    """The native driver on a tiny root; skips where it can't work at all."""
    obstacle = NativeDriver().availability()
    if obstacle is not None:
        pytest.skip(obstacle)
    # Also for jobs of other users.
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(directory.stat().st_mode | 0o111)
    return Boxes(driver=NativeDriver, rootfs=rootfs, scratch=tmp_path)


@pytest.fixture(scope="session")
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    program = tmp_path_factory.mktemp("probe") / "probe"
    source = Path(__file__).with_name("probe.c")
    subprocess.run(["gcc", "-Wall", "-Werror", "-static", "-o", program, source], check=True)
    return program


@pytest.fixture
def probe(_compiled: Path, rootfs: Path) -> str:
    """probe.c in the root; see there."""
    shutil.copy(_compiled, rootfs / "bin/probe")
    os.chmod(rootfs / "bin/probe", 0o755)
    return "/bin/probe"
