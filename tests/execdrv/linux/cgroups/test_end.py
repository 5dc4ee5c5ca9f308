from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from execdrv.errors import CleanupError
from execdrv.limits import Limits
from execdrv.linux.cgroups import Group, GroupDir, GroupPlan, Layout, control, end, open_group

#: Forks for ever, each child in a session of its own; the pids limit keeps it bounded.
STORM = """
import os
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        pass
"""
#: Four levels of forks: 16 processes that sleep.
TREE = "import os, time\nfor _ in range(4): os.fork()\ntime.sleep(60)"


def _sub_groups(group: Group, name: str) -> None:
    for directory in group.plan.dirs:
        os.mkdir(f"{directory.path}/{name}")


def _move(group: Group, pid: int, name: str) -> None:
    for directory in group.plan.dirs:
        Path(directory.path, name, "cgroup.procs").write_text(str(pid))


def test_kill_ends_a_fork_tree(make: Any, kit: SimpleNamespace) -> None:
    group = make(Limits())
    pid = kit.spawn_python(group, TREE)
    kit.wait_until(lambda: len(group.processes()) == 16)
    group.kill()
    assert group.processes() == []
    assert kit.wait_status(pid) == -9


def _bounded(make: Any, layout: Layout) -> Group:
    pids = layout.v1("pids")
    unified = layout.unified
    if pids is None and (unified is None or "pids" not in unified.controllers):
        pytest.skip("needs the controller pids, or the fork storm would not be bounded")
    group: Group = make(Limits(pids=24))
    for directory in group.plan.dirs:
        if os.path.exists(directory.path + "/pids.max"):
            Path(directory.path, "pids.max").write_text("24")
    return group


def test_kill_ends_a_fork_storm(make: Any, layout: Layout, kit: SimpleNamespace) -> None:
    group = _bounded(make, layout)
    pid = kit.spawn_python(group, STORM)
    kit.wait_until(lambda: len(group.processes()) > 20)
    group.kill()
    assert group.processes() == []
    assert kit.wait_status(pid) == -9


