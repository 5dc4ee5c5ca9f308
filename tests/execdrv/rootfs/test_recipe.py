from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from execdrv.errors import SpecError, UnsupportedError
from execdrv.rootfs import make_root, recipe
from execdrv.rootfs.elf import Libraries
from execdrv.rootfs.plan import Link, Plan
from execdrv.rootfs.recipe import Recipe, find_command, normal_names, plan_root, read_shebang

Runner = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.usefixtures("tiny_base")


def write_program(path: Path, text: str, mode: int = 0o755) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def plan_with(*names: str) -> Plan:
    return plan_root(normal_names(names), scratch_mode=0o755)


@pytest.mark.parametrize(
    "names",
    [
        ["execdrv-no-such-command"],
        ["/no/such/file"],
        ["relative/path"],
        ["./x"],
        [""],
        ["a\0b"],
        [7],
        "python3",
        b"ls",
        ["/etc/passwd"],  # there, not executable
        ["/etc"],
        ["/"],
        ["/proc"],
        ["/proc/self/fd"],
        ["/tmp"],
        ["/dev/null"],
        [".."],
    ],
)
def test_a_wrong_name_is_a_spec_error(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        make_root(names, cache=str(tmp_path / "cache"))
    value = names[0] if isinstance(names, list) else names
    assert caught.value.field == "with"
    assert caught.value.value in (value, repr(value))
    assert str(caught.value).startswith("cannot add ") and repr(value) in str(caught.value)


def test_names_are_a_set() -> None:
    assert normal_names(["b", "a", "b"]) == ("a", "b")


@pytest.mark.parametrize(("command", "package"), [("sh", "dash"), ("cat", "coreutils")])
def test_a_missing_core_command_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, package: str
) -> None:
    for name in ("sh", "cat"):
        if name != command:
            (tmp_path / name).symlink_to(f"/bin/{name}")
    monkeypatch.setattr(recipe, "TRUSTED_PATH", (str(tmp_path), str(tmp_path)))
    with pytest.raises(UnsupportedError, match=f"has no '{command}'") as caught:
        make_root(cache=str(tmp_path / "cache"))
    assert f"apt-get install {package}" in caught.value.hint
    assert os.listdir(tmp_path / "cache") == ["make.lock"]


def test_a_missing_optional_command_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "OPTIONAL", {"p": "execdrv-a true", "q": "execdrv-b"})
    plan = plan_with()
    assert plan.missing == ("execdrv-a", "execdrv-b")
    assert "/usr/bin/execdrv-a" in plan.inputs and "usr/bin/true" in plan.entries


