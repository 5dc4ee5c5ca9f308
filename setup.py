"""Builds execdrv-init and puts it into the wheel; all other metadata stands in pyproject.toml.

The init is one static C program that becomes pid 1 of every container. It is compiled while the
packages are built: into the build tree for a wheel, next to its source for an editable install.
So the wheel belongs to one architecture, but to no Python version: py3-none-<platform>.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError, ExecError

INIT_PACKAGE = "execdrv.init"
INIT_NAME = "execdrv-init"
INIT_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-static", "-s")
HINT = "install gcc and libc6-dev (on other systems: a C compiler and a static C library)"


def find_compiler() -> list[str]:
    """The compiler as an argument list: $CC, which may carry options, else gcc, else cc."""
    asked = shlex.split(os.environ.get("CC", ""))
    for command in [asked] if asked else [["gcc"], ["cc"]]:
        if shutil.which(command[0]):
            return command
    names = repr(asked[0]) + " (from $CC)" if asked else "'gcc' or 'cc'"
    raise ExecError(f"cannot build {INIT_NAME}: no C compiler found as {names}; {HINT}")


def compile_init(source: Path, target: Path) -> None:
    """Compile `source` to `target`, mode 0755. When this raises, an older target is untouched."""
    fresh = target.with_name(target.name + ".tmp")
    command = [*find_compiler(), *INIT_FLAGS, "-o", str(fresh), str(source)]
    print(shlex.join(command), flush=True)
    done = subprocess.run(
        command, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True, check=False
    )
    print(done.stdout + done.stderr, end="", flush=True)
    if done.returncode != 0:
        fresh.unlink(missing_ok=True)
        # The first complaint is the cause: no header, no libc.a, or a mistake in the source.
        complaints = [
            line.strip()
            for line in done.stderr.splitlines()
            if ("error: " in line or ": cannot find " in line) and not line.startswith("collect2")
        ]
        cause = complaints[0] if complaints else f"{command[0]!r} ended with {done.returncode}"
        raise CompileError(f"cannot build {INIT_NAME}: {cause}; {HINT}")
    fresh.chmod(0o755)
    fresh.replace(target)  # by name: a running init of an editable install keeps its own file


class BuildPackages(build_py):
    """Copies the packages without what an earlier build left, then adds the init."""

    def run(self) -> None:
        if not self.editable_mode:
            # build/ outlives a build: a module deleted since would still go into the wheel.
            for package in {name.partition(".")[0] for name in self.packages or []}:
                shutil.rmtree(Path(self.build_lib, package), ignore_errors=True)
        super().run()
        source = Path(self.get_package_dir(INIT_PACKAGE), INIT_NAME + ".c")
        target = self._init_path()
        target.parent.mkdir(parents=True, exist_ok=True)
        compile_init(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), str(self._init_path())]

    def get_output_mapping(self) -> dict[str, str]:
        # A strict editable install links each output to its source, the init to itself.
        built = Path(self.build_lib, *INIT_PACKAGE.split("."), INIT_NAME)
        in_tree = Path(self.get_package_dir(INIT_PACKAGE), INIT_NAME)
        return {**super().get_output_mapping(), str(built): str(in_tree)}

    def _init_path(self) -> Path:
        if self.editable_mode:
            return Path(self.get_package_dir(INIT_PACKAGE), INIT_NAME)
        return Path(self.build_lib, *INIT_PACKAGE.split("."), INIT_NAME)


class PlatformWheel(bdist_wheel):
    """Any Python 3, no ABI, this platform."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


class PlatformDistribution(Distribution):
    """Not pure Python, though without extension modules."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    cmdclass={"build_py": BuildPackages, "bdist_wheel": PlatformWheel},
    distclass=PlatformDistribution,
    ext_modules=[],
)
