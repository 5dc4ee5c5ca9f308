"""A distribution outside the tree brings a driver and a wrapper; both work, and neither needs a
change here. Its sources are in tests/outside; docs/writing-a-driver.md shows the driver."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

OUTSIDE = Path(__file__).parent / "outside"

Run = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("busybox") is None, reason="needs busybox-static"),
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution, built and installed into a directory of its own."""
    source = tmp_path_factory.mktemp("outside") / "source"
    shutil.copytree(OUTSIDE, source)
    target = source.parent / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    options = ["--no-build-isolation", "--disable-pip-version-check", "--target", str(target)]
    subprocess.run([*command, *options, str(source)], check=True, timeout=120)
    return target


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Run:
    """run(words...): the execdrv command, which finds the installed distribution."""
    root = tmp_path / "R"
    for name in ("bin", "proc", "dev", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", root / "bin/sh")
    path = os.pathsep.join([str(installed), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "EXECDRV_ROOT": str(tmp_path / "state"),
        "SAMPLE_JOURNAL": str(tmp_path / "journal"),
    }

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "execdrv", *words]
        argv = [str(root) if word == "ROOT" else word for word in argv]
        return subprocess.run(
            argv, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    return call


@pytest.mark.skipif(not os.access("/usr/bin/bwrap", os.X_OK), reason="needs bubblewrap")
def test_the_driver_works(run: Run, tmp_path: Path) -> None:
    words = ("run", "--driver=bwrap", "--rootfs", "ROOT", "--memory", "64M")
    program = "echo $$; read x < /proc/sys/kernel/hostname; echo $x; exit 5"
    result = run(*words, "--hostname", "outside", "--", "sh", "-c", program)
    assert (result.returncode, result.stdout.split()) == (5, ["2", "outside"]), result
    refused = run(*words, "--read-only", "--", "sh")
    assert refused.returncode == 125
    assert "'bwrap' does not offer fs.ro-root" in refused.stderr


def test_the_wrapper_works_around_every_driver(run: Run, tmp_path: Path) -> None:
    job = ("--driver=chroot", "--rootfs", "ROOT", "--", "sh", "-c", ":")
    result = run("run", "--name", "job", *job)
    assert result.returncode == 0, result
    lines = (tmp_path / "journal").read_text().splitlines()
    assert lines == ["starting job", "started job", "destroyed job"]
    (tmp_path / "journal").unlink()
    assert run("run", "--no-plugins", *job).returncode == 0
    assert not (tmp_path / "journal").exists()


def test_both_are_listed(run: Run) -> None:
    result = run("drivers")
    assert "bwrap" in result.stdout
    assert "execdrv-sample 0.3" in result.stdout


def test_the_driver_is_short() -> None:
    """The contract asks little: the class fits on a page."""
    tree = ast.parse((OUTSIDE / "sample_plugin/driver.py").read_text())
    (cls,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.bases]
    assert cls.end_lineno is not None
    assert cls.end_lineno - cls.lineno < 60
