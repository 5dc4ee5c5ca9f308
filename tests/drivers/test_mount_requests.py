"""Binds, tmpfs and roots that were asked for: where they land, what they may, what is refused."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from driver_boxes import Boxes, enter_stand_in, in_fork, make_rootfs, mount_table

from execdrv.errors import CommandNotExecutableError, IsolationError, UnsupportedError
from execdrv.linux import syscalls
from execdrv.spec import Bind, Tmpfs

ODD_NAMES = ["m a", "m,b", "m:c", "m\nd", "m\\e", "m\tf", "m\\040g", 'm"h', b"m\xffi", "-r"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory of the machine with a file in it."""
    path = tmp_path / "source"
    path.mkdir()
    (path / "file").write_text("content\n")
    return path


def flags_of(text: str, target: str) -> set[str]:
    """The flags of the last mount on a target, from a mountinfo text."""
    lines = [line.split(" ") for line in text.splitlines()]
    return set([line for line in lines if len(line) > 5 and line[4] == target][-1][5].split(","))


def bind(source: Path | str, target: str | bytes, **keywords: Any) -> Bind:
    return Bind(source=str(source), target=target, **keywords)


# --- what lands where --------------------------------------------------------------------------


@pytest.mark.parametrize("root_mode", ["private", "read-only", "direct"])
def test_a_bind_shows_the_source_without_suid_and_devices(
    boxes: Boxes, source: Path, root_mode: str
) -> None:
    (boxes.rootfs / "data").mkdir()
    result = boxes.sh(
        "cat /data/file; echo new > /data/new; cat /proc/self/mountinfo",
        binds=[bind(source, "/data")],
        root_mode=root_mode,
    )
    assert result.text.startswith("content\n")
    assert {"rw", "nosuid", "nodev"} <= flags_of(result.text, "/data")
    assert (source / "new").read_text() == "new\n"


def test_a_read_only_bind_refuses_writes_in_every_mount_below(
    boxes: Boxes, source: Path, probe: str
) -> None:
    inner = source / "in ner\tx"
    inner.mkdir()

    def first() -> None:
        enter_stand_in()
        syscalls.mount(b"tmpfs", os.fsencode(inner), fstype=b"tmpfs")

    result = boxes.sh(
        f"echo x > /data/new; echo x > '/data/in ner\tx/new'; cat /proc/self/mountinfo;"
        f"{probe} remount /data; {probe} remount '/data/in ner\tx'",
        first=first,
        binds=[bind(source, "/data", read_only=True)],
    )
    assert result.stderr.count(b"Read-only file system") == 2
    for target in ("/data", r"/data/in\040ner\011x"):
        assert {"ro", "nosuid", "nodev"} <= flags_of(result.text, target)
    assert result.text.endswith("mount: Operation not permitted\n" * 2)
    assert not (source / "new").exists()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_taken_as_they_are(boxes: Boxes, name: str | bytes) -> None:
    odd = os.fsencode(boxes.scratch) + b"/" + os.fsencode(name)
    root = make_rootfs(Path(os.fsdecode(odd)) / os.fsdecode(name))
    source = odd + b"/source " + os.fsencode(name)
    os.mkdir(source)
    target = b"/" + os.fsencode(name)
    script = 'echo x > "$1/new"; for f in /m* /-r; do [ -e "$f" ] && printf %s "$f"; done'
    result = boxes.run(
        *("sh", "-c", script, "sh", target),
        rootfs=str(root),
        binds=[Bind(source=source, target=target, read_only=True)],
    )
    assert result.stdout == target
    assert b"Read-only file system" in result.stderr
    assert os.listdir(source) == []
    assert not os.path.exists(os.fsencode(root) + target)


def test_a_single_file_can_be_bound(boxes: Boxes, source: Path) -> None:
    (boxes.rootfs / "etc/there").touch()
    binds = [
        bind(source / "file", "/etc/there"),
        bind(source / "file", "/new/file", read_only=True),
    ]
    result = boxes.sh("cat /etc/there /new/file; echo x > /new/file", binds=binds)
    assert result.text == "content\n" * 2
    assert b"Read-only file system" in result.stderr
    assert not (boxes.rootfs / "new").exists()


