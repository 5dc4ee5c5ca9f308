"""The native driver, ready to run commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from driver_boxes import Boxes, boxes_of

from execdrv_native import NativeDriver


@pytest.fixture
def boxes(tmp_path: Path, rootfs: Path) -> Boxes:
    """The native driver on a tiny root; skips where it can't work at all."""
    return boxes_of(NativeDriver, rootfs=rootfs, scratch=tmp_path)
