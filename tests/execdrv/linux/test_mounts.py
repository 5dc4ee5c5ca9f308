"""The executor of mount plans, step by step, in mount namespaces of forked children."""

from __future__ import annotations

import contextlib
import os
import pickle
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from execdrv.errors import IsolationError
from execdrv.linux import syscalls
from execdrv.linux.mounts import (
    INERT,
    Attach,
    Cover,
    MakeLink,
    MakeNode,
    MountStep,
    NewFs,
    Protect,
    Seal,
    apply_steps,
    clone_tree,
    describe,
    explain,
    make_covers,
    make_fs,
    show,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

PLAIN = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV


def in_namespace(action: Callable[[], Any]) -> Any:
    """What `action` returns or raises in a forked child with a mount namespace of its own."""
    before = mount_table()
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount(None, b"/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
            try:
                answer = pickle.dumps((action(), None))
            except Exception as error:
                answer = pickle.dumps((None, error))
            os.write(write_end, answer)
        finally:
            os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        value, error = pickle.loads(pipe.read())  # noqa: S301 - from our own child
    os.waitpid(pid, 0)
    assert mount_table() == before
    if error is not None:
        raise error
    return value


def mount_table() -> str:
    return Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")


def flags_of(target: Path) -> set[str]:
    lines = [line.split(" ") for line in mount_table().splitlines()]
    return set([words[5] for words in lines if words[4] == str(target)][-1].split(","))


def build(
    root: Path,
    steps: Sequence[MountStep],
    *,
    sources: Sequence[Path] = (),
    own: bool = False,
    look: Callable[[], Any] = lambda: None,
) -> Any:
    """Apply steps to a copy of a directory's mount, attached over it; what `look` returns then."""

    def action() -> Any:
        scratch = make_fs(b"tmpfs", (), PLAIN)
        place = root.parent / "scratch"
        place.mkdir(exist_ok=True)
        syscalls.move_mount(scratch, os.open(place, os.O_PATH))
        covers = make_covers(scratch, b"covers")
        trees = [
            clone_tree(os.open(source, os.O_PATH), attributes=PLAIN, recursive=True)
            for source in sources
        ]
        top = clone_tree(os.open(root, os.O_PATH), attributes=PLAIN, recursive=False)
        syscalls.move_mount(top, os.open(root, os.O_PATH))
        apply_steps(steps, root=top, trees=trees, covers=covers, root_is_own=own)
        return look()

    return in_namespace(action)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    for name in ("proc", "dev", "there"):
        (path / name).mkdir(parents=True)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    (path / "below").mkdir(parents=True)
    (path / "file").write_text("content")
    return path


# --- copies of mounts --------------------------------------------------------------------------


def test_a_copy_is_in_no_mount_table(source: Path) -> None:
    before = mount_table()
    tree = clone_tree(os.open(source, os.O_PATH), attributes=PLAIN, recursive=True)
    assert mount_table() == before
    assert stat.S_ISREG(os.stat("file", dir_fd=tree).st_mode)
    os.close(tree)


def test_a_copy_of_a_shared_mount_is_no_peer_of_it(source: Path) -> None:
    def action() -> list[str]:
        syscalls.mount(None, b"/", flags=syscalls.MS_REC | syscalls.MS_SHARED)
        tree = clone_tree(os.open(source, os.O_PATH), attributes=0, recursive=True)
        other = source.parent / "other"
        other.mkdir()
        syscalls.move_mount(tree, os.open(other, os.O_PATH))
        inner = make_fs(b"tmpfs", (), PLAIN)
        syscalls.move_mount(inner, os.open(other / "below", os.O_PATH))
        (other / "below/seen").touch()
        return os.listdir(source / "below")

    assert in_namespace(action) == []


def test_read_only_reaches_every_mount_of_a_recursive_copy(source: Path, root: Path) -> None:
    def action() -> list[set[str]]:
        inner = source / "below"
        syscalls.mount(b"tmpfs", os.fsencode(inner), fstype=b"tmpfs")
        attributes = PLAIN | syscalls.MOUNT_ATTR_RDONLY
        tree = clone_tree(os.open(source, os.O_PATH), attributes=attributes, recursive=True)
        place = root / "there"
        syscalls.move_mount(tree, os.open(place, os.O_PATH))
        return [flags_of(place), flags_of(place / "below"), flags_of(inner)]

    outer, inner, original = in_namespace(action)
    assert {"ro", "nosuid", "nodev"} <= outer & inner
    assert "rw" in original and "nodev" not in original


def test_a_copy_without_recursion_has_no_mount_below(source: Path, root: Path) -> None:
    def action() -> list[str]:
        syscalls.mount(b"tmpfs", os.fsencode(source / "below"), fstype=b"tmpfs")
        (source / "below/hidden").touch()
        tree = clone_tree(os.open(source, os.O_PATH), attributes=PLAIN, recursive=False)
        syscalls.move_mount(tree, os.open(root / "there", os.O_PATH))
        return os.listdir(root / "there/below")

    assert in_namespace(action) == []


def test_a_new_file_system_that_fails_says_what_the_kernel_says() -> None:
    with pytest.raises(OSError, match="size"):
        make_fs(b"tmpfs", ((b"size", b"no-number"),), PLAIN)


def test_covers_are_empty_and_read_only(root: Path) -> None:
    def action() -> tuple[list[str], str, set[str]]:
        parent = os.open(root, os.O_PATH)
        make_covers(parent, b"covers")
        covers = root / "covers"
        return os.listdir(covers / "directory"), (covers / "file").read_text(), flags_of(covers)

    entries, text, flags = in_namespace(action)
    assert (entries, text) == ([], "")
    assert {"ro", "nosuid", "nodev", "noexec"} <= flags


# --- steps -------------------------------------------------------------------------------------


def test_a_new_file_system_has_its_options_and_flags(root: Path) -> None:
    step = NewFs(target=b"/there", fstype=b"tmpfs", options=((b"mode", b"1777"),), attributes=INERT)
    flags, mode = build(
        root,
        [step],
        look=lambda: (flags_of(root / "there"), stat.S_IMODE(os.stat(root / "there").st_mode)),
    )
    assert {"rw", "nosuid", "nodev", "noexec"} <= flags
    assert mode == 0o1777


def test_nodes_and_links_are_made_in_a_mount_of_the_plan_until_it_is_sealed(root: Path) -> None:
    steps = [
        NewFs(target=b"/dev", fstype=b"tmpfs", attributes=syscalls.MOUNT_ATTR_NOSUID),
        MakeNode(target=b"/dev/null", major=1, minor=3),
        MakeLink(target=b"/dev/fd", to=b"/proc/self/fd"),
        Seal(target=b"/dev"),
    ]

    def look() -> tuple[int, int, str, bool]:
        status = os.stat(root / "dev/null")
        with contextlib.suppress(OSError):
            (root / "dev/more").touch()
        more = (root / "dev/more").exists()
        return status.st_mode, status.st_rdev, os.readlink(root / "dev/fd"), more

    mode, device, link, more = build(root, steps, look=look)
    assert (stat.S_ISCHR(mode), device) == (True, os.makedev(1, 3))
    assert (link, more) == ("/proc/self/fd", False)
    assert os.listdir(root / "dev") == []


def test_a_cover_hides_files_and_directories_and_passes_over_what_is_missing(root: Path) -> None:
    steps = [
        NewFs(target=b"/proc", fstype=b"proc", attributes=INERT),
        *(Cover(target=b"/proc/" + name) for name in (b"bus", b"uptime", b"no-such-file")),
        Protect(target=b"/proc/sys"),
        Protect(target=b"/proc/no-such-file"),
    ]

    def look() -> tuple[list[str], str, set[str], set[str]]:
        proc = root / "proc"
        return (
            os.listdir(proc / "bus"),
            (proc / "uptime").read_text(),
            flags_of(proc / "uptime"),
            flags_of(proc / "sys"),
        )

    entries, text, covered, protected = build(root, steps, look=look)
    assert (entries, text) == ([], "")
    assert "ro" in covered and "ro" in protected


def test_covers_can_be_put_on_a_procfs_that_is_there_already(root: Path) -> None:
    def action() -> str:
        syscalls.mount(b"proc", os.fsencode(root / "proc"), fstype=b"proc")
        covers = make_covers(os.open(root, os.O_PATH), b"covers")
        top = os.open("/", os.O_PATH)
        target = os.fsencode(root) + b"/proc/uptime"
        apply_steps([Cover(target=target)], root=top, trees=(), covers=covers, root_is_own=False)
        return (root / "proc/uptime").read_text()

    assert in_namespace(action) == ""


def test_a_tree_of_a_file_is_attached_to_a_file(root: Path, source: Path) -> None:
    (root / "there/file").touch()
    steps = [Attach(target=b"/there/file", tree=0)]
    found = build(
        root, steps, sources=[source / "file"], look=lambda: (root / "there/file").read_text()
    )
    assert found == "content"


# --- targets -----------------------------------------------------------------------------------


def test_links_of_an_asked_target_are_followed_inside_the_root(root: Path, source: Path) -> None:
    (root / "link").symlink_to("/../there")
    steps = [Attach(target=b"/link", tree=0)]
    assert set(build(root, steps, sources=[source], look=lambda: os.listdir(root / "there"))) == {
        "below",
        "file",
    }


def test_links_of_a_fixed_target_are_refused(root: Path) -> None:
    (root / "tmp").symlink_to("there")
    step = NewFs(target=b"/tmp", fstype=b"tmpfs", attributes=PLAIN)
    with pytest.raises(IsolationError, match="'/tmp': it must not be a symbolic link"):
        build(root, [step], own=True)


def test_magic_links_are_not_followed(root: Path, source: Path) -> None:
    steps = [
        NewFs(target=b"/proc", fstype=b"proc", attributes=INERT),
        Attach(target=b"/proc/self/root/there", tree=0),
    ]
    with pytest.raises(IsolationError, match="symbolic links"):
        build(root, steps, sources=[source])


@pytest.mark.parametrize("own", [True, False])
def test_missing_mount_points_are_created_in_an_own_root_only(
    root: Path, source: Path, own: bool
) -> None:
    steps = [Attach(target=b"/a/b", tree=0), Attach(target=b"/c/file", tree=1)]
    sources = [source, source / "file"]
    if own:
        look = lambda: os.listdir(root / "a/b") and (root / "c/file").read_text()  # noqa: E731
        assert build(root, steps, sources=sources, own=True, look=look) == "content"
        assert stat.S_IMODE(os.stat(root / "a").st_mode) & 0o700 == 0o700
    else:
        with pytest.raises(IsolationError, match="'/a/b': 'a' is missing"):
            build(root, steps, sources=sources)
        assert not (root / "a").exists()


def test_missing_mount_points_are_created_in_a_tmpfs_of_the_plan(root: Path, source: Path) -> None:
    steps = [
        NewFs(target=b"/there", fstype=b"tmpfs", attributes=PLAIN),
        Attach(target=b"/there/a/b", tree=0),
    ]
    look = lambda: len(os.listdir(root / "there/a/b"))  # noqa: E731
    assert build(root, steps, sources=[source], look=look) == 2
    assert os.listdir(root / "there") == []


def test_nothing_is_created_in_an_attached_tree(root: Path, source: Path) -> None:
    steps = [Attach(target=b"/there", tree=0), Attach(target=b"/there/new/x", tree=1)]
    with pytest.raises(IsolationError, match="'/there/new/x': 'new' is missing"):
        build(root, steps, sources=[source, source], own=True)
    assert not (source / "new").exists()


def test_a_link_to_nothing_is_refused_and_not_followed(root: Path, source: Path) -> None:
    outside = root.parent / "outside"
    (root / "link").symlink_to(outside)
    with pytest.raises(IsolationError, match="'link' is a symbolic link to nothing"):
        build(root, [Attach(target=b"/link", tree=0)], sources=[source], own=True)
    assert not outside.exists()


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (b"/", "the driver needs"),
        (b"/dev", "the driver needs"),
        (b"/dev/../there/..", "the driver needs"),
        (b"/proc", "the driver guards"),
        (b"/proc/sys/kernel", "the driver guards"),
        (b"/a/../b", "'..' follows"),
    ],
)
def test_what_the_plan_needs_can_not_be_covered_by_request(
    root: Path, target: bytes, reason: str
) -> None:
    steps = [
        NewFs(target=b"/proc", fstype=b"proc", attributes=INERT),
        NewFs(target=b"/dev", fstype=b"tmpfs", attributes=PLAIN),
        NewFs(target=target, fstype=b"tmpfs", attributes=PLAIN, asked=True),
        Seal(target=b"/dev"),
    ]
    with pytest.raises(IsolationError, match=reason):
        build(root, steps, own=True)


