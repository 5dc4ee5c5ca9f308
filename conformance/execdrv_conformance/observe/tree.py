"""What a directory holds, as one word: to see whether anything below it has changed."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path


def digest(top: Path) -> str:
    """A hash of names, kinds, owners, modes, times and content, in this one file system.

    What is mounted below is left out; device nodes count by their numbers and are never opened.
    """
    found = hashlib.sha256()
    device = os.stat(top).st_dev
    waiting = [top]
    while waiting:
        directory = waiting.pop()
        with os.scandir(directory) as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                info = entry.stat(follow_symlinks=False)
                if info.st_dev != device:
                    continue
                found.update(f"{entry.path}\0{_describe(info)}\0".encode(errors="surrogateescape"))
                if stat.S_ISDIR(info.st_mode):
                    waiting.append(Path(entry.path))
                elif stat.S_ISREG(info.st_mode):
                    found.update(Path(entry.path).read_bytes())
                elif stat.S_ISLNK(info.st_mode):
                    found.update(os.fsencode(os.readlink(entry.path)))
    return found.hexdigest()[:16]


def find_named(top: Path, word: str) -> list[str]:
    """Paths below a directory, in this one file system, whose last name has a word in it."""
    found = []
    device = os.stat(top).st_dev
    for directory, names, files in os.walk(top):
        found += [os.path.join(directory, name) for name in (*names, *files) if word in name]
        names[:] = [
            name for name in names if os.lstat(os.path.join(directory, name)).st_dev == device
        ]
    return found


def _describe(info: os.stat_result) -> str:
    # Directories' times change with what comes and goes in them, which the names tell already.
    changed = 0 if stat.S_ISDIR(info.st_mode) else info.st_mtime_ns
    return f"{info.st_mode:o} {info.st_uid} {info.st_gid} {info.st_rdev} {changed}"
