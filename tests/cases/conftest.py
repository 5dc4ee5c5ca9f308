"""What every case has: a driver, a tiny root R, the command as a user runs it, and CLEAN.

CLEAN stands around each case without being asked for: whatever a case did, afterwards no process,
cgroup, mount, interface, state, lease or lock of it may be left, and this process, /dev/null and
the root file system are as before (see `snapshot`).
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from casekit import (
    LONG,
    REPEATED,
    RUN_MARK,
    Command,
    command_line,
    find_leftovers,
    snapshot,
    tree_hash,
)
from escapekit import inside, probes  # noqa: F401  (fixtures)

from execdrv import Host

DRIVERS = ("native", "lxc", "chroot")

if RUN_MARK not in sys.path:
    sys.path.append(RUN_MARK)

_ALLOC_C = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* alloc N: touch N MiB, exit 0 */
int main(int argc, char **argv) {
    size_t bytes = (size_t)atoi(argc > 1 ? argv[1] : "1") << 20;
    char *memory = malloc(bytes);
    if (!memory) return 9;
    for (size_t i = 0; i < bytes; i += 4096) memory[i] = 1;
    return 0;
}
"""


def _lxc_problem() -> str | None:
    from execdrv_lxc import plugin

    (driver,) = plugin.execdrv_drivers()
    return driver().availability()


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """Each case runs under all three drivers."""
    if request.param == "lxc" and (problem := _lxc_problem()) is not None:
        pytest.skip(f"driver lxc: {problem}")
    return str(request.param)


@pytest.fixture(scope="session")
def root_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """R: a static busybox with its applets, ALLOC, account files and device nodes."""
    busybox = shutil.which("busybox")
    if busybox is None or os.geteuid() != 0:
        pytest.skip("needs root and busybox-static")
    root = tmp_path_factory.mktemp("template") / "R"
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root", "usr/bin", "usr/local/bin"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy(busybox, root / "bin/busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    for applet in applets.stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    source = root.parent / "alloc.c"
    source.write_text(_ALLOC_C)
    subprocess.run(["gcc", "-O0", "-static", "-o", root / "bin/alloc", source], check=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    for name, minor in (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)):
        os.mknod(root / "dev" / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        (root / "dev" / name).chmod(0o666)
    os.mknod(root / "dev/tty", stat.S_IFCHR | 0o666, os.makedev(5, 0))
    (root / "dev/tty").chmod(0o666)
    return root


@pytest.fixture
def R(root_template: Path, tmp_path: Path) -> Path:
    """A copy of R of the case's own."""
    root = tmp_path / "R"
    subprocess.run(["cp", "-a", root_template, root], check=True)
    return root


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory of the case's own, for the command and the API."""
    path = tmp_path / "state"
    monkeypatch.setenv("EXECDRV_ROOT", str(path))
    return path


@pytest.fixture
def X(driver: str, R: Path, state: Path) -> Command:
    """`X(options..., "--", command...)`: run the command line to its end.

    Keywords: rootfs, driver, check_time_s (the most it may take), and those of subprocess.run.
    """

    def run(
        *words: Any, rootfs: Any = R, check_time_s: float = 30.0, **keywords: Any
    ) -> subprocess.CompletedProcess[bytes]:
        keywords.setdefault("stdin", subprocess.DEVNULL)
        if "stdout" not in keywords and "stderr" not in keywords:
            keywords["capture_output"] = True
        argv = command_line(keywords.pop("driver", driver), rootfs, *words)
        return subprocess.run(argv, timeout=check_time_s, check=False, **keywords)

    return run


@pytest.fixture
def host(state: Path) -> Iterator[Host]:
    """The Python API over the case's own state directory."""
    with Host(root=str(state)) as opened:
        yield opened


@pytest.fixture(autouse=True)
def CLEAN(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """Nothing is left of the case."""
    state = tmp_path / "state"
    before = snapshot(state)
    yield
    # The case's fixtures (its Host) have ended already: this one was set up first. What was killed
    # may take a moment to go.
    assert find_leftovers(before, state, timeout_s=3) == []


@pytest.fixture
def unchanged_root(R: Path) -> Iterator[None]:
    """The case may not change its root file system."""
    before = tree_hash(R)
    yield
    assert tree_hash(R) == before


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how often each repeating case was repeated."""
    if REPEATED:
        size = "full counts" if LONG else "CI size: a twentieth of the count, at least 10"
        terminalreporter.section(f"repeats ({size})")
        for line in REPEATED:
            terminalreporter.write_line(line)
