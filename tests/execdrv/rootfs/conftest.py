"""Roots that several tests look at are made once; tests that make their own use a tiny base."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from execdrv.rootfs import Root, make_root, recipe

Runner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("rootfs") / "cache")


@pytest.fixture(scope="session")
def base_root(shared_cache: str) -> Root:
    """The whole default root; tests only look at it."""
    return make_root(cache=shared_cache)


@pytest.fixture(scope="session")
def python_root(shared_cache: str) -> Root:
    return make_root(["python3"], cache=shared_cache)


@pytest.fixture
def tiny_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """A base of two programs, for tests of what happens around it."""
    monkeypatch.setattr(recipe, "CORE", {"dash": "sh", "coreutils": "cat"})
    monkeypatch.setattr(recipe, "OPTIONAL", {})
    monkeypatch.setattr(recipe, "LOCALE", "/nowhere")


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that no container mounts over and every user can reach (not so tmp_path)."""
    path = Path(tempfile.mkdtemp(prefix="execdrv-test-", dir="/var/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def run_in() -> Runner:
    """Run a program in a real chroot, with an empty environment: run_in(root, "/bin/sh", ...)."""
    if os.geteuid() != 0:
        pytest.skip("chroot(2) needs root")

    def run(root: str, *argv: str, uid: int = 0) -> subprocess.CompletedProcess[str]:
        def enter() -> None:
            os.chroot(root)
            os.chdir("/")
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)

        return subprocess.run(
            argv,
            preexec_fn=enter,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run
