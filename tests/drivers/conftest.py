"""Brings tests/drivers/boxes.py to the drivers' tests, which are in no package.

The tests in this directory hold for every driver that makes namespaces and mounts: they run by
each of DRIVERS. A driver's own directory has a `boxes` of its own.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from execdrv_lxc import LxcDriver
from execdrv_native import NativeDriver

DRIVERS = (NativeDriver, LxcDriver)


def _load_boxes() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "driver_boxes", Path(__file__).with_name("boxes.py")
    )
    if spec is None or spec.loader is None:
        raise ImportError("boxes.py is missing")
    module = importlib.util.module_from_spec(spec)
    sys.modules["driver_boxes"] = module
    spec.loader.exec_module(module)
    return module


_boxes = _load_boxes()


@pytest.fixture
def need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A tiny root file system of the test's own."""
    made: Path = _boxes.make_rootfs(tmp_path / "rootfs")
    return made


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.name)
def boxes(request: pytest.FixtureRequest, tmp_path: Path, rootfs: Path) -> Any:
    """A driver on a tiny root; skips where it can't work at all."""
    return _boxes.boxes_of(request.param, rootfs=rootfs, scratch=tmp_path)


@pytest.fixture(scope="session")
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    program = tmp_path_factory.mktemp("probe") / "probe"
    source = Path(__file__).parent / "native/probe.c"
    subprocess.run(["gcc", "-Wall", "-Werror", "-static", "-o", program, source], check=True)
    return program


@pytest.fixture
def probe(_compiled: Path, rootfs: Path) -> str:
    """native/probe.c in the root: a program that tries what a job must not do."""
    shutil.copy(_compiled, rootfs / "bin/probe")
    os.chmod(rootfs / "bin/probe", 0o755)
    return "/bin/probe"
