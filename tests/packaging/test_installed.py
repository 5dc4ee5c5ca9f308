"""The product is tested, not the tree: under tox every package comes from the installed wheel."""

from __future__ import annotations

import os
import sys
from importlib.metadata import distribution, entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    "EXECDRV_TEST_INSTALLED" not in os.environ, reason="only tox installs a wheel to test"
)

PACKAGES = ("execdrv", "execdrv_native", "execdrv_lxc", "execdrv_chroot", "execdrv_conformance")


@pytest.mark.parametrize("package", PACKAGES)
def test_package_comes_from_the_environment_not_from_the_tree(package: str) -> None:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).is_relative_to(sys.prefix)


def test_execdrv_is_installed_once_and_brings_three_drivers() -> None:
    found = sorted((entry.name, entry.value) for entry in entry_points(group="execdrv"))
    assert found == [
        ("chroot", "execdrv_chroot:plugin"),
        ("lxc", "execdrv_lxc:plugin"),
        ("native", "execdrv_native:plugin"),
    ]


def test_installed_init_is_executable() -> None:
    init = distribution("execdrv").locate_file("execdrv/init/execdrv-init")
    assert os.access(str(init), os.X_OK)


def test_console_script_stands_beside_the_interpreter() -> None:
    assert os.access(Path(sys.executable).with_name("execdrv"), os.X_OK)
