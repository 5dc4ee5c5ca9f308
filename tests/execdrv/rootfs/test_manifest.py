from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from execdrv.errors import UsageError
from execdrv.rootfs import Root, default_root, make_root, remove_root, verify_root
from execdrv.rootfs.manifest import find_root, read_file, request_name, write_file

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="other owners need root")


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


@pytest.fixture
def root(directory: str, tiny_base: None) -> Root:
    return make_root(cache=directory)


def overwrite_in_place(top: str) -> None:
    """Same length, times put back: only the change time tells."""
    path = f"{top}/etc/hosts"
    before = os.stat(path)
    with open(path, "r+b") as file:
        file.write(b"6.6.6.6")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_link(top: str) -> None:
    os.unlink(f"{top}/bin")
    os.symlink("usr/sbin", f"{top}/bin")


def open_to_all(top: str) -> None:
    os.chmod(f"{top}/usr/bin", 0o777)


def make_setuid(top: str) -> None:
    os.chmod(f"{top}/usr/bin/cat", 0o4755)


def add_on_top(top: str) -> None:
    Path(f"{top}/new").write_text("")


def remove_one(top: str) -> None:
    os.unlink(f"{top}/usr/bin/cat")


def link_to_machine(top: str) -> None:
    os.link(f"{top}/usr/bin/cat", f"{top}/../cat")


@pytest.mark.parametrize(
    "tamper",
    [
        overwrite_in_place,
        replace_link,
        open_to_all,
        make_setuid,
        add_on_top,
        remove_one,
        link_to_machine,
    ],
)
def test_a_changed_tree_is_refused(
    directory: str, root: Root, tamper: Callable[[str], None]
) -> None:
    tamper(root.path)
    for check in (lambda: default_root(cache=directory), lambda: verify_root(root)):
        with pytest.raises(UsageError, match="has changed") as caught:
            check()
        assert f"rootfs remove {root.name}" in caught.value.hint
    remove_root(root.name, cache=directory)
    assert default_root(cache=directory).digest == root.digest


def test_a_changed_tree_is_no_answer_to_another_request(directory: str, root: Root) -> None:
    make_root(["cat"], cache=directory)
    os.unlink(f"{directory}/default.json")  # so that it has to be made again, with the same outcome
    overwrite_in_place(root.path)
    with pytest.raises(UsageError, match="has changed"):
        default_root(cache=directory)


def test_a_harmless_change_is_looked_into_once(
    directory: str, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chmod(f"{root.path}/usr/bin/cat", 0o755)  # changes the time, nothing else
    assert default_root(cache=directory) == root
    monkeypatch.setattr("execdrv.rootfs.manifest.digest_tree", lambda _path: "not asked again")
    assert default_root(cache=directory) == root


def test_a_fresh_root_needs_no_digest(
    directory: str, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execdrv.rootfs.manifest.digest_tree", lambda _path: "not asked")
    assert default_root(cache=directory) == root


@needs_root
def test_a_tree_of_another_owner_is_refused(directory: str, root: Root) -> None:
    os.chown(root.path, 54321, 54321)
    with pytest.raises(UsageError, match="belongs to uid 54321"):
        default_root(cache=directory)


def test_a_tree_that_others_may_write_is_refused(directory: str, root: Root) -> None:
    os.chmod(root.path, 0o777)
    with pytest.raises(UsageError, match="mode 0777"):
        default_root(cache=directory)


@pytest.mark.parametrize("file", ["default.json", "{name}.json"])
def test_a_file_that_others_may_write_is_not_believed(
    directory: str, root: Root, file: str
) -> None:
    os.chmod(f"{directory}/{file.format(name=root.name)}", 0o666)
    with pytest.raises(UsageError, match="mode 0666"):
        find_root(directory, ())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04K\x01.",  # a pickle (E25)
        b"[1]",
        b'{"version": 2}',
        b'{"version": 1}',
        b'{"version": 1, "names": [], "root": "../..", "inputs": [["/", 0, 0]]}',
        b'{"version": 1, "names": [], "root": 7, "inputs": 7}',
        b'{"version": 1, "names": [], "root": "x", "inputs": [["\\u0000", 0, 0]]}',
        b'{"version": 1, "names": [], "root": "x", "inputs": [[]]}',
        b'{"version": 1, "names": [], "root": "x", "inputs": []}',
    ],
)
def test_a_damaged_file_counts_as_absent(directory: str, root: Root, content: bytes) -> None:
    for name in ("default.json", f"{root.name}.json"):
        Path(f"{directory}/{name}").write_bytes(content)
    assert find_root(directory, ()) is None
    assert default_root(cache=directory).digest == root.digest
    assert find_root(directory, ()) is not None


def test_a_program_that_comes_later_makes_a_new_root(
    directory: str, tmp_path: Path, tiny_base: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An optional command was missing: looked for in vain is an input too."""
    from execdrv.rootfs import recipe

    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(recipe, "TRUSTED_PATH", (*recipe.TRUSTED_PATH, str(tmp_path / "bin")))
    monkeypatch.setattr(recipe, "OPTIONAL", {"some-package": "execdrv-late"})
    first = default_root(cache=directory)
    assert first.missing == ("execdrv-late",)
    (tmp_path / "bin" / "execdrv-late").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "execdrv-late").chmod(0o755)
    second = default_root(cache=directory)
    assert second.missing == () and second.name != first.name


def test_requests_do_not_depend_on_order() -> None:
    assert request_name(()) == "default.json"
    assert request_name(("a", "b")) != request_name(("a b",)) != request_name(("ab",))


def test_files_carry_any_name(tmp_path: Path) -> None:
    path = str(tmp_path / "x.json")
    write_file(path, {"names": ["/odd\udcff\n"]})
    assert read_file(path) == {"version": 1, "names": ["/odd\udcff\n"]}
    assert os.listdir(tmp_path) == ["x.json"]
    assert json.loads(Path(path).read_text())["version"] == 1
