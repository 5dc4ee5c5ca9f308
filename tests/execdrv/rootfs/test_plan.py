from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from execdrv.errors import SpecError
from execdrv.rootfs import plan
from execdrv.rootfs.plan import Copy, Directory, Link, Planner, Text


@pytest.fixture
def planner(monkeypatch: pytest.MonkeyPatch) -> Planner:
    monkeypatch.setattr(plan, "detect_merged", lambda: plan.MERGED)
    return Planner()


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/bin/sh", "usr/bin/sh"),
        ("/lib64/ld.so", "usr/lib64/ld.so"),
        ("/lib/x/../y.so", "usr/lib/y.so"),
        ("/usr/bin/sh", "usr/bin/sh"),
        ("/binary", "binary"),
        ("/opt/lib/x", "opt/lib/x"),
        ("/bin", "usr/bin"),
    ],
)
def test_everything_goes_to_the_merged_usr(planner: Planner, path: str, place: str) -> None:
    assert planner.destination(path) == place


def test_further_merges_of_a_machine_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    merged = (*plan.MERGED, ("usr/sbin", "usr/bin"))
    monkeypatch.setattr(plan, "detect_merged", lambda: merged)
    planner = Planner()
    assert planner.destination("/sbin/ip") == planner.destination("/usr/sbin/ip") == "usr/bin/ip"
    assert planner.entries["usr/sbin"] == Link("bin")


def test_a_moved_directory_takes_all_below_it(planner: Planner) -> None:
    planner.move("/home/me/py", "opt/py")
    assert planner.destination("/home/me/py/bin/python3") == "opt/py/bin/python3"
    assert planner.destination("/home/me/python") == "home/me/python"


def test_links_on_the_machine_lead_straight_to_the_copy(planner: Planner, tmp_path: Path) -> None:
    (tmp_path / "real").write_text("x")
    (tmp_path / "alternatives").symlink_to(tmp_path / "real")
    (tmp_path / "name").symlink_to(tmp_path / "alternatives")
    planner.add_file(str(tmp_path / "name"))
    below = str(tmp_path).strip("/")
    assert planner.entries[f"{below}/name"] == Link("real")
    assert planner.entries[f"{below}/real"] == Copy(str(tmp_path / "real"), 0o644)
    assert f"{below}/alternatives" not in planner.entries


def test_a_directory_link_on_the_way_stays_walkable(planner: Planner, tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "lib.so").write_text("x")
    (tmp_path / "current").symlink_to("v1")
    planner.add_file(str(tmp_path / "current" / "lib.so"))
    below = str(tmp_path).strip("/")
    assert planner.entries[f"{below}/current/lib.so"] == Link("../v1/lib.so")


def test_names_of_one_hard_linked_file_share_a_copy(planner: Planner, tmp_path: Path) -> None:
    (tmp_path / "box").write_text("x")
    os.link(tmp_path / "box", tmp_path / "ls")
    for name in ("box", "ls"):
        planner.add_file(str(tmp_path / name))
    below = str(tmp_path).strip("/")
    assert planner.entries[f"{below}/ls"] == Link("box")


def test_the_first_of_two_stays(planner: Planner) -> None:
    planner.add("etc/passwd", Text("ours"))
    planner.add("etc/passwd", Text("theirs"))
    assert planner.finish().entries["etc/passwd"] == Text("ours")


def test_nothing_is_planned_below_a_link_or_file(planner: Planner) -> None:
    planner.add("opt/current", Link("/etc"))
    planner.add("opt/current/x/file", Text("x"))
    planner.add("opt/file", Text("x"))
    planner.add("opt/file/below", Text("x"))
    planner.add("bin/odd", Text("x"))
    places = set(planner.finish().entries)
    assert {"opt/current", "opt/file", "bin"} <= places
    assert places.isdisjoint({"opt/current/x/file", "opt/file/below", "bin/odd"})


def test_a_directory_is_copied_without_what_is_no_file(planner: Planner, tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "sub").mkdir(parents=True)
    (top / "sub").chmod(0o750)
    (top / "sub" / "file").write_text("x")
    (top / "self").symlink_to(".")
    (top / "abs").symlink_to("/etc/passwd")
    os.mkfifo(top / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(top / "socket"))
    files = planner.add_directory(str(top), keep=lambda path: path != "left")
    place = planner.destination(str(top))
    assert files == [str(top / "sub" / "file")]
    found = {k[len(place) :]: v for k, v in planner.entries.items() if k.startswith(place)}
    assert found == {
        "": Directory(0o755),
        "/sub": Directory(0o750),
        "/sub/file": Copy(str(top / "sub" / "file"), 0o644),
        "/self": Link("."),
        "/abs": Link("/etc/passwd"),
    }


def test_a_directory_of_another_file_system_is_left_out(planner: Planner) -> None:
    if os.stat("/dev/shm").st_dev == os.stat("/dev").st_dev:
        pytest.skip("/dev/shm is no mount of its own here")
    planner.add_directory("/dev", keep=lambda path: path.split("/")[0] in ("shm", "null"))
    assert "dev/shm" not in planner.entries and "dev/null" not in planner.entries


def test_what_nests_too_deep_is_refused(planner: Planner, tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(plan.DEPTH_LIMIT + 1):
        deep = deep / "d"
    deep.mkdir(parents=True)
    with pytest.raises(SpecError, match="deeper than") as caught:
        planner.add_directory(str(tmp_path), keep=lambda _path: True)
    assert (caught.value.field, caught.value.value) == ("with", str(tmp_path))


def test_compiled_files_are_copied_but_not_watched(planner: Planner, tmp_path: Path) -> None:
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "m.pyc").write_text("x")
    (tmp_path / "m.py").write_text("x")
    files = planner.add_directory(str(tmp_path), keep=lambda _path: True)
    assert len(files) == 2
    assert set(planner.finish().inputs) == {str(tmp_path), str(tmp_path / "m.py")}