def test_the_callers_path_has_no_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E23: a directory of same-named scripts comes first in PATH."""
    write_program(tmp_path / "cat", "#!/bin/sh\n")
    write_program(tmp_path / "execdrv-only-here", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert find_command("cat") in ("/usr/bin/cat", "/bin/cat", "/usr/local/bin/cat")
    assert find_command("execdrv-only-here") is None


def test_a_command_must_be_an_executable_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "TRUSTED_PATH", (str(tmp_path / "a"), str(tmp_path / "b")))
    (tmp_path / "a" / "x").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    write_program(tmp_path / "b" / "x", "", mode=0o644)
    assert find_command("x") is None
    (tmp_path / "b" / "x").chmod(0o755)
    assert find_command("x") == str(tmp_path / "b" / "x")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("#!/bin/sh\nrest", ["/bin/sh"]),
        ("#! /usr/bin/env  cat -u\n", ["/usr/bin/env", "cat", "-u"]),
        ("#!\n/bin/sh", []),
        ("no\n", []),
        ("", []),
        ("\x7fELF", []),
    ],
)
def test_the_interpreter_line_is_read(tmp_path: Path, line: str, words: list[str]) -> None:
    assert read_shebang(write_program(tmp_path / "x", line)) == words


@pytest.mark.parametrize(
    "line", ["/usr/bin/env sort", "/usr/bin/env -S A=1 sort -r", "/usr/bin/sort"]
)
def test_a_script_brings_its_interpreter(open_dir: Path, line: str) -> None:
    script = write_program(open_dir / "script", f"#!{line}\n")
    entries = plan_with(script).entries
    assert "usr/bin/sort" in entries and script.strip("/") in entries
    assert ("usr/bin/env" in entries) == ("env" in line)
    assert "usr/bin/sort" not in plan_with().entries


def test_a_script_without_its_interpreter_is_refused(open_dir: Path) -> None:
    script = write_program(open_dir / "script", "#!/no/such/interpreter\n")
    with pytest.raises(UnsupportedError, match="'/no/such/interpreter' is not on this machine"):
        plan_with(script)
    script = write_program(open_dir / "script", "#!/usr/bin/env execdrv-none\n")
    with pytest.raises(UnsupportedError, match="'execdrv-none' is not on this machine"):
        plan_with(script)


def test_a_failed_program_is_not_taken_for_added(open_dir: Path) -> None:
    script = write_program(open_dir / "script", "#!/no/such/interpreter\n")
    one = Recipe()
    for _ in range(2):
        with pytest.raises(UnsupportedError):
            one.add_program(script)


def test_a_script_that_is_its_own_interpreter_ends(open_dir: Path) -> None:
    script = open_dir / "script"
    write_program(script, f"#!{script}\n")
    assert str(script).strip("/") in plan_with(str(script)).entries


def test_a_program_elsewhere_can_be_called_by_name(open_dir: Path) -> None:
    program = write_program(open_dir / "execdrv-tool", "#!/bin/sh\n")
    entry = plan_with(program).entries["usr/local/bin/execdrv-tool"]
    assert entry == Link("../../.." + program)


def test_a_program_that_a_mount_would_cover_is_moved(tmp_path: Path, run_in: Runner) -> None:
    if not str(tmp_path).startswith(recipe.COVERED):
        pytest.skip("the scratch directory of this run is not below /tmp")
    program = write_program(tmp_path / "execdrv-tool", "#!/bin/sh\necho moved\n")
    root = make_root([program], cache=str(tmp_path / "cache"))
    assert os.path.isfile(f"{root.path}/usr/local/bin/execdrv-tool")
    assert not os.path.islink(f"{root.path}/usr/local/bin/execdrv-tool")
    assert run_in(root.path, "/usr/local/bin/execdrv-tool").stdout == "moved\n"


def test_a_library_of_the_loaders_table_is_found_without_it(
    tmp_path: Path, open_dir: Path, run_in: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its directory is no default one, and the tree has no ld.so.cache."""
    if not os.path.exists("/usr/bin/gcc"):
        pytest.skip("gcc is not installed")
    library, program = open_dir / "libexecdrvtest.so.1", open_dir / "prog"
    (open_dir / "lib.c").write_text("int f(void) { return 42; }")
    (open_dir / "prog.c").write_text("int f(void); int main(void) { return f(); }")
    shared = ["-shared", "-fPIC", f"-Wl,-soname,{library.name}"]
    for command in ([str(library), "lib.c", *shared], [str(program), "prog.c", str(library)]):
        subprocess.run(["gcc", "-o", *command], cwd=open_dir, check=True)
    find = Libraries.__init__

    def with_table(self: Libraries) -> None:
        find(self)
        self._cached[library.name] = [str(library)]

    monkeypatch.setattr(Libraries, "__init__", with_table)
    root = make_root([str(program)], cache=str(tmp_path / "cache"))
    assert run_in(root.path, str(program)).returncode == 42


def test_a_directory_brings_the_libraries_of_its_programs(open_dir: Path, run_in: Runner) -> None:
    (open_dir / "tool").mkdir()
    for name in ("sort", "sort.so"):
        (open_dir / "tool" / name).write_bytes(Path("/usr/bin/sort").read_bytes())
        (open_dir / "tool" / name).chmod(0o755)
    (open_dir / "tool" / "data").write_text("b\na\n")
    root = make_root([str(open_dir / "tool")], output=str(open_dir / "out"))
    done = run_in(root.path, f"{open_dir}/tool/sort", f"{open_dir}/tool/data")
    assert done.stdout == "a\nb\n"
    assert root.missing == ()


def test_a_directory_link_leads_to_the_copy(open_dir: Path) -> None:
    (open_dir / "v1").mkdir()
    (open_dir / "current").symlink_to("v1")
    entries = plan_with(str(open_dir / "current")).entries
    assert entries[f"{open_dir}/current".strip("/")] == Link("v1")


def test_names_with_odd_bytes_are_kept(open_dir: Path) -> None:
    program = os.fsdecode(os.fsencode(open_dir) + b"/odd \xff\n")
    write_program(Path(program), "#!/bin/sh\n")
    root = make_root([program], cache=str(open_dir / "cache"))
    assert os.path.exists(root.path + program)
    assert make_root([program], cache=str(open_dir / "cache")) == root
