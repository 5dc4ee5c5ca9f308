"""What the kernel says of mounts, in /proc/PID/mountinfo (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from execdrv_conformance import kernel

_OCTAL = re.compile(r"\\([0-7]{3})")


def _plain(word: str) -> str:
    """A name without the octal escapes of blanks and the like."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), word)


def parse_mountinfo(text: str) -> list[dict[str, Any]]:
    """One dict a mount: id, parent, device, root, target, options, shared, type, source, super."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        ids = left.split(" ")
        kind, source, options = right.split(" ", 2)
        optional = ids[6:]
        found.append(
            {
                "id": int(ids[0]),
                "parent": int(ids[1]),
                "device": ids[2],
                "root": _plain(ids[3]),
                "target": _plain(ids[4]),
                "options": ids[5].split(","),
                "shared": any(word.startswith("shared:") for word in optional),
                "slave": any(word.startswith("master:") for word in optional),
                "type": kind,
                "source": _plain(source),
                "super": options.split(","),
            }
        )
    return found


def read_mounts(pid: int | str = "self") -> list[dict[str, Any]]:
    """The mounts of a process's namespace, as its root sees them."""
    return parse_mountinfo(Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape"))


def find_mount(mounts: list[dict[str, Any]], target: str) -> dict[str, Any] | None:
    """The mount that is on top at a target."""
    at = [mount for mount in mounts if mount["target"] == target]
    return at[-1] if at else None


def read_all_mounts(pid: int) -> list[dict[str, Any]]:
    """Every mount of a process's namespace, also those that its root does not reach.

    Raises:
        OSError: the namespace can't be entered.
    """
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
            # To enter it leads to its root.
            kernel.setns(namespace, kernel.CLONE_NEWNS)
            table = os.open("self/mountinfo", os.O_RDONLY, dir_fd=proc)
            while data := os.read(table, 1 << 16):
                os.write(writer, data)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    os.close(proc)
    with open(reader, encoding="utf-8", errors="surrogateescape") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise OSError(0, f"the mount namespace of process {pid} can't be entered")
    return parse_mountinfo(text)
