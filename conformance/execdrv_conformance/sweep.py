"""What killed runs have left on the machine: finds it, and removes that and nothing else.

A run's things are named `xdc-...`: directories in the temporary directory, and groups. A run lives
while its directory is locked, while a number in one of its names is that of a process, or while any
process was started with its name; what lives is never touched. Runs outside the stand-in host.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import attrs

from execdrv_conformance.observe import group, mount, process
from execdrv_conformance.standin.guard import Guard
from execdrv_conformance.standin.key import list_keys, remove_keys
from execdrv_conformance.store import PREFIX

#: A directory younger than this may belong to a run that has not locked it yet. Seconds.
YOUNG_S = 10.0
#: `xdc-RUN-PID-N`: a stand-in host's name ends so.
_OWNER = re.compile(r"(\d+)-\d+$")


@attrs.define
class Swept:
    """What a sweep has found."""

    #: Paths that were removed (or would be).
    removed: list[str] = attrs.field(factory=list)
    #: Paths of runs that live.
    alive: list[str] = attrs.field(factory=list)
    #: Paths that could not be removed, with the reason.
    left: list[str] = attrs.field(factory=list)


def sweep(
    *,
    temporary: str | None = None,
    hierarchies: Iterable[str] | None = None,
    dry_run: bool = False,
) -> Swept:
    """Remove what dead runs have left.

    Args:
        temporary: the directory of the run directories; None: the machine's, and its keys too.
        hierarchies: mount points of control groups; None: this machine's.
        dry_run: only look.
    """
    top = temporary or tempfile.gettempdir()
    tops = group.list_hierarchies().values() if hierarchies is None else hierarchies
    words = dict(_list_words())
    swept = Swept()
    directories = list(_list_own(top))
    for path in sorted(set(_find_groups(tops))):
        run = next((one for one in directories if is_of(path, os.path.basename(one))), None)
        if _is_owned(path) or is_mentioned(path, words) or (run and _lives(run, words)):
            swept.alive.append(path)
        elif dry_run:
            swept.removed.append(path)
        else:
            _remove_group(path, swept, known=run is not None)
    for path in directories:
        if _lives(path, words):
            swept.alive.append(path)
        elif reason := _find_mount_below(path):
            swept.left.append(f"{path}: {reason} is mounted there")
        elif dry_run:
            swept.removed.append(path)
        else:
            shutil.rmtree(path, ignore_errors=True)
            if os.path.lexists(path):
                swept.left.append(f"{path}: it can't be removed")
            else:
                swept.removed.append(path)
    if temporary is None:
        _sweep_keys(swept, directories, words, dry_run=dry_run)
    return swept


def _sweep_keys(
    swept: Swept, directories: list[str], words: Mapping[int, str], *, dry_run: bool
) -> None:
    """Keys of runs of which nothing lives; a key's name begins with that of its stand-in host."""
    living = [os.path.basename(path) for path in directories if _lives(path, words)]
    for key in list_keys(PREFIX).values():
        # What stands before the word is the name of its stand-in host.
        host = key.removesuffix("-u").rpartition("-")[0]
        mentioned = _is_owned(host) or is_mentioned(host, words)
        if mentioned or any(key.startswith(f"{run}-") for run in living):
            swept.alive.append(f"key {key}")
        elif not dry_run and remove_keys(key):
            swept.left.append(f"key {key}: it can't be removed")
        else:
            swept.removed.append(f"key {key}")


def find_traces(run: str) -> list[str]:
    """What there is on the machine by the name of one run, in words; to be nothing after it.

    Args:
        run: the name of the run directory.
    Raises:
        ValueError: it is no run's name; an empty one would be that of everything.
    """
    if not is_run_name(run):
        raise ValueError(f"{run!r} is no name of a run")
    found = [f"group {path}" for path in _find_groups(group.list_hierarchies().values())]
    found = [line for line in found if is_of(line, run)]
    found += [f"mount {one['target']}" for one in mount.read_mounts() if run in one["target"]]
    found += [
        f"process {pid}: {words[:100]}"
        for pid, words in _list_words()
        if run in words and pid not in _own_line()
    ]
    found += [f"key {key}" for key in list_keys(f"{run}-").values()]
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if run in path.read_text():
                found.append(f"loop device {path.parts[3]}")
        except OSError:
            continue
    return found


def _own_line() -> set[int]:
    """This process and those that started it: a shell may have the name in its arguments."""
    pids, pid = set(), os.getpid()
    while pid > 1:
        pids.add(pid)
        pid = process.parent_of(pid)
    return pids


def is_run_name(name: str) -> bool:
    """Whether a name can be that of one run alone."""
    return name.startswith(PREFIX) and len(name) > len(PREFIX)


def is_of(path: str, run: str) -> bool:
    """Whether a group's path belongs to a run."""
    if not is_run_name(run):
        return False
    name = os.path.basename(path)
    return name == run or name.startswith(f"{run}-")


def _list_own(top: str) -> Iterator[str]:
    """Directories of ours with the kit's prefix; a link is none."""
    with os.scandir(top) as entries:
        for entry in entries:
            if not (entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False)):
                continue
            if entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                yield entry.path


def _find_groups(tops: Iterable[str]) -> Iterator[str]:
    """The topmost groups with the kit's prefix."""
    for top in set(tops):
        for path, names, _ in os.walk(top):
            yield from (os.path.join(path, name) for name in names if name.startswith(PREFIX))
            names[:] = [name for name in names if not name.startswith(PREFIX)]


def _lives(directory: str, words: Mapping[int, str]) -> bool:
    """Whether a run directory belongs to a run that goes on."""
    try:
        if time.time() - os.stat(directory).st_mtime < YOUNG_S:
            return True
        if is_held(directory):
            return True
        children = os.listdir(directory)
    except OSError:
        return True
    return any(map(_is_owned, children)) or is_mentioned(directory, words)


def is_held(directory: str) -> bool:
    """Whether some process has said that its run lives."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _is_owned(path: str) -> bool:
    """Whether the process whose number is in a stand-in host's name is there."""
    found = _OWNER.search(path)
    return found is not None and process.is_alive(int(found[1]))


def is_mentioned(path: str, words: Mapping[int, str]) -> bool:
    """Whether any process was started with this name: a stand-in host has it in its arguments."""
    name = os.path.basename(path)
    return any(name in line for line in words.values())


def _list_words() -> Iterator[tuple[int, str]]:
    for pid in process.list_pids():
        try:
            yield pid, os.fsdecode(b" ".join(process.read_words(pid)))
        except OSError:
            continue


def _find_mount_below(path: str) -> str:
    targets = (one["target"] for one in mount.read_mounts())
    return next((one for one in targets if one == path or one.startswith(f"{path}/")), "")


def _remove_group(path: str, swept: Swept, *, known: bool) -> None:
    """Remove a dead run's group.

    Args:
        known: its run directory is there, unlocked: what is in the group is the dead run's.
    """
    if not known and (members := group.list_members(path)):
        # Without a directory nobody can tell whose they are.
        swept.left.append(f"{path}: processes {members[:5]} are in it")
        return
    if left := Guard((path,), ()).remove():
        swept.left += [f"{one}: it can't be removed" for one in left]
    else:
        swept.removed.append(path)
