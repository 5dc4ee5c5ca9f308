"""Users and groups are read from the root's own files, whatever those files are."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from execdrv.errors import SpecError
from execdrv.linux.accounts import (
    FILE_BYTES_MAX,
    ID_MAX,
    User,
    lookup_group,
    lookup_user,
    parse_group,
    parse_id,
    parse_passwd,
)

PASSWD = b"""\
root:x:0:0:root:/root:/bin/sh
# comment:x:1:1::/:
bob:x:1000:1001:Bob,,,:/home/bob:/bin/sh
bob:x:1002:1002:the second bob:/home/bob2:/bin/sh
oper:x:11:0::/home/oper:/bin/sh
bare:x:1003:1003::relative:/bin/sh
"""
GROUP = b"root:x:0:\nstaff:x:50:bob,oper\nstaff:x:51:\n"


class Root:
    """A root directory and an O_PATH descriptor of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "etc").mkdir(parents=True)
        self.fd = os.open(path, os.O_PATH | os.O_DIRECTORY)

    def write(self, passwd: bytes = PASSWD, group: bytes = GROUP) -> Root:
        (self.path / "etc/passwd").write_bytes(passwd)
        (self.path / "etc/group").write_bytes(group)
        return self


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    made = Root(tmp_path / "root")
    yield made
    os.close(made.fd)


def test_a_name_takes_its_first_entry(root: Root) -> None:
    root.write()
    assert lookup_user(root.fd, "bob") == User(1000, 1001, b"/home/bob")
    assert lookup_user(root.fd, "root") == User(0, 0, b"/root")
    assert lookup_user(root.fd, "oper") == User(11, 0, b"/home/oper")
    assert lookup_group(root.fd, "staff") == 50


def test_a_number_takes_group_and_home_of_its_entry(root: Root) -> None:
    root.write()
    assert lookup_user(root.fd, "1000") == User(1000, 1001, b"/home/bob")
    assert lookup_user(root.fd, "0") == User(0, 0, b"/root")


def test_a_number_without_an_entry_is_its_own_group(root: Root) -> None:
    root.write()
    assert lookup_user(root.fd, "12345") == User(12345, 12345, b"/")
    assert lookup_user(root.fd, "1") == User(1, 1, b"/")
    assert lookup_group(root.fd, "678") == 678


def test_a_number_other_than_0_never_gets_group_0(root: Root) -> None:
    root.write()
    assert lookup_user(root.fd, "11") == User(11, 11, b"/home/oper")


def test_digits_are_never_a_name(root: Root) -> None:
    root.write(
        b"1:x:0:0::/evil:/bin/sh\n4294967296:x:0:0::/evil:/bin/sh\n", b"7:x:0:\n4294967296:x:0:\n"
    )
    assert lookup_user(root.fd, "1") == User(1, 1, b"/")
    assert lookup_group(root.fd, "7") == 7
    with pytest.raises(SpecError, match="'4294967296'") as caught:
        lookup_user(root.fd, "4294967296")
    assert caught.value.fields() == {"field": "user", "value": "4294967296"}
    with pytest.raises(SpecError, match="'4294967296'"):
        lookup_group(root.fd, "4294967296")
    with pytest.raises(SpecError, match=f"{ID_MAX}"):
        lookup_user(root.fd, "4294967295")
    assert lookup_user(root.fd, "4294967294").uid == ID_MAX


def test_a_missing_name_is_named_with_the_file(root: Root) -> None:
    root.write()
    with pytest.raises(SpecError, match=r"user 'eve'.*the root's /etc/passwd") as caught:
        lookup_user(root.fd, "eve")
    assert caught.value.fields()["field"] == "user"
    with pytest.raises(SpecError, match=r"group 'eve'.*the root's /etc/group") as caught:
        lookup_group(root.fd, "eve")
    assert caught.value.fields()["field"] == "group"
    with pytest.raises(SpecError, match=r"groups 'eve'") as caught:
        lookup_group(root.fd, "eve", field="groups")
    assert caught.value.fields()["field"] == "groups"


def test_the_machines_own_accounts_do_not_count(root: Root) -> None:
    root.write(b"", b"")
    with pytest.raises(SpecError):
        lookup_user(root.fd, "root")
    assert lookup_user(root.fd, "0") == User(0, 0, b"/")


def test_a_root_without_the_files_takes_numbers_only(root: Root) -> None:
    assert lookup_user(root.fd, "1000") == User(1000, 1000, b"/")
    with pytest.raises(SpecError, match="no such name"):
        lookup_user(root.fd, "root")
    (root.path / "etc").rmdir()
    (root.path / "etc").write_text("a file")
    assert lookup_user(root.fd, "1000") == User(1000, 1000, b"/")


