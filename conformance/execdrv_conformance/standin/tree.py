"""Copies of a root file system: modes, owners, links and device nodes as they are.

The library's copytree would read from a device node what comes out of it, which has no end.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path


def copy_tree(source: Path, target: Path) -> None:
    """Copy a directory; the target must not be there."""
    target.mkdir()
    with os.scandir(source) as entries:
        for entry in entries:
            found = entry.stat(follow_symlinks=False)
            copy = target / entry.name
            if entry.is_dir(follow_symlinks=False):
                copy_tree(Path(entry.path), copy)
                continue
            if entry.is_symlink():
                copy.symlink_to(os.readlink(entry.path))
            elif stat.S_ISREG(found.st_mode):
                shutil.copyfile(entry.path, copy)
            else:
                os.mknod(copy, found.st_mode, found.st_rdev)
            _copy_owner(copy, found)
    _copy_owner(target, os.stat(source))


def _copy_owner(path: Path, found: os.stat_result) -> None:
    if os.geteuid() == 0:
        os.chown(path, found.st_uid, found.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        path.chmod(stat.S_IMODE(found.st_mode))
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
