"""What the kernel says of a process's users, groups, capabilities and filters, in its status.

As seen from this user and pid namespace (proc_pid_status(5)); the end of helpers that a probe has
left for the observer is here too.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from execdrv_conformance.observe import process

#: Sets of capabilities by their names in `status`.
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def read_credentials(pid: int | str) -> dict[str, Any]:
    """Users and groups (real, effective, saved, file system), sets as numbers, filters."""
    status = parse_status(Path(f"/proc/{pid}/status").read_text(errors="surrogateescape"))
    return {
        "uids": [int(word) for word in status["Uid"].split()],
        "gids": [int(word) for word in status["Gid"].split()],
        "groups": sorted(int(word) for word in status["Groups"].split()),
        **{name: int(status[name], 16) for name in SETS},
        "nnp": int(status["NoNewPrivs"]),
        "seccomp": int(status["Seccomp"]),
        "filters": int(status.get("Seccomp_filters", 0)),
    }


def parse_status(text: str) -> dict[str, str]:
    """Fields by name."""
    fields = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields[name] = value.strip()
    return fields


def read_tree(pid: int) -> list[dict[str, Any]]:
    """The same of every task of a process and of its living descendants."""
    found = []
    for one in process.list_tree(pid):
        if not process.is_alive(one):
            continue
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{one}/task"):
                found.append({"pid": one, **read_credentials(f"{one}/task/{task}")})
    return found


def end_helpers(pid: int) -> None:
    """End the descendants of a process, and leave itself alone."""
    for one in process.list_tree(pid):
        if one != pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, 9)
