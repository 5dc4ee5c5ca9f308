"""What makes a directory unfit as a job's root is seen, and looking at it changes nothing."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from driver_boxes import in_fork

from execdrv.driver import Refusal
from execdrv.linux import syscalls
from execdrv_chroot import roots

pytestmark = pytest.mark.usefixtures("need_root")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    for name in ("proc", "sys", "dev"):
        (path / name).mkdir(parents=True)
    path.chmod(0o755)
    return path


@pytest.fixture
def fd(root: Path) -> Iterator[int]:
    made = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield made
    os.close(made)


def make_node(path: Path, kind: str, major: int, minor: int) -> None:
    letter = {"c": stat.S_IFCHR, "b": stat.S_IFBLK}[kind]
    os.mknod(path, letter | 0o666, os.makedev(major, minor))


def make_usual(root: Path) -> None:
    for kind, name in roots.NODES.items():
        make_node(root / "dev" / name, *kind)


def test_the_usual_nodes_and_links_are_fine(root: Path, fd: int) -> None:
    make_usual(root)
    (root / "dev/fd").symlink_to("/proc/self/fd")
    (root / "dev/shm").mkdir()
    (root / "dev/log").touch()
    assert [*roots.find_nodes(fd), *roots.find_mounts(fd), *roots.find_missing_nodes(fd)] == []


@pytest.mark.parametrize(
    ("path", "kind", "major", "minor"),
    [
        ("dev/kmsg", "c", 1, 11),
        ("dev/mem", "c", 1, 1),
        ("dev/net/tun", "c", 10, 200),
        ("dev/a/b/c/disk", "b", 7, 0),
        # A name says nothing of what it opens.
        ("dev/null", "c", 10, 229),
        ("dev/zero", "b", 1, 5),
    ],
)
def test_another_node_is_refused_by_name_and_number(
    root: Path, fd: int, path: str, kind: str, major: int, minor: int
) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    make_node(root / path, kind, major, minor)
    (refusal,) = roots.find_nodes(fd)
    assert f"'/{path}' ({kind} {major}:{minor})" in refusal.message
    assert (refusal.field, refusal.guarantee) == ("rootfs", "dev.minimal")


def test_of_many_nodes_a_few_are_named(root: Path, fd: int) -> None:
    for minor in range(8):
        make_node(root / f"dev/loop{minor}", "b", 7, minor)
    (refusal,) = roots.find_nodes(fd)
    assert refusal.message.endswith("and 5 more")


def test_a_dev_without_end_is_refused(root: Path, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roots, "_ENTRIES_MAX", 20)
    for number in range(20):
        (root / f"dev/{number}").touch()
    assert list(roots.find_nodes(fd)) == []
    (root / "dev/one more").touch()
    (refusal,) = roots.find_nodes(fd)
    assert "over 20 entries" in refusal.message


def test_links_are_not_followed_out_of_the_root(root: Path, fd: int, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    make_node(outside / "kmsg", "c", 1, 11)
    (root / "dev/inner").symlink_to(outside)
    assert list(roots.find_nodes(fd)) == []
    (root / "dev/inner").unlink()
    (root / "dev").rmdir()
    (root / "dev").symlink_to(outside)
    assert list(roots.find_nodes(fd)) == []


def test_a_root_without_these_directories_is_fine(root: Path, fd: int) -> None:
    for name in ("proc", "sys", "dev"):
        (root / name).rmdir()
    (root / "proc").touch()
    assert [*roots.find_nodes(fd), *roots.find_mounts(fd)] == []


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_a_mount_of_the_machine_is_refused(root: Path, fd: int, name: str) -> None:
    def look() -> list[Refusal]:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(None, b"/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
        # Of the same file system, which no device number tells apart.
        place = os.fsencode(root / name)
        syscalls.mount(place, place, flags=syscalls.MS_BIND)
        again = os.open(root, os.O_PATH | os.O_DIRECTORY)
        return list(roots.find_mounts(again))

    (refusal,) = in_fork(look)
    assert f"mounted on '/{name}'" in refusal.message
    assert refusal.field == "rootfs"


def test_missing_nodes_are_named_where_they_are_required(root: Path, fd: int) -> None:
    make_usual(root)
    (root / "dev/full").unlink()
    (root / "dev/tty").unlink()
    (refusal,) = roots.find_missing_nodes(fd)
    assert "lacks full, tty" in refusal.message
    assert refusal.guarantee == "dev.usable"


def test_nodes_on_a_file_system_that_ignores_them_are_not_enough(root: Path) -> None:
    def look() -> list[Refusal]:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(None, b"/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
        place = os.fsencode(root)
        syscalls.mount(b"tmpfs", place, fstype=b"tmpfs", flags=syscalls.MS_NODEV)
        (root / "dev").mkdir()
        make_usual(root)
        again = os.open(root, os.O_PATH | os.O_DIRECTORY)
        return list(roots.find_missing_nodes(again))

    (refusal,) = in_fork(look)
    assert "nodev" in refusal.message


@pytest.mark.parametrize(
    ("mode", "uid", "groups", "refused"),
    [
        (0o755, 5, {5}, False),
        (0o711, 5, {5}, False),
        (0o700, 5, {5}, True),
        (0o750, 5, {5}, True),
        (0o750, 5, {5, 7}, False),
        (0o705, 5, {7}, True),
        (0o700, 6, {5}, False),
        (0o077, 6, {7}, True),
    ],
)
def test_a_root_that_the_user_may_not_enter_is_refused(
    root: Path, fd: int, mode: int, uid: int, groups: set[int], refused: bool
) -> None:
    os.chown(root, 6, 7)
    root.chmod(mode)
    found = list(roots.find_closed_root(fd, uid=uid, groups=groups))
    assert bool(found) is refused
    if found:
        assert f"user {uid}" in found[0].message and f"{mode:04o}" in found[0].message


def test_where_an_acl_decides_nothing_is_refused(root: Path, fd: int) -> None:
    root.chmod(0o700)
    everyone = 0xFFFFFFFF
    entries = [(1, 7, everyone), (2, 1, 5), (4, 0, everyone), (16, 1, everyone), (32, 0, everyone)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(root, "system.posix_acl_access", acl)
    except OSError as error:
        pytest.skip(f"no access control lists here: {error}")
    assert list(roots.find_closed_root(fd, uid=5, groups={5})) == []


def test_looking_leaves_the_tree_and_the_descriptors_alone(root: Path, fd: int) -> None:
    make_usual(root)
    (root / "dev/net").mkdir()
    tree = sorted(map(str, root.rglob("*")))
    before = os.listdir("/proc/self/fd")
    for find in (roots.find_nodes, roots.find_mounts, roots.find_missing_nodes):
        list(find(fd))
    list(roots.find_closed_root(fd, uid=5, groups={5}))
    assert os.listdir("/proc/self/fd") == before
    assert sorted(map(str, root.rglob("*"))) == tree
