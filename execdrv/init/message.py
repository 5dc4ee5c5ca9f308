"""What the init says: READY, JOB, STARTED, FAILED, EXITED.

Pure; runs in the supervisor. A message is a kind, a length and a payload; see `tell` in
execdrv-init.c. Pids of READY and JOB are not in the payload: the kernel tells the supervisor the
sender's pid as the supervisor sees it.
"""

from __future__ import annotations

import struct
from typing import Final

from attrs import frozen

from execdrv.errors import StartError

READY, JOB, STARTED, FAILED, EXITED = range(1, 6)

#: Kind and length of the payload.
HEADER: Final = struct.Struct("=II")
#: The longest message is FAILED, with a path and a detail of PATH_MAX each.
MESSAGE_BYTES_MAX: Final = 32 << 10

_NUMBER: Final = struct.Struct("=i")
_EXITED: Final = struct.Struct("=iIQQQ")


@frozen
class Ready:
    """The init waits for its order."""

    #: The init, as the supervisor sees it.
    pid: int


@frozen
class Job:
    """The job is forked; it has not executed its command yet."""

    #: The job, as the supervisor sees it; 0 never. Stays this process's until release or close.
    pid: int


@frozen
class Started:
    """The job has executed its command."""

    #: The job, as it sees itself.
    inner_pid: int


@frozen
class Failed:
    """The command does not run; the init has ended with status 125."""

    #: order, keep-fds, close-fds, fork, rlimit, bounding, groups, gid, uid, capabilities,
    #: no-new-privs, parent, chdir, seccomp, init-capabilities or exec.
    stage: str
    errno: int
    #: What the stage worked on: a path, or a number in decimal digits.
    path: bytes
    detail: bytes


@frozen
class Exited:
    """The job has ended."""

    #: As wait(2) gives it: os.WIFEXITED and the like take it.
    status: int
    #: Of the job and of those of its children that it waited for.
    utime_us: int
    stime_us: int
    maxrss_kib: int


Message = Ready | Job | Started | Failed | Exited


def parse_message(kind: int, payload: bytes, *, sender_pid: int) -> Message:
    """One message of the init, or of the job before its exec.

    Raises:
        StartError: it is none that an init sends.
    """
    try:
        if kind == READY and not payload:
            return Ready(sender_pid)
        if kind == JOB:
            _NUMBER.unpack(payload)
            return Job(sender_pid)
        if kind == STARTED:
            return Started(*_NUMBER.unpack(payload))
        if kind == FAILED:
            stage, path, detail, rest = payload[4:].split(b"\0")
            (number,) = _NUMBER.unpack(payload[:4])
            if not rest:
                return Failed(stage.decode("ascii"), number, path, detail)
        if kind == EXITED:
            status, _, utime_us, stime_us, maxrss_kib = _EXITED.unpack(payload)
            return Exited(status, utime_us, stime_us, maxrss_kib)
    except (struct.error, ValueError):
        pass
    raise protocol_error(f"kind {kind} with {len(payload)} bytes is unknown")


def protocol_error(reason: str) -> StartError:
    """The error for bytes that no init of this version sends."""
    return StartError(
        f"cannot read a message of the init: {reason}",
        hint="the init and this package are of different versions: install execdrv again",
    )