def test_kill_works_before_linux_5_14(
    make: Any, layout: Layout, kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def refuse(path: str, text: str) -> None:
        if path.endswith("/cgroup.kill"):
            raise FileNotFoundError(path)
        written.append((os.path.basename(path), text))
        write(path, text)

    write = control.write_control
    monkeypatch.setattr(end, "write_control", refuse)
    group = _bounded(make, layout)
    pid = kit.spawn_python(group, STORM)
    kit.wait_until(lambda: len(group.processes()) > 20)
    group.kill()
    assert group.processes() == []
    assert kit.wait_status(pid) == -9
    # A storm that is not held could outrun us on a machine with more processors.
    assert {("freezer.state", "FROZEN"), ("cgroup.freeze", "1")} & set(written)


def test_kill_reaches_groups_below(make: Any, kit: SimpleNamespace) -> None:
    group = make(Limits())
    pid = kit.spawn(group, "sleep", "60")
    _sub_groups(group, "inner")
    _move(group, pid, "inner")
    assert group.processes() == [pid]
    group.kill()
    assert kit.wait_status(pid) == -9
    assert group.remove() == []


def test_kill_ends_a_stopped_process(make: Any, kit: SimpleNamespace) -> None:
    group = make(Limits())
    pid = kit.spawn(group, "sleep", "60")
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    group.kill()
    assert kit.wait_status(pid) == -9


@pytest.mark.parametrize("where", ["", "inner"])
def test_kill_ends_a_frozen_group(make: Any, kit: SimpleNamespace, where: str) -> None:
    group = make(Limits())
    pid = kit.spawn_python(group, TREE)
    kit.wait_until(lambda: len(group.processes()) == 16)
    if where:
        _sub_groups(group, where)
        for member in group.processes():
            _move(group, member, where)
    freezers = [
        (f"{directory.path}/{where}/{name}", text)
        for directory in group.plan.dirs
        for name, text in (("freezer.state", "FROZEN"), ("cgroup.freeze", "1"))
        if os.path.exists(f"{directory.path}/{where}/{name}")
    ]
    assert freezers
    for path, text in freezers:
        Path(path).write_text(text)
    start = time.monotonic()
    group.kill()
    assert time.monotonic() - start < 3
    assert kit.wait_status(pid) == -9
    assert group.remove() == []


def test_kill_ends_what_is_in_some_hierarchies_only(
    make: Any, layout: Layout, kit: SimpleNamespace
) -> None:
    if layout.v1("pids") is None:
        pytest.skip("needs a v1 hierarchy besides another")
    group = make(Limits(pids=5))
    pid = kit.spawn(Group(plan=GroupPlan(name="none")), "sleep", "60")
    # As after a crash in the middle of `add`.
    Path(group.plan.dir_of("pids").path, "cgroup.procs").write_text(str(pid))
    group.kill()
    assert kit.wait_status(pid) == -9


def test_kill_never_touches_a_process_outside(make: Any, kit: SimpleNamespace) -> None:
    group = make(Limits())
    outside = kit.spawn(Group(plan=GroupPlan(name="none")), "sleep", "60")
    inside = kit.spawn(group, "sleep", "60")
    group.kill()
    assert kit.wait_status(inside) == -9
    assert os.waitpid(outside, os.WNOHANG) == (0, 0)
    os.kill(outside, signal.SIGKILL)
    kit.wait_status(outside)


def test_a_process_that_is_listed_no_more_is_never_hit(make: Any, kit: SimpleNamespace) -> None:
    # As if its pid had been given to somebody else between the list and the kill.
    group = make(Limits())
    outside = kit.spawn(Group(plan=GroupPlan(name="none")), "sleep", "60")
    end._kill_round(group.plan, [outside], time.monotonic() + 1)
    assert os.waitpid(outside, os.WNOHANG) == (0, 0)
    os.kill(outside, signal.SIGKILL)
    kit.wait_status(outside)


@pytest.mark.parametrize("version", [1, 2])
def test_kill_gives_up_in_time_and_names_what_is_left(
    kit: SimpleNamespace, tmp_path: Path, version: int
) -> None:
    # A FAKE directory, whose only process is out of reach and never ends.
    files = {"cgroup.procs": "0\n", "cgroup.kill": "", "cgroup.events": "populated 1\n"}
    kit.write_tree(tmp_path, files)
    group = open_group(GroupPlan(name="g", dirs=(GroupDir(path=str(tmp_path), version=version),)))
    start = time.monotonic()
    with pytest.raises(CleanupError) as caught:
        group.kill(timeout_s=0.2)
    assert 0.2 <= time.monotonic() - start < 2
    assert caught.value.leftovers == ["process 0"]


def test_remove_kills_what_is_left(make: Any, kit: SimpleNamespace) -> None:
    group = make(Limits())
    pid = kit.spawn_python(group, TREE)
    kit.wait_until(lambda: len(group.processes()) == 16)
    assert group.remove() == []
    assert kit.wait_status(pid) == -9
    assert not any(os.path.exists(directory.path) for directory in group.plan.dirs)


def test_remove_takes_the_groups_below_too(make: Any, kit: SimpleNamespace) -> None:
    group = make(Limits())
    for name in ("a", "a/b", "a/b/c", "d"):
        _sub_groups(group, name)
    pid = kit.spawn(group, "sleep", "60")
    _move(group, pid, "a/b/c")
    assert group.remove() == []
    assert kit.wait_status(pid) == -9


def test_remove_may_be_repeated(make: Any) -> None:
    group = make(Limits())
    assert group.remove() == []
    assert group.remove() == []


def test_remove_takes_a_group_that_is_partly_gone(make: Any) -> None:
    group = make(Limits())
    os.rmdir(group.plan.dirs[0].job)
    os.rmdir(group.plan.dirs[0].path)
    assert group.remove() == []


def _fake(tmp_path: Path) -> Group:
    """A FAKE group of one plain directory."""
    directory = GroupDir(path=str(tmp_path / "g"), version=1)
    return open_group(GroupPlan(name="g", dirs=(directory,)))


def test_remove_reports_what_it_could_not_remove_in_time(tmp_path: Path) -> None:
    # A FAKE tree: rmdir fails here for the plain file, as it does for a group in use.
    (tmp_path / "g/inner").mkdir(parents=True)
    (tmp_path / "g/inner/file").write_text("")
    start = time.monotonic()
    assert _fake(tmp_path).remove(timeout_s=0.2) == [
        str(tmp_path / "g/inner"),
        str(tmp_path / "g"),
    ]
    assert time.monotonic() - start < 2


def test_remove_follows_no_link(tmp_path: Path) -> None:
    # A FAKE tree; no cgroup file system has links.
    (tmp_path / "other/inner").mkdir(parents=True)
    (tmp_path / "g").mkdir()
    (tmp_path / "g/link").symlink_to(tmp_path / "other")
    assert _fake(tmp_path).remove(timeout_s=0.05) == [str(tmp_path / "g")]
    (tmp_path / "g/link").unlink()
    (tmp_path / "g").rmdir()
    (tmp_path / "g").symlink_to(tmp_path / "other")
    assert _fake(tmp_path).remove(timeout_s=0.05) == [str(tmp_path / "g")]
    assert (tmp_path / "other/inner").is_dir()


def test_sub_groups_come_deepest_first(tmp_path: Path) -> None:
    # A FAKE tree.
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "d").mkdir()
    found = [os.path.relpath(path, tmp_path) for path in end.sub_groups(str(tmp_path))]
    assert found[:2] == ["a/b/c", "a/b"]
    assert sorted(found[2:]) == ["a", "d"]
    assert end.sub_groups(str(tmp_path / "missing")) == []