def test_missing_mount_points_are_made_in_the_private_layer_only(
    boxes: Boxes, source: Path
) -> None:
    result = boxes.run(
        *("stat", "-c", "%a %u", "/a", "/a/b", "/a/b/c", "/a/b/c/file"),
        binds=[bind(source, "/a/b/c")],
    )
    assert result.text.splitlines()[:2] == ["755 0", "755 0"]
    assert result.code == 0
    assert not (boxes.rootfs / "a").exists()


def test_missing_mount_points_are_made_in_our_own_tmpfs_under_every_root(
    boxes: Boxes, source: Path
) -> None:
    for root_mode in ("private", "read-only", "direct"):
        result = boxes.run(
            *("cat", "/tmp/x/y/file", "/dev/shm/z/file"),
            binds=[bind(source, "/tmp/x/y"), bind(source, "/dev/shm/z")],
            root_mode=root_mode,
        )
        assert result.text == "content\n" * 2


def test_a_tmpfs_has_the_size_and_mode_that_were_asked(boxes: Boxes) -> None:
    tmpfs = [Tmpfs(target="/small", size=65536, mode=0o750), Tmpfs(target="/tmp")]
    result = boxes.sh(
        "stat -c %a /small /tmp; dd if=/dev/zero of=/small/f bs=64k count=2 2>&1 | grep -c space;"
        "stat -c %s /small/f; cat /proc/self/mountinfo",
        tmpfs=tmpfs,
    )
    assert result.text.split()[:4] == ["750", "1777", "1", "65536"]
    assert {"rw", "nosuid", "nodev"} <= flags_of(result.text, "/small")


def test_outer_targets_come_before_inner_ones_however_given(boxes: Boxes, source: Path) -> None:
    (source / "deep").mkdir()
    result = boxes.sh(
        "ls /a; ls /a/deep; ls /a/deep/er",
        binds=[bind(source, "/a/deep/er"), bind(source, "/a")],
        tmpfs=[Tmpfs(target="/a/deep")],
    )
    assert result.text == "deep\nfile\ner\ndeep\nfile\n"
    assert os.listdir(source / "deep") == []


def test_links_in_a_target_lead_inside_the_root_only(boxes: Boxes, source: Path) -> None:
    (boxes.rootfs / "real/conf").mkdir(parents=True)
    (boxes.rootfs / "conf").symlink_to("/real/conf")
    (boxes.rootfs / "up").symlink_to("../../../../../../../..")
    before = mount_table()
    result = boxes.run(
        *("ls", "/real/conf/stack", "/real/conf/one"),
        tmpfs=[Tmpfs(target="/conf/stack")],
        binds=[bind(source, "/up/conf/one")],
    )
    assert result.code == 0
    assert "file" in result.text
    assert mount_table() == before
    assert not (boxes.rootfs / "real/conf/stack").exists()


def test_a_bind_with_mounts_below_leaves_them_on_the_machine(boxes: Boxes, source: Path) -> None:
    (source / "sub").mkdir()

    def first() -> None:
        enter_stand_in()
        syscalls.mount(b"tmpfs", os.fsencode(source / "sub"), fstype=b"tmpfs")
        (source / "sub/kept").touch()

    def run_and_look() -> tuple[str, str, str]:
        before = mount_table()
        result = boxes.run("ls", "/data/sub", binds=[bind(source, "/data")])
        return before, mount_table(), result.text + ",".join(os.listdir(source / "sub"))

    before, after, seen = in_fork(run_and_look, first=first)
    assert seen == "kept\nkept"
    assert before == after


def test_the_machines_own_root_can_be_the_root(boxes: Boxes) -> None:
    result = boxes.run(
        *("ls", "/ddd/proc/1/comm"), rootfs="/", binds=[Bind(source="/", target="/ddd")]
    )
    assert result.text == "/ddd/proc/1/comm\n"
    assert not os.path.exists("/ddd")


def test_what_is_mounted_below_the_root_stays_outside(boxes: Boxes) -> None:
    below = boxes.rootfs / "below"
    below.mkdir()

    def first() -> None:
        enter_stand_in()
        syscalls.mount(b"tmpfs", os.fsencode(below), fstype=b"tmpfs")
        (below / "outside").touch()

    for root_mode in ("private", "read-only", "direct"):
        assert boxes.run("ls", "/below", first=first, root_mode=root_mode).text == ""


