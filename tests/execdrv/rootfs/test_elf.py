from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from execdrv.rootfs.elf import Libraries, Library, parse_ld_cache, read_elf

Build = Callable[..., str]

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Compile a program or (name with .so) a library that calls `calls`."""

    def compile_one(path: str, *options: str, calls: str = "", links: tuple[str, ...] = ()) -> str:
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        name = target.name.partition(".")[0].removeprefix("lib")
        source = tmp_path / f"{name}.c"
        function = f"int {name}(void)" if ".so" in path else "int main(void)"
        declare = f"int {calls}(void);" if calls else ""
        source.write_text(f"{declare} {function} {{ return {calls + '()' if calls else '0'}; }}")
        shared = ["-shared", "-fPIC", f"-Wl,-soname,{target.name}"] if ".so" in path else []
        # The test decides what is found where, not the linker.
        loose = ["-Wl,--no-as-needed", "-Wl,--unresolved-symbols=ignore-all"]
        libraries = [str(tmp_path / link) for link in links]
        command = ["gcc", "-o", str(target), str(source), *shared, *loose, *options, *libraries]
        subprocess.run(command, check=True, capture_output=True)
        return str(target)

    return compile_one


def found_in(libraries: Libraries, path: str) -> dict[str, str]:
    return {library.name: library.path for library in libraries.closure(path).libraries}


def loader_says(program: str) -> set[str]:
    """What ld.so itself resolves: the other observer. Run on our own programs only."""
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return {line.split(" => ")[1].split(" (")[0] for line in listed.splitlines() if " => /" in line}


@needs_gcc
@pytest.mark.parametrize("tag", ["--enable-new-dtags", "--disable-new-dtags"])
@pytest.mark.parametrize("where", ["$ORIGIN/../lib", "${ORIGIN}/../lib", "{tmp}/lib"])
def test_paths_in_the_file_are_followed(build: Build, tmp_path: Path, tag: str, where: str) -> None:
    library = build("lib/libone.so.1")
    rpath = where.replace("{tmp}", str(tmp_path))
    program = build("bin/prog", f"-Wl,{tag},-rpath,{rpath}", links=("lib/libone.so.1",))
    assert found_in(Libraries(), program)["libone.so.1"] == library
    found = found_in(Libraries(), program)
    # ldd shows the loader without an arrow.
    real = {str(Path(p).resolve()) for name, p in found.items() if not name.startswith("ld-")}
    assert real == {str(Path(path).resolve()) for path in loader_says(program)}


@needs_gcc
@pytest.mark.parametrize(("tag", "inherited"), [("--enable", False), ("--disable", True)])
def test_rpath_is_inherited_and_runpath_is_not(
    build: Build, tmp_path: Path, tag: str, inherited: bool
) -> None:
    build("lib/libtwo.so")
    build("lib/libone.so", links=("lib/libtwo.so",))
    flag = f"-Wl,{tag}-new-dtags,-rpath,{tmp_path}/lib"
    closure = Libraries().closure(build("prog", flag, links=("lib/libone.so",)))
    names = {library.name for library in closure.libraries}
    assert "libone.so" in names
    assert ("libtwo.so" in names) == inherited
    assert closure.missing == (() if inherited else ("libtwo.so",))


@needs_gcc
def test_a_library_loaded_at_run_time_uses_the_programs_rpath(build: Build, tmp_path: Path) -> None:
    build("lib/libtwo.so")
    program = build("prog", f"-Wl,--disable-new-dtags,-rpath,{tmp_path}/lib")
    module = build("module.so", links=("lib/libtwo.so",))
    libraries = Libraries()
    assert libraries.closure(module).missing == ("libtwo.so",)
    assert libraries.closure(module, loaded_by=program).missing == ()


@needs_gcc
def test_a_file_that_is_no_library_is_passed_over(build: Build, tmp_path: Path) -> None:
    library = build("good/libone.so")
    flag = f"-Wl,-rpath,{tmp_path}/bad:{tmp_path}/worse:{tmp_path}/good"
    program = build("prog", flag, links=("good/libone.so",))
    for directory, content in (("bad", b"\x7fELF damaged"), ("worse", b"text")):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "libone.so").write_bytes(content)
    assert found_in(Libraries(), program)["libone.so"] == library


@needs_gcc
def test_a_missing_library_is_named(build: Build, tmp_path: Path) -> None:
    gone = build("lib/libgone.so")
    program = build("prog", links=("lib/libgone.so",))
    Path(gone).unlink()
    assert Libraries().closure(program).missing == ("libgone.so",)


@needs_gcc
def test_relative_paths_in_the_file_are_not_used(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build("lib/libone.so")
    program = build("prog", "-Wl,-rpath,lib::", links=("lib/libone.so",))
    monkeypatch.chdir(tmp_path)
    assert Libraries().closure(program).missing == ("libone.so",)


@needs_gcc
def test_a_static_program_needs_nothing(build: Build) -> None:
    try:
        program = build("prog", "-static")
    except subprocess.CalledProcessError:
        pytest.skip("no static libc is installed")
    closure = Libraries().closure(program)
    assert (closure.interpreter, closure.libraries, closure.missing) == (None, (), ())


@needs_gcc
def test_a_missing_loader_is_named(build: Build) -> None:
    program = build("prog", "-Wl,--dynamic-linker,/nowhere/ld.so")
    assert Libraries().closure(program).missing == ("/nowhere/ld.so",)


def test_the_shell_of_this_machine_resolves_as_its_loader_does() -> None:
    shell = str(Path("/bin/sh").resolve())
    closure = Libraries().closure(shell)
    assert closure.interpreter and closure.missing == ()
    if shutil.which("ldd") and not Path("/lib/ld-musl-x86_64.so.1").exists():
        ours = {str(Path(library.path).resolve()) for library in closure.libraries}
        assert {str(Path(path).resolve()) for path in loader_says(shell)} <= ours


@pytest.mark.parametrize("cut", [4, 5, 16, 20, 52, 64, 100, 700])
def test_a_damaged_file_is_no_elf(tmp_path: Path, cut: int) -> None:
    whole = Path("/bin/sh").read_bytes()
    damaged = tmp_path / "damaged"
    damaged.write_bytes(whole[:cut])
    assert read_elf(str(damaged)) is None
    damaged.write_bytes(whole[:cut] + b"\xff" * (len(whole) - cut))
    read_elf(str(damaged))  # any answer, no exception


def test_text_is_no_elf(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("#!/bin/sh\n")
    assert read_elf(str(tmp_path / "x")) is None


def make_ld_cache(entries: list[tuple[str, str, int]], *, old: bool = False) -> bytes:
    header = 48
    strings = b""
    records = b""
    start = header + 24 * len(entries)
    for name, path, hardware in entries:
        key = start + len(strings)
        strings += name.encode() + b"\0"
        value = start + len(strings)
        strings += path.encode() + b"\0"
        records += struct.pack("=iIIIQ", 0x0303, key, value, 0, hardware)
    table = b"glibc-ld.so.cache1.1" + struct.pack("=II", len(entries), len(strings))
    table = table.ljust(header, b"\0") + records + strings
    prefix = b"ld.so-1.7.0\0" + struct.pack("=I", 0)
    return (prefix if old else b"") + table


@pytest.mark.parametrize("old", [False, True])
def test_the_loaders_table_is_read(old: bool) -> None:
    data = make_ld_cache(
        [("liba.so", "/x/hw/liba.so", 1 << 62), ("liba.so", "/x/liba.so", 0),
         ("liba.so", "/y/liba.so", 0), ("libb.so", "/x/libb.so", 0)],
        old=old,
    )  # fmt: skip
    assert parse_ld_cache(data) == {
        "liba.so": ["/x/liba.so", "/y/liba.so"],
        "libb.so": ["/x/libb.so"],
    }


@pytest.mark.parametrize("length", [0, 10, 20, 47, 48, 60])
def test_a_cut_table_is_empty(length: int) -> None:
    assert parse_ld_cache(make_ld_cache([("a", "/a", 0), ("b", "/b", 0)])[:length]) == {}


def test_a_found_library_says_how() -> None:
    closure = Libraries().closure("/bin/sh")
    if not closure.libraries:
        pytest.skip("the shell of this machine is static")
    assert isinstance(closure.libraries[0], Library) and closure.libraries[0].searched