@pytest.mark.parametrize(
    "line",
    [
        b"short:x:5:5::/home",
        b"long:x:5:5::/home:/bin/sh:more",
        b"sign:x:+5:5::/home:/bin/sh",
        b"blank:x: 5:5::/home:/bin/sh",
        b"hex:x:0x5:5::/home:/bin/sh",
        b"minus:x:-1:5::/home:/bin/sh",
        b"none:x::5::/home:/bin/sh",
        b"gid:x:5:::/home:/bin/sh",
        b"wraps:x:4294967301:5::/home:/bin/sh",
        b"keep:x:4294967295:5::/home:/bin/sh",
        b"digits:x:" + b"9" * 5000 + b":5::/home:/bin/sh",
        b"nul:x:5:5::/home/\0:/bin/sh",
        b"arabic:x:\xd9\xa5:5::/home:/bin/sh",
        b"+nis:x:5:5::/home:/bin/sh",
        b"-nis:x:5:5::/home:/bin/sh",
        b"#rem:x:5:5::/home:/bin/sh",
        b":x:5:5::/home:/bin/sh",
        b"",
    ],
)
def test_a_malformed_line_is_passed_over(line: bytes) -> None:
    good = b"good:x:6:7::/good:/bin/sh"
    assert [entry.name for entry in parse_passwd(line + b"\n" + good)] == [b"good"]


def test_a_malformed_group_line_is_passed_over() -> None:
    data = b"a:x:5\nb:x:5:m:n\nc:x:x:\nd:x:4294967295:\n#e:x:5:\nf:x:6:\n"
    assert list(parse_group(data)) == [(b"f", 6)]


def test_zeros_before_a_number_do_not_matter() -> None:
    assert parse_id(b"0" * 5000 + b"12") == 12
    assert parse_id(b"000") == 0
    assert parse_id(b"") is None


def test_a_home_that_is_no_absolute_path_reads_as_the_root(root: Root) -> None:
    root.write()
    assert lookup_user(root.fd, "bare").home == b"/"


def test_links_in_the_files_path_stay_in_the_root(root: Root, tmp_path: Path) -> None:
    root.write()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "passwd").write_bytes(b"eve:x:0:0::/:/bin/sh\n")
    (root.path / "etc/passwd").unlink()
    for target in ("../../../outside/passwd", str(outside / "passwd")):
        (root.path / "etc/passwd").symlink_to(target)
        with pytest.raises(SpecError, match="no such name"):
            lookup_user(root.fd, "eve")
        (root.path / "etc/passwd").unlink()
    # As far as the root's own tree goes, a link is fine, and an absolute one begins in the root.
    (root.path / "passwd").write_bytes(PASSWD)
    (root.path / "etc/passwd").symlink_to("/passwd")
    assert lookup_user(root.fd, "bob").uid == 1000


def test_a_link_loop_is_refused(root: Root) -> None:
    (root.path / "etc/passwd").symlink_to("passwd")
    with pytest.raises(SpecError, match="symbolic links"):
        lookup_user(root.fd, "1000")


def test_what_is_no_regular_file_is_refused_without_waiting(root: Root) -> None:
    path = root.path / "etc/passwd"
    began = time.monotonic()
    os.mkfifo(path)
    with pytest.raises(SpecError, match=r"user '1000'.*/etc/passwd: not a regular file"):
        lookup_user(root.fd, "1000")
    path.unlink()
    path.mkdir()
    with pytest.raises(SpecError, match="not a regular file"):
        lookup_user(root.fd, "bob")
    path.rmdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fsencode(f"/proc/self/fd/{root.fd}/etc/passwd"))
        with pytest.raises(SpecError, match="not a regular file"):
            lookup_user(root.fd, "bob")
    assert time.monotonic() - began < 5


@pytest.mark.skipif(os.geteuid() != 0, reason="making a device node needs root")
def test_a_device_is_refused_unopened(root: Root) -> None:
    # A number that no driver has: opening it would fail with ENXIO, not with our words.
    os.mknod(root.path / "etc/passwd", 0o20666, os.makedev(511, 1))
    with pytest.raises(SpecError, match="not a regular file"):
        lookup_user(root.fd, "bob")


def test_a_huge_file_is_refused(root: Root) -> None:
    path = root.path / "etc/passwd"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    began = time.monotonic()
    with pytest.raises(SpecError, match=f"larger than {FILE_BYTES_MAX} bytes"):
        lookup_user(root.fd, "bob")
    assert time.monotonic() - began < 5
    path.write_bytes(b"\n" * (FILE_BYTES_MAX - len(PASSWD)) + PASSWD)
    assert lookup_user(root.fd, "bob").uid == 1000


def test_no_descriptor_is_left(root: Root) -> None:
    root.write()
    before = os.listdir("/proc/self/fd")
    lookup_user(root.fd, "bob")
    (root.path / "etc/passwd").unlink()
    os.mkfifo(root.path / "etc/passwd")
    with pytest.raises(SpecError):
        lookup_user(root.fd, "bob")
    assert os.listdir("/proc/self/fd") == before