def test_a_noexec_root_stays_noexec(boxes: Boxes) -> None:
    place = boxes.scratch / "noexec"
    place.mkdir()

    def first() -> None:
        enter_stand_in()
        flags = syscalls.MS_NOEXEC | syscalls.MS_NOSUID
        syscalls.mount(b"tmpfs", os.fsencode(place), fstype=b"tmpfs", flags=flags)
        make_rootfs(place / "root")

    for root_mode in ("private", "read-only", "direct"):
        with pytest.raises(CommandNotExecutableError, match=r"'/bin/true'.*noexec"):
            boxes.run("/bin/true", first=first, rootfs=str(place / "root"), root_mode=root_mode)


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("root_mode", ["read-only", "direct"])
@pytest.mark.parametrize(
    ("present", "named"), [((), "/proc"), (("proc",), "/dev"), (("proc", "dev"), "/tmp")]
)
def test_a_root_without_mount_points_is_refused_and_not_changed(
    boxes: Boxes, root_mode: str, present: tuple[str, ...], named: str
) -> None:
    for name in {"proc", "dev", "tmp"} - {*present}:
        (boxes.rootfs / name).rmdir()
    before = sorted(os.listdir(boxes.rootfs))
    with pytest.raises(UnsupportedError, match=f"'{named}': it is missing"):
        boxes.run("true", root_mode=root_mode)
    with pytest.raises(IsolationError, match=f"'{named}'.*is missing"):
        boxes.run("true", root_mode=root_mode, check=False)
    assert sorted(os.listdir(boxes.rootfs)) == before


