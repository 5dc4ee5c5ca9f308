"""A disk of the machine for jobs to open: a loop device over a file with a word.

The machine's loop devices are everybody's: one is attached just before a probe and detached right
after, and the kernel detaches it by itself when this process ends (LO_FLAGS_AUTOCLEAR, loop(4)).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time
from pathlib import Path
from typing import Any

_LOOP_CLR_FD, _LOOP_CONFIGURE, _LOOP_CTL_GET_FREE = 0x4C01, 0x4C0A, 0x4C82
_READ_ONLY, _AUTOCLEAR = 1, 4
#: struct loop_config: descriptor, block size, struct loop_info64 (flags at byte 52), reserved.
_CONFIG_BYTES, _INFO_OFFSET, _FLAGS_OFFSET = 304, 8, 52
_TRIES = 20
_DETACH_TIMEOUT_S = 2.0


class LoopCanary:
    """One loop device, attached and detached by who needs it.

    Args:
        scratch: a directory for the file behind it.
    """

    def __init__(self, scratch: Path) -> None:
        self.word = os.urandom(8).hex()
        self._file = scratch / f"disk-{self.word}"
        self._fd: int | None = None
        self.path = ""

    def attach(self) -> None:
        """Take a free device.

        Raises:
            OSError: there is none, or it can't be opened.
        """
        self._file.write_bytes(self.word.encode().ljust(1 << 16, b"\0"))
        backing = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            for _ in range(_TRIES):
                path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
                device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    fcntl.ioctl(device, _LOOP_CONFIGURE, _configuration(backing))
                except OSError as error:
                    os.close(device)
                    # Somebody else was faster.
                    if error.errno != errno.EBUSY:
                        raise
                    continue
                self._fd, self.path = device, path
                return
            raise OSError(errno.EBUSY, "every free loop device was taken by somebody else")
        finally:
            os.close(control)
            os.close(backing)

    def facts(self) -> dict[str, Any]:
        """Path, numbers and word."""
        number = os.stat(self.path).st_rdev
        return {
            "path": self.path,
            "major": os.major(number),
            "minor": os.minor(number),
            "word": self.word,
        }

    def detach(self) -> None:
        """Give it back and wait until it is free. Repeatable."""
        if self._fd is None:
            return
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._fd, _LOOP_CLR_FD)
        os.close(self._fd)
        self._fd = None
        # The kernel ends it with its last descriptor, a killed job's perhaps.
        backing = Path(f"/sys/block/{os.path.basename(self.path)}/loop/backing_file")
        deadline = time.monotonic() + _DETACH_TIMEOUT_S
        while _is_behind(self._file, backing) and time.monotonic() < deadline:
            time.sleep(0.005)
        self._file.unlink(missing_ok=True)


def _is_behind(file: Path, backing: Path) -> bool:
    try:
        return file.name in backing.read_text()
    except OSError:
        return False


def _configuration(backing: int) -> bytearray:
    config = bytearray(_CONFIG_BYTES)
    struct.pack_into("=I", config, 0, backing)
    struct.pack_into("=I", config, _INFO_OFFSET + _FLAGS_OFFSET, _READ_ONLY | _AUTOCLEAR)
    return config
