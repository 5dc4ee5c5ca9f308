"""`sweep` removes what dead runs have left, and nothing that lives or is not the kit's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from execdrv_conformance import kernel
from execdrv_conformance import sweep as module
from execdrv_conformance.standin.key import USER_RING, list_keys, remove_keys
from execdrv_conformance.store import (
    find_run,
    hold_run,
    make_run_directory,
    name_run,
    release_run,
    remove_run_directory,
)
from execdrv_conformance.sweep import Swept, find_traces, is_held, is_of, sweep

#: Above /proc/sys/kernel/pid_max: nobody has it.
NOBODY = 2**30


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary directory and a tree of groups of a made-up machine."""
    monkeypatch.setattr(module, "YOUNG_S", -1.0)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "groups").mkdir()
    return tmp_path


def run_it(place: Path, **options: bool) -> Swept:
    return sweep(temporary=str(place / "tmp"), hierarchies=[str(place / "groups")], **options)


def make(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_what_a_dead_run_has_left_is_removed(place: Path) -> None:
    directory = make(place / f"tmp/xdc-zdead/xdc-zdead-{NOBODY}-1").parent
    (directory / "result-pid.ns.json").write_text("{}")
    group = make(place / f"groups/user/xdc-zdead-{NOBODY}-1/below/deeper").parent.parent
    swept = run_it(place)
    assert sorted(swept.removed) == sorted([str(directory), str(group)])
    assert not directory.exists() and not group.exists()
    assert (place / "groups/user").is_dir()
    assert run_it(place) == Swept()


def test_a_dry_run_changes_nothing(place: Path) -> None:
    directory, group = make(place / "tmp/xdc-zdead"), make(place / f"groups/xdc-z-{NOBODY}-1")
    assert len(run_it(place, dry_run=True).removed) == 2
    assert directory.is_dir() and group.is_dir()


def test_what_is_not_the_kits_is_not_looked_at(place: Path) -> None:
    for name in ("execdrv", "xdb-1", "xdcx", "a-xdc-b"):
        make(place / "tmp" / name)
        make(place / "groups" / name)
    (place / "tmp/xdc-file").write_text("")
    elsewhere = make(place / "elsewhere")
    (elsewhere / "kept").write_text("")
    (place / "tmp/xdc-link").symlink_to(elsewhere)
    inside = make(place / "tmp/xdc-zdead2")
    (inside / "link").symlink_to(elsewhere)
    assert run_it(place).removed == [str(inside)]
    assert (elsewhere / "kept").exists()
    assert (place / "tmp/xdc-link").is_symlink() and (place / "tmp/xdc-file").exists()


def test_a_run_that_is_held_lives(place: Path) -> None:
    directory = make(place / "tmp/xdc-zheld")
    group = make(place / f"groups/xdc-zheld-{NOBODY}-1")
    hold_run(directory)
    try:
        assert is_held(str(directory))
        swept = run_it(place)
        assert swept.removed == [] and set(swept.alive) == {str(directory), str(group)}
    finally:
        release_run(directory)
    assert not is_held(str(directory))
    assert len(run_it(place).removed) == 2


def test_a_run_whose_process_is_there_lives(place: Path) -> None:
    directory = make(place / f"tmp/xdc-zpid/xdc-zpid-{os.getpid()}-1").parent
    group = make(place / f"groups/xdc-other-{os.getpid()}-2")
    assert set(run_it(place).alive) == {str(directory), str(group)}


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process with the name of a run in its arguments, as a stand-in host has it."""
    words = [sys.executable, "-c", "import time; time.sleep(60)", "/tmp/xdc-znamed/xdc-znamed-1"]
    process = subprocess.Popen(words)
    # Popen is back once execve has closed its pipe, which is before the words can be read.
    while words[-1].encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
        time.sleep(0.001)
    yield process
    process.kill()
    process.wait()


def test_a_run_that_a_process_names_lives(place: Path, sleeper: subprocess.Popen[bytes]) -> None:
    directory = make(place / "tmp/xdc-znamed")
    assert run_it(place).alive == [str(directory)]
    assert any(f"process {sleeper.pid}" in line for line in find_traces("xdc-znamed"))


def test_a_young_directory_is_left_to_its_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "YOUNG_S", 60.0)
    directory = make(place / "tmp/xdc-zyoung")
    assert run_it(place).alive == [str(directory)]


def test_processes_of_an_unknown_run_are_not_ended(place: Path) -> None:
    group = make(place / f"groups/xdc-zwho-{NOBODY}-1")
    (group / "cgroup.procs").write_text(f"{NOBODY}\n")
    swept = run_it(place)
    assert swept.removed == [] and "processes" in swept.left[0]


def test_a_run_leaves_no_trace_by_its_name() -> None:
    assert find_traces("xdc-znever") == []


@pytest.mark.parametrize("name", ["", "xdc-", "run", "/"])
def test_a_name_that_is_not_one_runs_means_nothing(name: str) -> None:
    assert not is_of("/sys/fs/cgroup/xdc-zother-1-1", name)
    with pytest.raises(ValueError, match="no name of a run"):
        find_traces(name)


# --- the lock ----------------------------------------------------------------------------------


def test_a_run_directory_is_held_from_its_first_moment() -> None:
    directory = make_run_directory()
    assert is_held(str(directory))
    remove_run_directory(directory)
    remove_run_directory(directory)
    assert not directory.exists()


def test_it_is_held_until_the_last_session_lets_go(tmp_path: Path) -> None:
    run = tmp_path / "xdc-z1"
    below = make(run / "driver-0")
    assert find_run(below) == run and find_run(tmp_path) == tmp_path
    hold_run(run)
    hold_run(below)
    release_run(below)
    assert is_held(str(run))
    release_run(run)
    assert not is_held(str(run))
    release_run(run)


def test_names_of_groups_begin_with_the_prefix(tmp_path: Path) -> None:
    assert name_run(Path("/tmp/xdc-abc")) == "xdc-abc"
    assert name_run(Path("/tmp/xdc-abc/driver-1")) == "xdc-abc-driver-1"
    assert name_run(Path("/tmp/mine")) == "xdc-mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the keys are in its keyring")
def test_keys_of_the_dead_are_removed_and_those_of_the_living_stay() -> None:
    dead, alive = f"xdc-z-{NOBODY}-1-word-u", f"xdc-z-{os.getpid()}-1-word-u"
    for name in (dead, alive):
        kernel.add_key("user", name, b"word", USER_RING)
    try:
        looked, swept = Swept(), Swept()
        module._sweep_keys(looked, [], {}, dry_run=True)
        assert f"key {dead}" in looked.removed
        assert list(list_keys(dead).values()) == [dead]
        module._sweep_keys(swept, [], {}, dry_run=False)
        assert f"key {dead}" in swept.removed and f"key {alive}" in swept.alive
        assert list_keys(dead) == {}
        assert list(list_keys(alive).values()) == [alive]
    finally:
        assert remove_keys(alive) == remove_keys(dead) == []
