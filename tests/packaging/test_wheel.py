"""What a build gives: the wheel against git's list of files, the sdist, the editable install.

The builds run in copies of the tree through the PEP 517 functions of setuptools, without an
isolated environment: that takes seconds and no network, and builds the same files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]
ROOTS = {
    "execdrv": TREE / "execdrv",
    "execdrv_native": TREE / "drivers/native/execdrv_native",
    "execdrv_lxc": TREE / "drivers/lxc/execdrv_lxc",
    "execdrv_chroot": TREE / "drivers/chroot/execdrv_chroot",
    "execdrv_conformance": TREE / "conformance/execdrv_conformance",
}
INIT = "execdrv/init/execdrv-init"
#: Files outside the packages that a build reads.
BUILD_FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE")


def list_git_files(*paths: Path) -> list[Path]:
    """Files of the tree as git sees it: tracked or new, not ignored, not deleted."""
    if not (TREE / ".git").exists() or shutil.which("git") is None:
        pytest.skip("no git clone here to compare with")
    command = ["git", "-c", f"safe.directory={TREE}", "ls-files", "-z", "-co", "--exclude-standard"]
    done = subprocess.run(
        [*command, "--", *map(str, paths)], cwd=TREE, capture_output=True, text=True, check=True
    )
    return [TREE / name for name in done.stdout.split("\0") if name and (TREE / name).exists()]


def run_backend(
    function: str, folder: Path, out: Path, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Call one build function of setuptools in `folder`; the result's file name ends stdout."""
    code = (
        "import sys, setuptools.build_meta as backend\n"
        f"name = backend.{function}(sys.argv[1])\n"
        "sys.stdout.write('\\n' + name)"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(out)],
        cwd=folder,
        env={**os.environ, **environ},
        umask=0o077,  # modes in the wheel must come from the build, not from the caller
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def build(function: str, folder: Path, out: Path) -> Path:
    done = run_backend(function, folder, out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / done.stdout.splitlines()[-1]


def copy_tree(target: Path) -> Path:
    for source in list_git_files(*ROOTS.values(), *(TREE / name for name in BUILD_FILES)):
        copy = target / source.relative_to(TREE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, copy)
    return target


def list_wheel(wheel: Path) -> dict[str, zipfile.ZipInfo]:
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry for entry in archive.infolist() if not entry.is_dir()}


def read_metadata(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [entry for entry in archive.namelist() if entry.endswith(f".dist-info/{name}")]
        return archive.read(path).decode()


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("sdist")
    return build("build_sdist", copy_tree(base / "tree"), base / "out")


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["tar", "-xf", str(sdist), "-C", str(base)], check=True)
    (folder,) = base.iterdir()
    return folder


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("build_wheel", unpacked, tmp_path_factory.mktemp("wheel"))


def test_wheel_from_sdist_has_gits_files_and_the_init_and_nothing_else(wheel: Path) -> None:
    expected = {INIT}
    for package, root in ROOTS.items():
        files = list_git_files(root)
        assert root / "__init__.py" in files, f"{package} has no __init__.py: it is in no wheel"
        expected |= {str(Path(package, file.relative_to(root))) for file in files}
    found = {name for name in list_wheel(wheel) if ".dist-info/" not in name}
    assert sorted(found - expected) == []
    assert sorted(expected - found) == []


def test_wheel_is_for_one_architecture_and_any_python_3(wheel: Path) -> None:
    assert "-py3-none-linux_" in wheel.name
    assert "Root-Is-Purelib: false" in read_metadata(wheel, "WHEEL")


def test_init_in_the_wheel_is_executable_and_static(wheel: Path, tmp_path: Path) -> None:
    from elftools.elf.elffile import ELFFile

    assert list_wheel(wheel)[INIT].external_attr >> 16 & 0o777 == 0o755
    with zipfile.ZipFile(wheel) as archive:
        path = archive.extract(INIT, tmp_path)
    with open(path, "rb") as file:
        segments = [segment["p_type"] for segment in ELFFile(file).iter_segments()]
    assert "PT_LOAD" in segments
    assert "PT_INTERP" not in segments


def test_metadata_names_version_extras_drivers_and_command(wheel: Path, unpacked: Path) -> None:
    metadata = read_metadata(wheel, "METADATA").splitlines()
    version = (unpacked / "execdrv/version.py").read_text()
    (found,) = [line.removeprefix("Version: ") for line in metadata if line.startswith("Version: ")]
    assert f'VERSION = "{found}"' in version
    assert {"Provides-Extra: lxc", "Provides-Extra: conformance"} <= set(metadata)
    assert "License-Expression: MIT" in metadata
    entry_points = read_metadata(wheel, "entry_points.txt").splitlines()
    assert "execdrv = execdrv.cli:main" in entry_points
    group = entry_points[entry_points.index("[execdrv]") + 1 :][:3]
    assert [line.partition(" = ")[0] for line in group] == ["chroot", "lxc", "native"]


def test_deleted_module_does_not_come_back_from_an_old_build_folder(
    unpacked: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(unpacked, tmp_path / "tree")
    gone = folder / "execdrv/gone.py"
    gone.write_text("")
    assert "execdrv/gone.py" in list_wheel(build("build_wheel", folder, tmp_path / "first"))
    gone.unlink()
    assert "execdrv/gone.py" not in list_wheel(build("build_wheel", folder, tmp_path / "second"))


def test_editable_install_finds_all_packages_and_its_own_init(
    unpacked: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(unpacked, tmp_path / "tree")
    with zipfile.ZipFile(build("build_editable", folder, tmp_path / "out")) as archive:
        archive.extractall(tmp_path / "site")
    names = ", ".join(ROOTS)
    code = (
        f"import site; site.addsitedir({str(tmp_path / 'site')!r})\n"
        "from importlib.util import find_spec\n"
        f"for name in {names!r}.split(', '): print(find_spec(name).origin)"
    )
    # -S: the environment's own installed execdrv must not answer.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    expected = [str(folder / root.relative_to(TREE) / "__init__.py") for root in ROOTS.values()]
    assert done.stdout.splitlines() == expected
    assert os.access(folder / INIT, os.X_OK)


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"CC": "no-such-compiler -O3"}, "no C compiler found as 'no-such-compiler' (from $CC)"),
        ({"CC": "", "PATH": "/nonexistent"}, "no C compiler found as 'gcc' or 'cc'"),
        ({"CC": "gcc -l-no-such-library"}, "cannot find -l-no-such-library"),
    ],
    ids=["CC not there", "nothing on PATH", "library missing"],
)
def test_build_without_compiler_or_library_says_what_to_install(
    environ: dict[str, str], reason: str, unpacked: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(unpacked, tmp_path / "tree")
    done = run_backend("build_wheel", folder, tmp_path / "out", **environ)
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: cannot build execdrv-init: ")
    assert reason in last
    assert "install gcc and libc6-dev" in last
