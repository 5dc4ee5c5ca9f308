"""The command as its users run it: a process of its own, with its own state and cache.

What is tested is the installed execdrv where there is one, else the tree: then a made-up
distribution on PYTHONPATH names the built-in drivers, as an installation would.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from execdrv.plugins import OWN_DISTRIBUTION, list_entry_points
from execdrv.rootfs import make_root
from execdrv.version import VERSION

TREE = Path(__file__).resolve().parents[3]
#: The most that one command may take here; the machine may be busy.
TIMEOUT_S = 50.0
#: How a line begins that only a slow machine sees.
PROGRESS = "execdrv: making a root file system: "


def write_distribution(site: Path, name: str, version: str, points: dict[str, str]) -> None:
    """The metadata of an installed distribution, as far as execdrv reads it."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = [f"{point} = {value}" for point, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[execdrv]", *lines, ""]))


class CommandLine:
    """Runs `execdrv`; `state` and `site` belong to one test."""

    def __init__(self, tmp_path: Path, cache: Path, builtin: Path | None) -> None:
        self.state = tmp_path / "state"
        self.site = tmp_path / "site"
        self.site.mkdir()
        path = [self.site, *([builtin] if builtin else []), *map(Path, sys.path)]
        self.env = {
            **{name: value for name, value in os.environ.items() if name[:8] != "EXECDRV_"},
            "EXECDRV_ROOT": str(self.state),
            "EXECDRV_CACHE": str(cache),
            "PYTHONPATH": os.pathsep.join(str(entry) for entry in path if str(entry) != "."),
        }
        self._started: list[subprocess.Popen[bytes]] = []

    def run(self, *words: Any, **keywords: Any) -> subprocess.CompletedProcess[bytes]:
        """One command to its end; its output is in the result."""
        keywords = {"stdin": subprocess.DEVNULL, "capture_output": True, **keywords}
        if "stdout" in keywords or "stderr" in keywords:
            del keywords["capture_output"]
        env = {**self.env, **keywords.pop("env", {})}
        command = [sys.executable, "-m", "execdrv", *words]
        return subprocess.run(command, env=env, timeout=TIMEOUT_S, check=False, **keywords)

    def start(self, *words: Any, **keywords: Any) -> subprocess.Popen[bytes]:
        """One command in the background; ended with the test."""
        keywords = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            **keywords,
        }
        env = {**self.env, **keywords.pop("env", {})}
        process = subprocess.Popen([sys.executable, "-m", "execdrv", *words], env=env, **keywords)
        self._started.append(process)
        return process

    def start_ready(self, *options: Any, script: str, **keywords: Any) -> subprocess.Popen[bytes]:
        """`run` with a shell script that says `ready` when it is so."""
        process = self.start("run", *options, "--", "sh", "-c", script, **keywords)
        assert process.stdout is not None
        line = process.stdout.readline()
        if line != b"ready\n":
            _, error = process.communicate(timeout=TIMEOUT_S)
            pytest.fail(f"the job is not ready: {line!r}, {error!r}")
        return process

    def add_plugin(
        self, name: str, source: str, *, distribution: str | None = None, module: str | None = None
    ) -> None:
        """Install a distribution with one module, whose `plugin` is the entry point `name`."""
        module = module or f"plugin_of_{name}"
        (self.site / f"{module}.py").write_text(source)
        write_distribution(
            self.site, distribution or f"{name}_dist", "1.5", {name: f"{module}:plugin"}
        )

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=TIMEOUT_S)


@pytest.fixture(scope="session")
def builtin_distribution(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """Metadata of execdrv itself, where it is not installed."""
    if any(point.distribution == OWN_DISTRIBUTION for point in list_entry_points()):
        return None
    project = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]
    site = tmp_path_factory.mktemp("builtin")
    write_distribution(site, OWN_DISTRIBUTION, VERSION, project["entry-points"]["execdrv"])
    return site


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of root file systems for the whole session, with the default one made."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    path = tmp_path_factory.mktemp("cli") / "cache"
    path.mkdir(mode=0o755)
    # pytest's own directories are 0700: a job of another user must reach the root.
    for above in path.parents[:3]:
        above.chmod(above.stat().st_mode | 0o011)
    make_root(cache=str(path))
    return path


@pytest.fixture
def cli(tmp_path: Path, cache: Path, builtin_distribution: Path | None) -> Iterator[CommandLine]:
    """The command; afterwards nothing may be left in its state directory."""
    command = CommandLine(tmp_path, cache, builtin_distribution)
    yield command
    command.close()
    wait_until(lambda: not list_containers(command.state))


def list_containers(state: Path) -> list[str]:
    """What is in a state directory."""
    directory = state / "containers"
    return sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []


def wait_until(condition: Callable[[], object], *, timeout_s: float = 15.0) -> None:
    """Poll a condition; fails after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("the condition did not come true")
        time.sleep(0.01)


def error_lines(result: subprocess.CompletedProcess[bytes]) -> list[str]:
    """What execdrv said on stderr; fails on a traceback."""
    text = result.stderr.decode("utf-8", "surrogateescape")
    assert "Traceback" not in text, text
    lines = [line for line in text.split("\n") if line.startswith("execdrv: ")]
    return [line for line in lines if not line.startswith(PROGRESS)]


def one_error(result: subprocess.CompletedProcess[bytes], status: int, *words: str) -> str:
    """The one line on stderr; fails on another status, more lines, or a word that is missing."""
    assert result.returncode == status, (result.returncode, result.stdout, result.stderr)
    text = result.stderr.decode("utf-8", "surrogateescape")
    assert all(line.startswith("execdrv: ") for line in text.splitlines()), text
    (line,) = error_lines(result)
    for word in words:
        assert word in line, line
    return line


class Kit:
    """The functions above, for test files (they import no conftest)."""

    wait_until = staticmethod(wait_until)
    error_lines = staticmethod(error_lines)
    one_error = staticmethod(one_error)
    list_containers = staticmethod(list_containers)
    write_distribution = staticmethod(write_distribution)


@pytest.fixture
def kit() -> type[Kit]:
    """Functions for asserting."""
    return Kit
