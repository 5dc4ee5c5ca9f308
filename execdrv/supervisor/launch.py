"""What a new supervisor is told. Data only; it crosses the fork server's socket.

What a spec takes from its caller (directories by path, rlimits, affinity, standard streams) is in
here or travels as a descriptor beside it, since the fork server's own have other values.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence

import attrs

from execdrv.driver import DriverRef
from execdrv.errors import SpecError
from execdrv.spec import RLIMITS, ContainerSpec


@attrs.frozen(kw_only=True)
class Launch:
    """One container to be made."""

    #: The state directory.
    root: str
    #: The container's id.
    id: str
    driver: DriverRef
    spec: ContainerSpec
    #: Whether drivers of other distributions are allowed.
    plugins: bool
    #: The process that asked, as the supervisor numbers it.
    caller_pid: int
    #: Path of the root file system as the caller named it (or the default one).
    rootfs: bytes
    #: Whether the root file system is one of the shared cache.
    shared_root: bool
    #: Most bytes to keep of stdout and of stderr, where no descriptor of that name travels.
    capture_bytes: int = 0
    #: The caller's rlimits: name -> soft and hard, None for unlimited.
    rlimits: dict[str, tuple[int | None, int | None]]
    #: Cpus the caller may run on.
    affinity: tuple[int, ...]
    #: Most seconds for one method of the driver.
    deadline_s: float
    #: Names of the descriptors that travel beside this, in order; see `open_descriptors`.
    fd_names: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Collect:
    """One lost container to be destroyed from its record."""

    root: str
    id: str
    plugins: bool
    deadline_s: float


def own_rlimits() -> dict[str, tuple[int | None, int | None]]:
    """This process's rlimits, by the names of execdrv.spec.RLIMITS."""
    found = {}
    for name, number in RLIMITS.items():
        soft, hard = resource.getrlimit(number)
        found[name] = (_or_none(soft), _or_none(hard))
    return found


def _or_none(value: int) -> int | None:
    return None if value == resource.RLIM_INFINITY else value


def open_descriptors(
    spec: ContainerSpec, rootfs: bytes, stdio: Sequence[int | None]
) -> dict[str, int]:
    """Open everything of the caller's that a container needs, by name.

    Args:
        spec: its binds and pass_fds are opened.
        rootfs: the directory that becomes /.
        stdio: descriptors for 0, 1 and 2; None where the supervisor makes the stream.
    Returns:
        New descriptors, all of them the caller's to close: root, bind:N, pass:N, stdin, stdout,
        stderr. When it raises, none is left open.
    Raises:
        SpecError: a path can't be opened, or a descriptor to be passed is not open.
    """
    found: dict[str, int] = {}
    try:
        found["root"] = _open_path(rootfs, "rootfs", os.O_DIRECTORY)
        for number, bind in enumerate(spec.binds or ()):
            found[f"bind:{number}"] = _open_path(bind.source, "binds", 0)
        for number in spec.pass_fds or ():
            found[f"pass:{number}"] = _duplicate(number, "pass_fds")
        for name, fd in zip(("stdin", "stdout", "stderr"), stdio, strict=True):
            if fd is not None:
                found[name] = _duplicate(fd, name)
    except BaseException:
        close_all(found)
        raise
    return found


def close_all(descriptors: dict[str, int]) -> None:
    """Close descriptors by name -> number."""
    for fd in descriptors.values():
        os.close(fd)


def _open_path(path: bytes, field: str, flags: int) -> int:
    try:
        return os.open(path, os.O_PATH | os.O_CLOEXEC | flags)
    except OSError as error:
        raise SpecError(
            f"cannot use {field} {os.fsdecode(path)!r}: {(error.strerror or '').lower()}",
            field=field,
            value=repr(path),
        ) from error


def _duplicate(fd: int, field: str) -> int:
    try:
        return os.dup(fd)
    except OSError as error:
        raise SpecError(
            f"cannot pass {field} {fd}: descriptor {fd} is not open", field=field, value=str(fd)
        ) from error


def stdio_or_null(fd: int) -> int:
    """`fd`, or a new descriptor of /dev/null where it is closed."""
    try:
        os.fstat(fd)
    except OSError:
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    return fd
