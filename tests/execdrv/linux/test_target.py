"""The look at a plan's targets: it refuses what the mounting would, and changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from execdrv.linux.target import TargetProblem, find_problems
from execdrv.linux.view import plan_mounts
from execdrv.spec import Bind, Tmpfs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    for name in ("proc", "dev", "tmp", "etc", "a/b"):
        (path / name).mkdir(parents=True)
    (path / "etc/file").touch()
    return path


def problems(
    root: Path,
    *targets: str,
    own: bool = True,
    tmpfs: tuple[str, ...] = (),
    source: Path | None = None,
) -> list[TargetProblem]:
    """What stands against binds of a directory (by default an empty one) and tmpfs."""
    empty = root.parent / "empty"
    empty.mkdir(exist_ok=True)
    path = source or empty
    before = sorted(os.walk(root))
    fds = [os.open(path, os.O_PATH) for _ in targets]
    top = os.open(root, os.O_PATH)
    steps = plan_mounts(
        binds=[Bind(source=str(path), target=target) for target in targets],
        tmpfs=[Tmpfs(target=target) for target in tmpfs],
    )
    try:
        return find_problems(steps, root=top, sources=fds, root_is_own=own)
    finally:
        for fd in (*fds, top):
            os.close(fd)
        assert sorted(os.walk(root)) == before


@pytest.mark.parametrize(
    "targets",
    [
        ("/a",),
        ("/new",),
        ("/new/er/est", "/new/er/other"),
        ("/tmp",),
        ("/tmp/x/y",),
        ("/dev/shm",),
        ("/dev/shm/x",),
        ("/dev/new",),
        ("//a/./b/../b/",),
        ("/a/../etc",),
    ],
)
def test_targets_that_work_have_no_problem(root: Path, targets: tuple[str, ...]) -> None:
    assert problems(root, *targets) == []


def test_a_file_on_a_file_works(root: Path) -> None:
    source = root.parent / "source"
    source.touch()
    assert problems(root, "/etc/file", "/new/file", "/dev/null", source=source) == []


def test_absolute_and_climbing_links_lead_inside(root: Path) -> None:
    (root / "absolute").symlink_to("/etc")
    (root / "climbing").symlink_to("../../../../../etc")
    (root / "chain").symlink_to("absolute/../climbing")
    for target in ("/absolute", "/climbing", "/chain", "/chain/new/x"):
        assert problems(root, target) == [], target
    assert "two mounts" in problems(root, "/chain", "/etc")[0].message


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/", "the driver needs"),
        ("/a/..", "the driver needs"),
        ("/..", "the driver needs"),
        ("/dev", "the driver needs"),
        ("/proc", "the driver guards"),
        ("/proc/self", "the driver guards"),
        ("/proc/x/y", "the driver guards"),
        ("/to-proc", "the driver guards"),
        ("/dev/fd", "the driver guards"),
        ("/dev/stdin", "the driver guards"),
        ("/dev/pts", "the driver guards"),
        ("/dangling", "'dangling' is a symbolic link to nothing"),
        ("/dangling/x", "'dangling' is a symbolic link to nothing"),
        ("/loop", "too many symbolic links"),
        ("/etc/file", "it is not a directory"),
        ("/etc/file/x", "'file' is not a directory"),
        ("/dev/null", "it is not a directory"),
        ("/x/../y", "'..' follows"),
    ],
)
def test_targets_that_can_not_work_are_named_with_the_reason(
    root: Path, target: str, reason: str
) -> None:
    (root / "to-proc").symlink_to("/proc")
    (root / "dangling").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    (problem,) = problems(root, target)
    assert problem.message.startswith(f"cannot mount on {target!r}: ")
    assert reason in problem.message
    assert problem.field == "binds"


def test_nothing_is_missing_in_a_private_root_and_all_of_it_in_another(root: Path) -> None:
    for name in ("proc", "dev", "tmp"):
        (root / name).rmdir()
    assert problems(root, "/new") == []
    found = problems(root, "/new", own=False)
    assert [problem.field for problem in found] == ["rootfs"] * 3 + ["binds"]
    assert ["'/proc'" in found[0].message, "'/dev'" in found[1].message] == [True, True]
    assert "'/tmp'" in found[2].message


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_mount_points_of_another_kind_are_refused_under_every_root(
    root: Path, own: bool, kind: str
) -> None:
    (root / "tmp").rmdir()
    if kind == "link":
        (root / "tmp").symlink_to("etc")
    else:
        (root / "tmp").touch()
    (problem,) = problems(root, own=own)
    assert problem.message.startswith("cannot mount on '/tmp': it ")
    assert problem.field == "rootfs"


def test_inside_a_bind_nothing_can_be_made_and_what_is_there_counts(root: Path) -> None:
    source = root.parent / "source"
    (source / "deep").mkdir(parents=True)
    (source / "up").symlink_to("/etc")
    assert problems(root, "/a", "/a/deep", source=source) == []
    assert problems(root, "/a", "/a/up", source=source) == []
    (problem,) = problems(root, "/a", "/a/x/y", source=source)
    assert problem.message == "cannot mount on '/a/x/y': 'x' is missing"
    assert problem.hint == "make '/a/x/y' first"


def test_a_tmpfs_starts_empty_and_takes_new_mount_points(root: Path) -> None:
    # Without the tmpfs the file is in the way, and nothing can be made in this root.
    assert "'file' is not a directory" in problems(root, "/etc/file/x", own=False)[0].message
    assert problems(root, "/etc/file/x", "/etc/new/er", tmpfs=("/etc",), own=False) == []


def test_a_mount_that_would_hide_another_is_refused(root: Path) -> None:
    (root / "deep").symlink_to("a/b/")
    (root / "a/b/c").mkdir()
    (problem,) = problems(root, "/deep/c", "/a/b/../b")
    assert "it would hide the mount on '/a/b/c'" in problem.message


def test_all_problems_are_found_at_once(root: Path) -> None:
    found = problems(root, "/", "/proc", "/etc/file", tmpfs=("/dev",))
    assert [problem.field for problem in found] == ["binds", "tmpfs", "binds", "binds"]
