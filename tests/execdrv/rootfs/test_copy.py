from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from execdrv.rootfs import copy
from execdrv.rootfs.copy import copy_file, write_plan
from execdrv.rootfs.plan import Copy, Directory, Entry, Link, Node, Plan, Text

Refusal = Callable[..., Any]


def plan_of(entries: dict[str, Entry]) -> Plan:
    return Plan(entries=entries, inputs=(), missing=())


def refuse(number: int) -> Refusal:
    def call(*_args: object, **_kwargs: object) -> int:
        raise OSError(number, os.strerror(number))

    return call


def stop(*_args: object, **_kwargs: object) -> int:
    return 0


@pytest.mark.parametrize("size", [0, 1, 4096, 3_000_001])
@pytest.mark.parametrize(
    "copy_range", [None, refuse(errno.EXDEV), refuse(errno.ENOSYS), refuse(errno.EINVAL), stop]
)
def test_a_copy_is_whole_whatever_the_file_system_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, copy_range: Refusal | None
) -> None:
    monkeypatch.setattr(copy, "_CHUNK_BYTES", 1_000_000)
    if copy_range is not None:
        monkeypatch.setattr(os, "copy_file_range", copy_range)
    content = os.urandom(size)
    (tmp_path / "source").write_bytes(content)
    os.utime(tmp_path / "source", ns=(1, 1_600_000_000_123_456_789))
    copy_file(str(tmp_path / "source"), str(tmp_path / "target"), mode=0o640)
    assert (tmp_path / "target").read_bytes() == content
    seen = (tmp_path / "target").stat()
    assert (seen.st_mode & 0o7777, seen.st_nlink) == (0o640, 1)
    assert seen.st_mtime_ns == 1_600_000_000_123_456_789


def test_a_failing_disk_is_not_taken_for_a_missing_feature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "copy_file_range", refuse(errno.ENOSPC))
    (tmp_path / "source").write_bytes(b"x")
    with pytest.raises(OSError, match="No space"):
        copy_file(str(tmp_path / "source"), str(tmp_path / "target"), mode=0o644)


def test_a_source_that_became_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "source")
    with pytest.raises(OSError, match="no regular file"):
        copy_file(str(tmp_path / "source"), str(tmp_path / "target"), mode=0o644)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_there_is_not_overwritten(tmp_path: Path, kind: str) -> None:
    (tmp_path / "source").write_bytes(b"new")
    (tmp_path / "canary").write_bytes(b"old")
    if kind == "link":
        (tmp_path / "target").symlink_to("canary")
    else:
        os.link(tmp_path / "canary", tmp_path / "target")
    with pytest.raises(FileExistsError):
        copy_file(str(tmp_path / "source"), str(tmp_path / "target"), mode=0o644)
    assert (tmp_path / "canary").read_bytes() == b"old"


def test_a_plan_is_written_as_it_says(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("s")
    top = tmp_path / "top"
    top.mkdir(mode=0o700)
    refused = write_plan(
        plan_of(
            {
                "a/deep/file": Copy(str(source), 0o755),
                "a": Directory(0o700),
                "link": Link("a/deep"),
                "text": Text("t"),
                "tmp": Directory(0o1777),
                "null": Node(1, 3),
            }
        ),
        str(top),
    )
    assert refused == ([] if os.geteuid() == 0 else ["/null"])
    modes = {p: os.lstat(top / p).st_mode & 0o7777 for p in (".", "a", "a/deep", "text", "tmp")}
    assert modes == {".": 0o755, "a": 0o700, "a/deep": 0o755, "text": 0o644, "tmp": 0o1777}
    assert (top / "link" / "file").read_text() == "s"
    assert (top / "text").read_text() == "t"


def test_nodes_that_may_not_be_made_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "mknod", refuse(errno.EPERM))
    assert write_plan(plan_of({"dev/null": Node(1, 3)}), str(tmp_path)) == ["/dev/null"]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """Planner.finish drops such entries; if one came through, it must fail, not write."""
    (tmp_path / "canary").mkdir()
    (tmp_path / "top").mkdir()
    entries: dict[str, Entry] = {"out": Link(str(tmp_path / "canary")), "out/file": Text("x")}
    with pytest.raises(OSError):
        write_plan(plan_of(entries), str(tmp_path / "top"))
    assert os.listdir(tmp_path / "canary") == []
