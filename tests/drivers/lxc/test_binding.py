"""The bindings: what is missing is said with the way out, and nothing is taken on trust."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
from driver_boxes import in_fork

from execdrv.errors import IsolationError
from execdrv.linux import syscalls
from execdrv_lxc import binding
from execdrv_lxc.config import Item


def test_missing_bindings_are_an_obstacle_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "_lxc", None)
    found = binding.detect_obstacle()
    assert found is not None and "apt-get install" in found and "bindings" in found


def test_on_a_python_without_bindings_at_pypi_debians_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "_lxc", None)
    monkeypatch.setattr(binding, "NEWEST_PYTHON", (3, 1))
    assert "python3-lxc" in (binding.detect_obstacle() or "")


def test_an_empty_namespace_package_is_not_taken_for_the_bindings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "_lxc", types.ModuleType("_lxc"))
    assert "not that of liblxc" in (binding.detect_obstacle() or "")


@pytest.mark.parametrize("version", ["3.0.4", "4.0.12", "unknown", ""])
def test_a_liblxc_that_is_too_old_is_an_obstacle(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    module = types.ModuleType("_lxc")
    module.Container = object  # type: ignore[attr-defined]
    module.get_version = lambda: version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "_lxc", module)
    assert f"{version!r} is too old" in (binding.detect_obstacle() or "")


def test_nothing_is_imported_before_it_is_used() -> None:
    import subprocess

    code = "import sys, execdrv_lxc; sys.exit('_lxc' in sys.modules or 'lxc' in sys.modules)"
    path = ":".join(filter(None, sys.path))
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": path})


@pytest.mark.parametrize(
    ("reads_back", "got", "same"),
    [
        ("box", "box", True),
        ("box", "", False),
        ("box", "box2", False),
        ("a\nb\n", "b\na\n", True),
        ("a\nb\n", "a\n", False),
        ("a\nb\n", "a\nb\nc\n", False),
        ("a\nb\n", "a\na\nb\n", False),
        ("none", "", False),
    ],
)
def test_what_reads_back_otherwise_is_an_error(reads_back: str, got: str, same: bool) -> None:
    item = Item("lxc.key", "value", reads_back)
    if same:
        binding.check_item(item, got)
    else:
        with pytest.raises(IsolationError, match=r"lxc\.key"):
            binding.check_item(item, got)


# --- with liblxc itself ------------------------------------------------------------------------


def configure(path: Path, *items: Item) -> None:
    """Configure a container, in a process whose /run is its own."""

    def action() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(None, b"/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.mount(b"tmpfs", b"/run", fstype=b"tmpfs")
        binding.make_container("xdt-test", str(path), items)

    in_fork(action)


def test_a_key_that_liblxc_does_not_know_is_named(
    need_root: None, liblxc: None, tmp_path: Path
) -> None:
    with pytest.raises(IsolationError, match=r"'lxc\.no\.such' of lxc to '1'"):
        configure(tmp_path, Item("lxc.no.such", "1"))


def test_a_value_that_liblxc_refuses_is_named(
    need_root: None, liblxc: None, tmp_path: Path
) -> None:
    with pytest.raises(IsolationError, match=r"'lxc\.autodev' of lxc to 'perhaps'"):
        configure(tmp_path, Item("lxc.autodev", "perhaps"))


def test_a_value_that_liblxc_quietly_takes_for_another_is_named(
    need_root: None, liblxc: None, tmp_path: Path
) -> None:
    # It reads `none` as: no list, and then every capability is kept.
    with pytest.raises(IsolationError, match=r"lxc\.cap\.keep"):
        configure(tmp_path, Item("lxc.cap.keep", "none"))


def test_what_liblxc_takes_as_it_is_is_no_error(
    need_root: None, liblxc: None, tmp_path: Path
) -> None:
    configure(tmp_path, Item("lxc.uts.name", "box"), Item("lxc.tty.max", "0"))