def test_a_private_root_needs_no_mount_points(boxes: Boxes) -> None:
    for name in ("proc", "dev", "tmp"):
        (boxes.rootfs / name).rmdir()
    assert boxes.run("ls", "/proc/self/comm").code == 0
    assert not (boxes.rootfs / "proc").exists()


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/", "the driver needs"),
        ("/dev", "the driver needs"),
        ("/up", "the driver needs"),
        ("/proc", "the driver guards"),
        ("/proc/self/oom_score_adj", "the driver guards"),
        ("/proc/kcore", "the driver guards"),
        ("/proc/sys/kernel", "the driver guards"),
        ("/dev/pts", "the driver guards"),
        ("/dev/fd", "the driver guards"),
        ("/to-proc/1", "the driver guards"),
        ("/etc/resolv.conf", "'resolv.conf' is a symbolic link to nothing"),
        ("/loop", "symbolic links"),
        ("/bin/busybox/x", "not a directory"),
        ("/missing/../x", "'..' follows a directory that is missing"),
    ],
)
def test_targets_that_can_not_be_used_are_refused_before_and_while_mounting(
    boxes: Boxes, source: Path, target: str, reason: str
) -> None:
    (boxes.rootfs / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    (boxes.rootfs / "up").symlink_to("..")
    (boxes.rootfs / "to-proc").symlink_to("/proc")
    (boxes.rootfs / "loop").symlink_to("loop")
    before = sorted(os.listdir(boxes.rootfs))
    refused_source = source if target in ("/", "/dev", "/up", "/proc") else source / "file"
    if target in ("/proc/sys/kernel", "/dev/pts", "/to-proc/1", "/dev/fd"):
        refused_source = source
    binds = [bind(refused_source, target)]
    (refusal,) = boxes.check(binds=binds)
    assert refusal.field == "binds"
    assert re.search(reason, refusal.message)
    assert target in refusal.message
    with pytest.raises(IsolationError, match=re.escape(target)):
        boxes.run("true", binds=binds, check=False)
    assert sorted(os.listdir(boxes.rootfs)) == before


@pytest.mark.parametrize("root_mode", ["private", "read-only", "direct"])
def test_no_mount_point_is_made_inside_a_bind(boxes: Boxes, source: Path, root_mode: str) -> None:
    (boxes.rootfs / "vol").mkdir()
    binds = [bind(source, "/vol"), bind(source, "/vol/missing/x")]
    (refusal,) = boxes.check(binds=binds, root_mode=root_mode)
    assert refusal.message == "cannot mount on '/vol/missing/x': 'missing' is missing"
    with pytest.raises(IsolationError, match="'missing' is missing"):
        boxes.run("true", binds=binds, root_mode=root_mode, check=False)
    assert os.listdir(source) == ["file"]


def test_a_directory_on_a_file_and_a_file_on_a_directory_are_refused(
    boxes: Boxes, source: Path
) -> None:
    binds = [bind(source, "/bin/busybox"), bind(source / "file", "/root")]
    messages = [refusal.message for refusal in boxes.check(binds=binds)]
    assert messages == [
        "cannot mount on '/root': it is a directory, the source a file",
        "cannot mount on '/bin/busybox': it is not a directory",
    ]
    with pytest.raises(IsolationError, match="it is a directory"):
        boxes.run("true", binds=binds, check=False)


def test_two_mounts_on_one_target_are_refused(boxes: Boxes, source: Path) -> None:
    (boxes.rootfs / "link").symlink_to("etc")
    binds = [bind(source, "/etc"), bind(source, "/link")]
    assert "two mounts were asked for there" in boxes.check(binds=binds)[0].message
    (boxes.rootfs / "deep").symlink_to("a/b/c")
    (boxes.rootfs / "a/b/c").mkdir(parents=True)
    binds = [bind(source, "/deep"), bind(source, "/a/b")]
    assert "it would hide the mount on '/a/b/c'" in boxes.check(binds=binds)[0].message


@pytest.mark.parametrize("name", ["proc", "dev", "tmp"])
@pytest.mark.parametrize("where", ["absolute", "relative", "inside"])
@pytest.mark.parametrize("root_mode", ["private", "direct"])
def test_symlinked_mount_points_are_refused_and_nothing_is_made_behind_them(
    boxes: Boxes, name: str, where: str, root_mode: str
) -> None:
    canary = boxes.scratch / "canary"
    canary.mkdir()
    (boxes.rootfs / name).rmdir()
    up = "../" * 20
    target = {"absolute": str(canary), "relative": f"{up}{canary}", "inside": "etc"}[where]
    (boxes.rootfs / name).symlink_to(target)
    (refusal,) = boxes.check(root_mode=root_mode)
    assert refusal.message == f"cannot mount on '/{name}': it must not be a symbolic link"
    with pytest.raises(IsolationError, match=f"'/{name}': it must not be a symbolic link"):
        boxes.run("true", root_mode=root_mode, check=False)
    assert os.listdir(canary) == []
    assert os.listdir(boxes.rootfs / "etc") == ["passwd"]


def test_a_null_device_that_is_a_link_covers_nothing_else(boxes: Boxes) -> None:
    (boxes.rootfs / "dev/null").symlink_to("/proc/sys/kernel/hostname")
    result = boxes.sh(
        "echo mine > /dev/null; hostname; cat /proc/kmsg /proc/timer_list; ls -l /dev"
    )
    assert "mine" not in result.text
    assert result.text.count("\n") > 5


def test_a_volume_that_is_changed_all_the_time_hits_nothing_outside(
    boxes: Boxes, source: Path
) -> None:
    volume, canary = boxes.scratch / "volume", boxes.scratch / "canary"
    (volume / "real/b").mkdir(parents=True)
    (volume / "real/b/inside").touch()
    canary.mkdir()
    (boxes.rootfs / "vol").mkdir()
    (boxes.rootfs / str(canary).lstrip("/")).mkdir(parents=True)
    pid = os.fork()
    if pid == 0:
        _flip(volume, canary)

    def start_often() -> int:
        started = 0
        for number in range(100):
            if number >= 20 and started:
                break
            target = "/vol/a/b" if number % 2 else "/vol/a/missing"
            binds = [bind(volume, "/vol"), bind(source, target)]
            try:
                started += boxes.run_here("true", check=False, binds=binds).code == 0
            except IsolationError as error:
                assert target in str(error), str(error)
            assert os.listdir(canary) == []
            assert str(canary) not in mount_table()
        return started

    try:
        started = in_fork(start_often)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert started
    assert os.listdir(source) == ["file"]
    assert not (volume / "real/missing").exists()


def _flip(volume: Path, canary: Path) -> None:
    try:
        while True:
            os.rename(volume / "real", volume / "a")
            time.sleep(0.0005)
            os.rename(volume / "a", volume / "real")
            os.symlink(canary, volume / "a")
            os.unlink(volume / "a")
    finally:
        os._exit(1)
