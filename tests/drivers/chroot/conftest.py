"""The chroot driver, ready to run commands, and programs that try what a job must not do."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import attrs
import pytest
from driver_boxes import Boxes

from execdrv_chroot import ChrootDriver

HERE = Path(__file__).parent
NUMBERS = itertools.count()


@attrs.define
class ChrootBoxes(Boxes):
    """As the host fills them in, the user of a container's own is in every box."""

    #: Nobody else on this machine has it.
    uid: int = 0

    def _spec(self, argv: Any, fields: dict[str, Any]) -> Any:
        return super()._spec(argv, {"user": f"{self.uid}:{self.uid}", **fields})


@pytest.fixture
def boxes(tmp_path: Path, rootfs: Path) -> ChrootBoxes:
    """The chroot driver on a tiny root; skips where it can't work at all."""
    obstacle = ChrootDriver().availability()
    if obstacle is not None:
        pytest.skip(obstacle)
    (rootfs / "tmp").chmod(0o1777)
    (rootfs / "bin/setsid").symlink_to("busybox")
    # A shell reads it for its background jobs.
    os.mknod(rootfs / "dev/null", 0o20666, os.makedev(1, 3))
    (rootfs / "dev/null").chmod(0o666)
    # Another test, in this process or beside it, has others.
    uid = 2_090_000_000 + (os.getpid() * 200 + next(NUMBERS)) % 40_000_000
    return ChrootBoxes(driver=ChrootDriver, rootfs=rootfs, scratch=tmp_path, uid=uid)


@pytest.fixture
def uid(boxes: ChrootBoxes) -> int:
    """The jobs' user, and the number of their group."""
    return boxes.uid


@pytest.fixture(scope="session")
def _programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    made = tmp_path_factory.mktemp("programs")
    sources = {
        "probe": HERE / "probe.c",
        "escape": HERE.parent / "native/probe.c",
        "stray": HERE.parents[1] / "execdrv/linux/stray.c",
    }
    for name, source in sources.items():
        command = ["gcc", "-Wall", "-Werror", "-O2", "-static", "-pthread"]
        subprocess.run([*command, "-o", made / name, source], check=True, timeout=120)
    return made


@pytest.fixture
def programs(_programs: Path, rootfs: Path) -> None:
    """In the root: /bin/probe (probe.c), /bin/escape (the native driver's), /bin/stray."""
    for program in _programs.iterdir():
        shutil.copy(program, rootfs / "bin")
