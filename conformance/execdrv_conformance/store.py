"""The files of a run: one directory, which all its workers share, and the lock that says it lives.

A file is written once and renamed into place. A process that works in a run directory holds a lock
on the directory itself for as long as it lives: `sweep` takes away what nobody holds. Knows nothing
of what the files say.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Every name that a run makes on the machine begins so; `sweep` removes only such.
PREFIX = "xdc-"

#: Descriptors with the locks of this process's runs, and how often each was asked for.
_held: dict[Path, tuple[int, int]] = {}
_guard = threading.Lock()


def make_run_directory() -> Path:
    """A directory for one run, whose name is the run's; this process holds it."""
    path = Path(tempfile.mkdtemp(prefix=PREFIX))
    # Jobs of any user pass through it to their root; the name is no secret.
    path.chmod(0o755)
    hold_run(path)
    return path


def remove_run_directory(path: Path) -> None:
    """Take a run's files away. Repeatable."""
    shutil.rmtree(path, ignore_errors=True)
    release_run(path)


def find_run(directory: Path) -> Path:
    """The run's own directory: this one, or one around it."""
    for above in (directory, *directory.parents):
        if above.name.startswith(PREFIX):
            return above
    return directory


def hold_run(directory: Path) -> None:
    """Say that a run lives, until this process ends or has released it as often."""
    path = find_run(directory)
    with _guard:
        fd, count = _held.get(path, (-1, 0))
        if not count:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_SH)
        _held[path] = fd, count + 1


def release_run(directory: Path) -> None:
    """Hold a run no longer; its files may stay. Repeatable."""
    path = find_run(directory)
    with _guard:
        fd, count = _held.pop(path, (-1, 0))
        if count > 1:
            _held[path] = fd, count - 1
        elif count:
            os.close(fd)


def name_run(directory: Path) -> str:
    """How the names of all groups of a directory's sessions begin."""
    run = find_run(directory)
    parts = [run.name, *directory.relative_to(run).parts]
    return "-".join(parts if run.name.startswith(PREFIX) else [PREFIX.rstrip("-"), *parts])


def write_json(path: Path, data: Any) -> None:
    """Write a file that is there wholly or not at all; in the order in which a report has it."""
    draft = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.draft")
    draft.write_text(json.dumps(data, sort_keys=True))
    draft.rename(path)


def read_json(path: Path) -> dict[str, Any]:
    """What a file holds. NaN and the infinities, which are no JSON, become words."""
    data: dict[str, Any] = json.loads(path.read_text(), parse_constant=str)
    return data


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Run the block while nobody else does, in this process or another."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
