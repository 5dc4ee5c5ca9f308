"""Looking at plugins in children: what is crashed, slow, noisy or in conflict harms nobody."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from execdrv.cli import survey as module
from execdrv.cli.survey import Found, survey
from execdrv.linux.procfs import list_children


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Install a plugin for this process: name, source, distribution."""
    monkeypatch.syspath_prepend(tmp_path)

    def add(name: str, source: str, distribution: str | None = None) -> None:
        target = f"surveyed_{distribution or name}"
        (tmp_path / f"{target}.py").write_text(source)
        info = tmp_path / f"{distribution or name}-2.1.dist-info"
        info.mkdir()
        (info / "entry_points.txt").write_text(f"[execdrv]\n{name} = {target}:plugin\n")

    return add


def find(name: str) -> Found:
    return next(found for found in survey() if found.name == name)


def test_a_driver_that_crashes_when_asked_is_shown_as_broken(install) -> None:  # type: ignore[no-untyped-def]
    install("crash", "import os; os.kill(os.getpid(), 11)\n")
    install("leave", "import os; os._exit(0)\n")
    install("bare", "raise RuntimeError('no')\n")
    for name, word in (("crash", "signal 11"), ("leave", "status 0"), ("bare", "RuntimeError: no")):
        found = find(name)
        assert found.broken and not found.is_driver
        assert word in (found.problem or "")
        assert found.providers == (f"{name} 2.1",)


def test_one_that_hangs_is_ended(install, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(module, "TIMEOUT_S", 1.0)
    install("hang", "import time; time.sleep(600)\n")
    before, started = list_children(os.getpid()), time.monotonic()
    assert "took too long" in (find("hang").problem or "")
    assert time.monotonic() - started < 20
    assert set(list_children(os.getpid())) <= set(before)


def test_a_plugin_with_wrappers_only_is_no_fault(install) -> None:  # type: ignore[no-untyped-def]
    install(
        "audit",
        "from execdrv.hookspecs import hookimpl\n"
        "class P:\n"
        "    @hookimpl(wrapper=True)\n"
        "    def execdrv_start(self, container): return (yield)\n"
        "plugin = P()\n"
        "print('noise')\n",
    )
    found = find("audit")
    assert (found.broken, found.is_driver, found.wraps) == (False, False, ("start",))


def test_two_providers_of_a_name_are_both_named(install) -> None:  # type: ignore[no-untyped-def]
    install("twice", "plugin = 1\n", "first")
    install("twice", "plugin = 1\n", "second")
    found = find("twice")
    assert found.broken
    assert set(found.providers) == {"first 2.1", "second 2.1"}
    assert "first 2.1" in (found.problem or "") and "second 2.1" in (found.problem or "")


def test_nothing_is_imported_in_this_process(install) -> None:  # type: ignore[no-untyped-def]
    import sys

    install("quiet", "plugin = object()\n")
    assert "no driver" in (find("quiet").problem or "")
    assert "surveyed_quiet" not in sys.modules
