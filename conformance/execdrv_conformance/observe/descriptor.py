"""What the kernel says of open descriptors, in /proc/PID/fd and fdinfo (proc(5))."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from execdrv_conformance.observe import process


def list_descriptors(pid: int) -> list[dict[str, Any]]:
    """Those of a process: number, link, place (device and inode), whether it may be written."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            link = os.readlink(f"/proc/{pid}/fd/{name}")
            at = os.stat(f"/proc/{pid}/fd/{name}")
            info = Path(f"/proc/{pid}/fdinfo/{name}").read_text()
        except OSError:
            # Closed in between, or a file that can't be reached by its link.
            continue
        flags = next(line.split()[1] for line in info.splitlines() if line.startswith("flags:"))
        found.append(
            {
                "pid": pid,
                "fd": int(name),
                "link": link,
                "place": [at.st_dev, at.st_ino],
                "writable": int(flags, 8) & os.O_ACCMODE != os.O_RDONLY,
            }
        )
    return found


def list_tree_descriptors(pid: int) -> list[dict[str, Any]]:
    """Those of a process and of all its descendants."""
    found = []
    for one in process.list_tree(pid):
        try:
            found += list_descriptors(one)
        except OSError:
            continue
    return found
