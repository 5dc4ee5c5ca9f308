"""Brings tests/drivers/boxes.py to the drivers' tests, which are in no package."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest


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
