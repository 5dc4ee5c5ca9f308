"""What the escape cases share: probes, small static C programs, and how one runs inside.

Its fixtures are the cases' by their conftest. A probe prints lines of a key
and a value (tests/cases/probes/say.h); the root R holds nothing but a busybox to run it with.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import execdrv
from execdrv import Host
from execdrv.errors import ExecdrvError
from execdrv.offers import Status

SOURCES = Path(__file__).resolve().parent.parent / "cases/probes"

#: The job as root in its own view, and as an ordinary user.
USERS = ("0", "1000")

Probes = Callable[[str], Path]
Report = dict[str, str]
Inside = Callable[..., Report]


@pytest.fixture(scope="session")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Probes:
    """`probes(NAME)`: the path of a compiled probe; each is compiled once, when first asked for."""
    directory = tmp_path_factory.mktemp("probes")

    @functools.cache
    def compiled(name: str) -> Path:
        source = SOURCES / f"{name.removesuffix('.so')}.c"
        how = ["-shared", "-fPIC"] if name.endswith(".so") else ["-static"]
        argv = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", *how, "-o", directory / name, source]
        subprocess.run(argv, check=True)
        return directory / name

    return compiled


@pytest.fixture
def inside(host: Host, driver: str, R: Path, probes: Probes) -> Inside:
    """`inside(PROBE, ARGUMENT..., **fields of the spec)`: what the probe reports from the job."""

    def run(name: str, *words: str, **fields: Any) -> Report:
        command = install(probes, name, R)
        exit_ = host.run(driver, [command, *words], rootfs=R, capture=1 << 20, **fields)
        assert (exit_.code, exit_.stderr) == (0, b""), exit_
        return parse(exit_.stdout)

    return run


def install(probes: Probes, name: str, root: Path) -> str:
    """Put a probe into a root; returns its path there."""
    place = root / f"probe-{name}"
    if not place.exists():
        shutil.copy(probes(name), place)
    return f"/{place.name}"


def parse(output: bytes) -> Report:
    """A probe's lines by key; no key may stand twice."""
    pairs = [line.partition(" ") for line in os.fsdecode(output).splitlines()]
    report = {key: value for key, _, value in pairs}
    assert len(report) == len(pairs), output
    return report


def unprivileged(driver: str, user: str) -> str | None:
    """The user of a case that chroot resists with a uid other than 0 only (letter U).

    Where the others run as root, chroot has a uid of the container's own.
    """
    return None if driver == "chroot" and user == "0" else user


def offer(host: Host, driver: str, id: str) -> Status:
    """What a driver declares of a guarantee."""
    found = host.drivers()[driver]
    assert not isinstance(found, ExecdrvError)
    status = found.offers.status(id)
    assert status is not None
    return status


def assert_condition(host: Host, driver: str, id: str, condition: str) -> None:
    """That a driver promises a guarantee under this condition only."""
    status = offer(host, driver, id)
    assert (status.kind, status.condition) == ("when", condition), status


def file_place(path: Path | str) -> str:
    """Device and inode, as probes print them."""
    found = os.stat(path)
    return f"{found.st_dev}:{found.st_ino}"


@contextlib.contextmanager
def unchanged_programs() -> Iterator[None]:
    """The interpreter and all of execdrv are the same afterwards."""
    before = _hash_programs()
    yield
    assert _hash_programs() == before


def _hash_programs() -> dict[str, str]:
    paths = [Path(sys.executable).resolve()]
    assert execdrv.__file__ is not None
    package = Path(execdrv.__file__).parent
    paths += [path for path in package.rglob("*") if path.suffix in (".py", "")]
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()
    }


@contextlib.contextmanager
def flipping(probes: Probes, one: Path, other: Path) -> Iterator[None]:
    """A process that exchanges two names as fast as it can, until the block ends."""
    with subprocess.Popen(
        [probes("flip"), one, other], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as flipper:
        try:
            yield
        finally:
            output, _ = flipper.communicate(timeout=10)
        assert flipper.returncode == 0
        assert int(output) > 100, "nothing was exchanged meanwhile"


def try_run(host: Host, driver: str, argv: list[str], **fields: Any) -> bool:
    """Whether it ran; if it was refused, then as a failure of execdrv and with a reason."""
    try:
        exit_ = host.run(driver, argv, capture=1000, **fields)
    except ExecdrvError as error:
        assert error.exit_status == 125, error
        return False
    assert exit_.code == 0, exit_
    return True
