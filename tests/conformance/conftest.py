"""What tests of the kit share: one stand-in host for a file's short runs, and the kit's root."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from execdrv.driver import DriverRef
from execdrv.rootfs import make_root
from execdrv_conformance.session import Session
from execdrv_conformance.standin.handle import StandIn


@pytest.fixture(scope="session")
def kit_root() -> str:
    """The root file system with Python; made once a machine."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    return make_root(["python3"]).path


@pytest.fixture(scope="module")
def standin(kit_root: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """A stand-in host that the sessions of a module share."""
    directory = tmp_path_factory.mktemp("xdc")
    for path in (directory, *directory.parents[:3]):
        # Jobs of other users pass through to their root; pytest makes its directories 0700.
        if "pytest" in str(path):
            path.chmod(0o755)
    made = StandIn(f"xdc-test-{os.getpid()}", directory=directory, root=kit_root)
    made.start()
    yield made
    made.close()
    assert made.problems == []


@pytest.fixture
def make_session(
    standin: StandIn, kit_root: str, tmp_path: Path
) -> Iterator[Callable[..., Session]]:
    """Sessions in the module's stand-in host, each with evidence of its own."""
    made: list[Session] = []

    def make(driver: str, *ids: str, **options: Any) -> Session:
        directory = tmp_path / f"run-{len(made)}"
        directory.mkdir()
        session = Session(
            DriverRef(target=driver),
            ids=ids,
            seed=options.pop("seed", 7),
            directory=directory,
            root=kit_root,
            standin=standin,
            **options,
        )
        made.append(session)
        return session

    yield make
    for session in made:
        session.close()
