"""Control files: reading and writing the small text files of a cgroup.

Plain descriptors, because a container's life has dozens of these writes. `Journal` remembers
what a file said before it was written, so that a set of limits is applied in whole or not at
all. Knows no meaning of any file. Runs in the supervisor, and in whatever process cleans up.
"""

from __future__ import annotations

import os


def read_control(path: str) -> str:
    """The text of a control file.

    Raises:
        OSError: it can't be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(descriptor, 65536):
            chunks.append(chunk)
    finally:
        os.close(descriptor)
    return os.fsdecode(b"".join(chunks))


def read_optional(path: str) -> str | None:
    """The text of a control file, or None where it can't be read."""
    try:
        return read_control(path)
    except OSError:
        return None


def write_control(path: str, text: str) -> None:
    """Write a control file in one write; the kernel takes it or nothing of it.

    Raises:
        OSError: it can't be written; it is unchanged.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def parse_keyed(text: str) -> dict[str, int]:
    """The numbers of a flat keyed file (cgroup-v2.rst, "Flat keyed"), by key."""
    found = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            found[key] = int(value)
    return found


def read_keyed(path: str) -> dict[str, int]:
    """The numbers of a flat keyed file, or nothing where it can't be read."""
    return parse_keyed(read_optional(path) or "")


def read_number(path: str) -> int | None:
    """The one number of a control file, or None where there is none ("max" too)."""
    text = (read_optional(path) or "").strip()
    return int(text) if text.lstrip("-").isdigit() else None


def swap_in_use() -> bool:
    """Whether this machine has swap at all: /proc/swaps says more than its head line."""
    return len((read_optional("/proc/swaps") or "").splitlines()) > 1


class RefusedError(Exception):
    """Inside this package: a limit that can't be kept here, with the reason as its text."""


class Journal:
    """The control files written so far, with what they said before."""

    def __init__(self) -> None:
        self._before: list[tuple[str, str]] = []

    def write(self, path: str, text: str) -> str:
        """Write a control file and remember its old text; returns the new one, read back.

        Raises:
            OSError: with `filename` set; the file is unchanged.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                before = os.pread(descriptor, 4096, 0)
                os.write(descriptor, text.encode())
                self._before.append((path, before.decode().strip()))
                return os.pread(descriptor, 4096, 0).decode().strip()
            finally:
                os.close(descriptor)
        except OSError as error:
            error.filename = path
            raise

    def roll_back(self) -> list[str]:
        """Write every old text back, last one first.

        The order matters: each state on the way back was legal on the way there.

        Returns:
            The files that could not be restored.
        """
        lost = []
        while self._before:
            path, text = self._before.pop()
            try:
                write_control(path, text)
            except OSError:
                lost.append(path)
        return lost
