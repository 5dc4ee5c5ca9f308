"""The init's program, as a descriptor.

Runs in whoever starts containers (the fork server once for all of them). The program is copied
into a sealed memfd, so that no job that reaches /proc/1/exe could change what the next one runs.
memfd_create(2), fcntl(2) on seals.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Final

from execdrv.errors import ExecdrvError

_NAME: Final = "execdrv-init"
_MFD_EXEC: Final = 0x10  # Linux 6.3; there vm.memfd_noexec may make the default not executable


def open_init() -> int:
    """A sealed, close-on-exec memfd with the init; execute it as /proc/self/fd/N.

    Raises:
        ExecdrvError: the program is not there, or this machine has no executable memfd.
    """
    path = os.path.join(os.path.dirname(__file__), _NAME)
    try:
        with open(path, "rb") as file:
            program = file.read()
    except OSError as error:
        raise ExecdrvError(
            f"cannot open the init {path!r}: {os.strerror(error.errno or 0).lower()}",
            hint="it is built when execdrv is installed: pip install . (a C compiler is needed)",
        ) from error
    return seal_program(program)


def seal_program(program: bytes) -> int:
    """A sealed, close-on-exec, executable memfd with these bytes.

    Raises:
        ExecdrvError: this machine has no executable memfd.
    """
    try:
        fd = _create_memfd()
    except OSError as error:
        raise ExecdrvError(
            f"cannot make an executable memfd: {os.strerror(error.errno or 0).lower()}",
            hint="allow it on this machine: sysctl vm.memfd_noexec=0",
        ) from error
    try:
        rest = memoryview(program)
        while rest:
            rest = rest[os.write(fd, rest) :]
        # Others may execute it (liblxc does, as a mapped root), nobody but root may read it.
        os.fchmod(fd, 0o511)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except OSError:
        os.close(fd)
        raise
    return fd


def _create_memfd() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(_NAME, flags | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:  # before 6.3 the flag is unknown
            raise
        return os.memfd_create(_NAME, flags)
