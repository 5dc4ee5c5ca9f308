"""The recipe `python3`: an interpreter, its standard library, and what its modules need.

No closure gives these: encodings, lib-dynload and the rest are found by path. The interpreter is
asked where they are (-I -S, empty environment). Left out are tests, IDLE, tkinter, pip's parts and
installed packages. Compiled files (.pyc) are kept, for a job can't write them: without them a start
takes about ten times as long; where a machine has none (slim images) they are made in the tree.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import attrs

from execdrv.errors import UnsupportedError

if TYPE_CHECKING:
    from execdrv.rootfs.recipe import Recipe

#: Where a python is looked for, the system's first; then the one that runs this.
CANDIDATES = ("/usr/bin/python3", "/usr/local/bin/python3", "/bin/python3")

#: An older one is not chosen by itself; execdrv's probes are written for this one.
OLDEST = (3, 11)

#: A prefix below one of these keeps its place. Others (a version manager in a home, a directory
#: that containers mount over) go to /opt/pythonX.Y: python finds its library from where it lies.
KEPT_PREFIXES = ("/usr", "/opt")

#: Parts of the standard library that are left out: at its top level,
LEFT_OUT = (
    "dist-packages",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "sitecustomize.py",
    "tkinter",
    "turtledemo",
)
#: on any level,
LEFT_OUT_ANYWHERE = ("idle_test", "test", "tests")
#: and by the start or end of a name: modules for tests and for tkinter, files for building.
LEFT_OUT_MODULES = ("_ctypes_test", "_test", "_tkinter", "_xx", "xx")
LEFT_OUT_ENDS = (".a", ".o", ".opt-1.pyc", ".opt-2.pyc")

#: The modules without which it is no python for us (Debian's python3-minimal has not all).
_QUESTION = """
import sys, json, socket, ctypes, struct, encodings
print(json.dumps({
    "executable": getattr(sys, "_base_executable", "") or sys.executable,
    "prefix": sys.base_prefix,
    "path": [entry for entry in sys.path if entry],
    "version": sys.version_info[:2],
}))
"""
_ANSWER_S = 20


@attrs.frozen(kw_only=True)
class Python:
    """An interpreter of this machine."""

    executable: str
    #: Directory from which it finds its library, links resolved.
    prefix: str
    #: The parts of its standard library: directories and perhaps a zip file.
    path: tuple[str, ...]
    version: tuple[int, int]


def detect_python(executable: str) -> Python | None:
    """What an interpreter says of itself; the one below, if it is a virtual environment's. None if
    it does not run or lacks a module that is needed."""
    import subprocess  # only where a tree is made

    try:
        answer = subprocess.run(
            [executable, "-I", "-S", "-c", _QUESTION],
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_ANSWER_S,
            check=True,
        ).stdout
        said = json.loads(answer)
        return Python(
            executable=str(said["executable"]),
            prefix=os.path.realpath(said["prefix"]),
            path=tuple(os.path.realpath(entry) for entry in said["path"] if os.path.exists(entry)),
            version=(int(said["version"][0]), int(said["version"][1])),
        )
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError, IndexError):
        return None


def choose_python() -> Python:
    """The python for a root when none is named.

    Raises:
        UnsupportedError: there is none of version OLDEST or newer with its standard library.
    """
    for executable in (*CANDIDATES, sys.executable):
        found = detect_python(executable) if executable else None
        if found and found.version >= OLDEST:
            return found
    raise UnsupportedError(
        "cannot make a root file system with 'python3': this machine has no complete python "
        f"{OLDEST[0]}.{OLDEST[1]} or newer",
        hint="install 'python3' (apt-get install python3)",
        reason="no python3",
    )


def keep_library(path: str) -> bool:
    """Whether a part of the standard library is wanted.

    Args:
        path: below the library's directory.
    """
    parts = path.split("/")
    name = parts[-1]
    if parts[0] in LEFT_OUT or parts[0].startswith("config-") or name in LEFT_OUT_ANYWHERE:
        return False
    if name.endswith(".so") and name.startswith(LEFT_OUT_MODULES):
        return False
    return not name.endswith(LEFT_OUT_ENDS)


def add_python(recipe: Recipe, path: str | None) -> str:
    """Add an interpreter and its library to a recipe, with /usr/bin/python3 leading to it.

    Args:
        path: the interpreter, or None for the best one.

    Returns:
        The interpreter's path on this machine.

    Raises:
        UnsupportedError: it does not run, or a library of it is not on this machine.
    """
    python = detect_python(path) if path else choose_python()
    if python is None:
        raise UnsupportedError(
            f"cannot add {path!r} to a root file system: it does not run as a complete python",
            hint="install its standard library, or name another python",
            reason="no complete python",
        )
    planner = recipe.planner
    version = f"{python.version[0]}.{python.version[1]}"
    if not python.prefix.startswith(KEPT_PREFIXES):
        planner.move(python.prefix, f"opt/python{version}")
    recipe.add_closure(python.executable)
    place = planner.add_file(python.executable)
    for part in python.path:
        if not os.path.isdir(part):
            planner.add_file(part)
        elif not any(part.startswith(other + "/") for other in python.path):
            files = planner.add_directory(part, keep=keep_library)
            recipe.add_libraries(files, loaded_by=python.executable)
            sources = sum(file.endswith(".py") for file in files)
            compiled = sum(file.endswith(".pyc") for file in files)
            if compiled < sources / 2:
                planner.compiled.append((python.executable, planner.destination(part)))
    for name in ("python3", f"python{version}"):
        planner.add_link(f"usr/bin/{name}", place)
    return python.executable
