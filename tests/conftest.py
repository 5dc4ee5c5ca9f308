"""For all tests: what a worker of a parallel run gets."""

from __future__ import annotations

import os
import signal

import pytest

from execdrv.linux import syscalls


def pytest_configure(config: pytest.Config) -> None:
    """Undo what the surroundings of a run may do to all tests.

    A shell starts its background jobs with SIGINT and SIGQUIT ignored; tests send these. Each xdist
    worker gets a mount namespace: tests compare mounts, and some make some.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    if hasattr(config, "workerinput") and os.geteuid() == 0:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(None, b"/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)


@pytest.fixture(scope="session", autouse=True)
def open_base_directory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let other users through to what a test opens to them; pytest makes these 0700."""
    base = tmp_path_factory.getbasetemp()
    for directory in (base, base.parent, base.parent.parent):
        if directory.stat().st_uid == os.geteuid() and directory.name.startswith(("py", "popen")):
            directory.chmod(0o755)
