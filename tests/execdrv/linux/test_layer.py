"""A private root, made and entered in a forked child; the drivers' tests say what it promises."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from execdrv.errors import IsolationError
from execdrv.linux import layer, syscalls

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def in_namespace(action: Callable[[], Any]) -> Any:
    """What `action` returns or raises in a forked child with a private mount namespace."""
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
    if error is not None:
        raise error
    return value


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir(mode=0o750)
    (made / "kept").write_text("below")
    return made


def enter(root: Path) -> None:
    """Be in a private layer over a root."""
    place = root.parent / "place"
    place.mkdir()
    scratch = layer.make_scratch(os.fsencode(place))
    opened = os.open(root, os.O_PATH)
    attributes = layer.layer_attributes(opened)
    below = layer.clone_root(opened, read_only=False)
    made = layer.make_layer(scratch, below=below, attributes=attributes)
    os.mkdir(b"root", dir_fd=scratch)
    syscalls.move_mount(made, scratch, b"root")
    layer.enter_root(made)


@needs_root
def test_writes_stay_in_the_layer_and_the_machine_is_out_of_sight(root: Path) -> None:
    def action() -> tuple[list[str], str, int]:
        enter(root)
        Path("/new").write_text("above")
        Path("/kept").write_text("changed")
        return sorted(os.listdir("/")), os.getcwd(), os.stat("/").st_mode & 0o7777

    assert in_namespace(action) == (["kept", "new"], "/", 0o750)
    assert os.listdir(root) == ["kept"]
    assert (root / "kept").read_text() == "below"


@needs_root
def test_a_root_that_is_not_the_namespaces_own_is_not_entered(root: Path) -> None:
    def action() -> None:
        syscalls.mount(b"/", os.fsencode(root), flags=syscalls.MS_BIND | syscalls.MS_REC)
        os.chroot(root)
        os.chdir("/")
        syscalls.mount(b"tmpfs", b"/tmp", fstype=b"tmpfs")
        layer.enter_root(os.open("/tmp", os.O_PATH))

    with pytest.raises(IsolationError, match="a chroot, or the initramfs"):
        in_namespace(action)


@needs_root
def test_a_scratch_directory_that_is_a_link_is_refused(root: Path) -> None:
    (link := root.parent / "link").symlink_to(root)
    with pytest.raises(NotADirectoryError):
        in_namespace(lambda: layer.make_scratch(os.fsencode(link)))


@needs_root
@pytest.mark.parametrize("read_only", [False, True])
def test_copies_are_read_only_when_asked_and_never_carry_devices(
    root: Path, read_only: bool
) -> None:
    def action() -> list[tuple[bool, bool, bool]]:
        opened = os.open(root, os.O_PATH)
        found = []
        for clone in (layer.clone_root, layer.clone_bind):
            flags = os.fstatvfs(clone(opened, read_only=read_only)).f_flag
            found.append(
                tuple(bool(flags & bit) for bit in (os.ST_RDONLY, os.ST_NODEV, os.ST_NOSUID))
            )
        return found

    own_nosuid = bool(os.statvfs(root).f_flag & os.ST_NOSUID)
    assert in_namespace(action) == [(read_only, True, own_nosuid), (read_only, True, True)]


@needs_root
@pytest.mark.parametrize(
    ("flags", "attributes"),
    [
        (0, syscalls.MOUNT_ATTR_NODEV),
        (
            syscalls.MS_NOSUID | syscalls.MS_NOEXEC,
            syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOEXEC,
        ),
    ],
)
def test_a_layer_keeps_what_the_roots_mount_forbids(
    root: Path, flags: int, attributes: int
) -> None:
    def action() -> int:
        syscalls.mount(b"tmpfs", os.fsencode(root), fstype=b"tmpfs", flags=flags)
        return layer.layer_attributes(os.open(root, os.O_PATH))

    assert in_namespace(action) == attributes


def test_an_error_of_the_kernel_is_explained_with_what_was_done() -> None:
    with (
        pytest.raises(IsolationError, match=r"^cannot sing: no space left: clone\(1\)$") as caught,
        layer.explained("sing", hint="hum"),
    ):
        raise OSError(errno.ENOSPC, "No space left: clone(1)")
    assert (caught.value.hint, caught.value.errno) == ("hum", errno.ENOSPC)


@pytest.mark.parametrize(("number", "raised"), [(errno.EINVAL, IsolationError), (1, OSError)])
def test_only_einval_is_taken_for_a_root_that_can_not_be_exchanged(
    number: int, raised: type[Exception]
) -> None:
    with pytest.raises(raised), layer.changing_root():
        raise OSError(number, "x")
