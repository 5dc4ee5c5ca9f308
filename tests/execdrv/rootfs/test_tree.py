from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from execdrv.rootfs.tree import digest_tree, empty_directory, has_mount, list_tree, remove_tree

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "file").write_text("content")
    (top / "a" / "link").symlink_to("file")
    return top


def relink(link: Path) -> None:
    link.unlink()
    link.symlink_to("b")


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda top: (top / "a" / "file").write_text("Content"),
    "mode": lambda top: (top / "a" / "file").chmod(0o600),
    "directory mode": lambda top: (top / "a").chmod(0o700),
    "name": lambda top: (top / "a" / "file").rename(top / "a" / "file2"),
    "place": lambda top: (top / "a" / "file").rename(top / "a" / "b" / "file"),
    "new directory": lambda top: (top / "c").mkdir(),
    "new pipe": lambda top: os.mkfifo(top / "c"),
    "link": lambda top: relink(top / "a" / "link"),
    "hard link": lambda top: os.link(top / "a" / "file", top.parent / "outside"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_changes_the_digest(tree: Path, change: str) -> None:
    before = digest_tree(str(tree))
    assert digest_tree(str(tree)) == before
    CHANGES[change](tree)
    assert digest_tree(str(tree)) != before


@needs_root
def test_owner_device_and_file_capability_are_in_the_digest(tree: Path) -> None:
    digests = [digest_tree(str(tree))]
    os.mknod(tree / "node", 0o20666, os.makedev(1, 3))
    digests.append(digest_tree(str(tree)))
    os.unlink(tree / "node")
    os.mknod(tree / "node", 0o20666, os.makedev(1, 5))
    digests.append(digest_tree(str(tree)))
    os.chown(tree / "a" / "file", 1, 0)
    digests.append(digest_tree(str(tree)))
    # struct vfs_cap_data, version 2: CAP_NET_RAW permitted.
    value = b"\x00\x00\x00\x02" + b"\x00\x20\x00\x00" + bytes(12)
    os.setxattr(tree / "a" / "file", "security.capability", value)
    digests.append(digest_tree(str(tree)))
    assert len(set(digests)) == 5


def test_the_digest_does_not_depend_on_place_or_time(tree: Path) -> None:
    before = digest_tree(str(tree))
    os.utime(tree / "a" / "file", (1, 1))
    moved = tree.rename(tree.parent / "moved")
    assert digest_tree(str(moved)) == before


def test_the_list_has_what_can_change_in_place(tree: Path) -> None:
    assert list_tree(str(tree)) == ([".", "a", "a/b", "a/file"], len("content"))


def test_removal_takes_all_and_follows_no_link(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    (tree / "a" / "out").symlink_to(outside)
    (tree / "odd\n\udcff").write_text("x")
    remove_tree(str(tree))
    assert not tree.exists() and (outside / "kept").exists()
    remove_tree(str(tree))  # nothing there: done already


def test_a_link_in_the_place_of_the_tree_is_not_removed(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tree)
    with pytest.raises(OSError):
        remove_tree(str(tmp_path / "link"))
    assert (tree / "a" / "file").exists()


def test_emptying_leaves_the_directory(tree: Path) -> None:
    (tree / "dangling").symlink_to("/nowhere")
    empty_directory(str(tree))
    assert os.listdir(tree) == []


@needs_root
@pytest.mark.parametrize("name", ["plain", "a b", "tab\tnewline\nback\\slash"])
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_removal_stops_before_a_mount(tmp_path: Path, name: str, kind: str) -> None:
    """A bind mount of the same file system has no device number of its own to tell it by."""
    top = tmp_path / name
    (top / "below").mkdir(parents=True)
    (top / "first").write_text("x")
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "kept").write_text("x")
    code = (
        "import sys, subprocess\n"
        "from execdrv.rootfs.tree import has_mount, remove_tree\n"
        "top, canary, kind = sys.argv[1:]\n"
        "how = ['-t', 'tmpfs', 'none'] if kind == 'tmpfs' else ['--bind', canary]\n"
        "print(has_mount(top)); subprocess.run(['mount', *how, top + '/below'], check=True)\n"
        "print(has_mount(top), has_mount(top + '/below'), has_mount(top + '/bel'))\n"
        "try: remove_tree(top)\n"
        "except OSError as error: print(error.errno)\n"
    )
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", code, str(top), str(canary), kind],
        env={"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["False", "True", "True", "False", "16"]
    assert (top / "first").exists() and (canary / "kept").exists()
    assert not has_mount(str(top))
