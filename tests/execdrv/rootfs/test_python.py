from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from execdrv.errors import UnsupportedError
from execdrv.rootfs import Root, make_root, python, verify_root
from execdrv.rootfs.python import Python, choose_python, detect_python, keep_library

Runner = Callable[..., subprocess.CompletedProcess[str]]

IMPORTS = "import json, socket, ctypes, struct, encodings, sys; print(sys.version_info[:2])"


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("json/decoder.py", True),
        ("json/__pycache__/decoder.cpython-311.pyc", True),
        ("json/__pycache__/decoder.cpython-311.opt-1.pyc", False),
        ("test", False),
        ("unittest/test", False),
        ("sqlite3/test", False),
        ("ctypes/tests", False),
        ("tkinter", False),
        ("concurrent/tkinter", True),
        ("config-3.11-x86_64-linux-gnu", False),
        ("site-packages", False),
        ("lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so", True),
        ("lib-dynload/_testcapi.cpython-311-x86_64-linux-gnu.so", False),
        ("lib-dynload/_tkinter.cpython-311-x86_64-linux-gnu.so", False),
        ("lib-dynload/xxlimited.cpython-311-x86_64-linux-gnu.so", False),
        ("_testing.py", True),
    ],
)
def test_what_of_the_library_is_kept(path: str, kept: bool) -> None:
    assert keep_library(path) == kept


def test_an_interpreter_says_where_its_library_is() -> None:
    found = detect_python(sys.executable)
    assert found is not None
    assert found.version == sys.version_info[:2]
    assert found.prefix == os.path.realpath(sys.base_prefix)
    assert os.path.dirname(os.path.realpath(os.__file__)) in found.path
    assert os.path.realpath(found.executable).startswith(found.prefix)


@pytest.mark.parametrize("text", ["exit 1", "echo", "echo '{}'", "echo '[]'", "kill $$"])
def test_what_is_no_python_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "python3").write_text(f"#!/bin/sh\n{text}\n")
    (tmp_path / "python3").chmod(0o755)
    assert detect_python(str(tmp_path / "python3")) is None
    assert detect_python(str(tmp_path / "nosuch")) is None


def test_an_interpreter_that_does_not_answer_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python3").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "python3").chmod(0o755)
    monkeypatch.setattr(python, "_ANSWER_S", 0.2)
    assert detect_python(str(tmp_path / "python3")) is None


def test_the_systems_python_is_preferred_if_it_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(executable: str) -> Python | None:
        version = {"/usr/bin/python3": system, sys.executable: (3, 12)}.get(executable)
        return version and Python(executable=executable, prefix="/usr", path=(), version=version)

    monkeypatch.setattr(python, "detect_python", answer)
    system: tuple[int, int] | None = (3, 11)
    assert choose_python().executable == "/usr/bin/python3"
    for system in ((3, 9), None):  # noqa: B007
        assert choose_python().executable == sys.executable
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(UnsupportedError, match="no complete python") as caught:
        choose_python()
    assert "apt-get install python3" in caught.value.hint


def test_the_interpreter_that_runs_this_works_in_a_chroot(
    tmp_path: Path, tiny_base: None, run_in: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is: the system's, a version manager's in a home, or below a virtual one."""
    monkeypatch.setattr(python, "CANDIDATES", ())
    root = make_root(["python3"], cache=str(tmp_path / "cache"))
    command = ("/usr/bin/python3", "-I", "-S", "-c", IMPORTS + "; print(sys.prefix)")
    done = run_in(root.path, *command, uid=54321)
    version, prefix = done.stdout.splitlines()
    assert version == str(sys.version_info[:2])
    base = os.path.realpath(sys.base_prefix)
    if base.startswith(python.KEPT_PREFIXES):
        assert prefix == base
    else:
        assert prefix == f"/opt/python{sys.version_info[0]}.{sys.version_info[1]}"
        assert not os.path.lexists(root.path + base)


def test_a_named_interpreter_brings_its_library(
    tmp_path: Path, tiny_base: None, run_in: Runner
) -> None:
    executable = f"{os.path.dirname(sys.executable)}/python3"
    if not os.path.exists(executable):
        pytest.skip("this interpreter has another name")
    root = make_root([executable], cache=str(tmp_path / "cache"))
    assert run_in(root.path, "/usr/bin/python3", "-I", "-S", "-c", IMPORTS).returncode == 0


def test_a_script_for_python_runs(tmp_path: Path, open_dir: Path, run_in: Runner) -> None:
    if detect_python("/usr/bin/python3") is None:
        pytest.skip("this machine has no complete /usr/bin/python3")
    (open_dir / "script").write_text("#!/usr/bin/python3 -IS\nimport json; print(json.dumps([1]))")
    (open_dir / "script").chmod(0o755)
    root = make_root([str(open_dir / "script")], output=str(tmp_path / "out"))
    assert run_in(root.path, f"{open_dir}/script").stdout == "[1]\n"


def test_compiled_files_are_made_where_the_machine_has_none(
    tmp_path: Path, tiny_base: None, run_in: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in slim images. A few modules will do to see it."""
    wanted = ("encodings", "json", "bisect.py", "codecs.py", "io.py", "abc.py", "lib-dynload")

    def keep(path: str) -> bool:
        return path.split("/")[0] in wanted and not path.endswith(".pyc") and keep_library(path)

    monkeypatch.setattr(python, "keep_library", keep)
    before = os.umask(0o077)
    try:
        root: Root = make_root(["python3"], cache=str(tmp_path / "cache"))
    finally:
        os.umask(before)
    assert root.missing == ()
    verify_root(root)
    compiled = list(Path(root.path).rglob("*.pyc"))
    sources = [p for p in Path(root.path).rglob("*.py") if p.parent.name != "lib-dynload"]
    assert len(compiled) == len(sources) > 50
    assert {path.stat().st_mode & 0o7777 for path in compiled} == {0o644}
    assert {path.parent.stat().st_mode & 0o7777 for path in compiled} == {0o755}
    command = ("/usr/bin/python3", "-I", "-S", "-v", "-c", "import bisect; print(bisect.__file__)")
    done = run_in(root.path, *command, uid=54321)
    assert done.returncode == 0 and "code object from /" not in done.stderr
    assert root.path not in done.stderr + done.stdout