def test_file_and_directory_are_not_mixed(root: Path, source: Path) -> None:
    (root / "file").touch()
    with pytest.raises(IsolationError, match="'/file': it is not a directory"):
        build(root, [Attach(target=b"/file", tree=0)], sources=[source])
    with pytest.raises(IsolationError, match="'/there': it is a directory"):
        build(root, [Attach(target=b"/there", tree=0)], sources=[source / "file"])


# --- words -------------------------------------------------------------------------------------


def test_every_step_has_a_description() -> None:
    steps: list[MountStep] = [
        NewFs(target=b"/a\n", fstype=b"tmpfs", attributes=0),
        Attach(target=b"/a\n", tree=0),
        MakeNode(target=b"/a\n", major=1, minor=1),
        MakeLink(target=b"/a\n", to=b"b"),
        Cover(target=b"/a\n"),
        Protect(target=b"/a\n"),
        Seal(target=b"/a\n"),
    ]
    for step in steps:
        assert describe(step).endswith(" '/a\\n'")


def test_a_reason_is_lower_case_and_keeps_the_call_as_it_is() -> None:
    assert (
        explain(OSError(22, "Invalid argument: mount(b'/A')")) == "invalid argument: mount(b'/A')"
    )
    assert show(b"/a\xff b") == r"'/a\udcff b'"
