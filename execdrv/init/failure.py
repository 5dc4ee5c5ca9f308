"""What a FAILED of the init means to the one who asked for the command.

Pure; runs in the supervisor. Exit statuses as chroot(1) and dash(1): 127 for what is not there,
126 for what is there and can't be executed, 125 for everything before the exec.
"""

from __future__ import annotations

import errno
import os
import re
from typing import Final

from execdrv.errors import CommandNotExecutableError, CommandNotFoundError, StartError
from execdrv.init.message import Failed

_QUOTED_MAX: Final = 256
_NOT_FOUND: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
#: Resource numbers of getrlimit(2), the same on x86_64 and aarch64.
_RLIMITS: Final = (
    "cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile",
    "memlock", "as", "locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime",
)  # fmt: skip


def error_of(failed: Failed, argv0: bytes) -> StartError:
    """The error for a start that failed.

    Args:
        failed: what the init sent.
        argv0: the command as it was given.
    """
    if failed.stage == "exec" and failed.errno:
        return _exec_error(failed, argv0)
    reason, hint = _explain_setup(failed)
    return StartError(f"cannot start {quote(argv0)}: {reason}", hint=hint, errno=failed.errno)


def quote(value: bytes) -> str:
    """`value` in quotes, on one line: control characters and bytes that are no UTF-8 escaped."""
    text = value[:_QUOTED_MAX].decode("utf-8", "surrogateescape")
    # repr shows a stray byte as \udcNN; the alternative keeps a doubled backslash whole.
    shown = re.sub(
        r"\\\\|\\udc([0-9a-f]{2})",
        lambda found: f"\\x{found[1]}" if found[1] else found[0],
        repr(text),
    )
    return shown if len(value) <= _QUOTED_MAX else f"{shown[:-1]}...{shown[-1]}"


def _exec_error(failed: Failed, argv0: bytes) -> StartError:
    reason, hint = _explain_exec(failed, argv0)
    kind = CommandNotFoundError if failed.errno in _NOT_FOUND else CommandNotExecutableError
    return kind(f"cannot execute {quote(argv0)}: {reason}", hint=hint, errno=failed.errno)


def _explain_exec(failed: Failed, argv0: bytes) -> tuple[str, str]:
    """Reason and hint."""
    found = "" if failed.path in (b"", argv0) else f" (as {quote(failed.path)})"
    tag, _, name = failed.detail.partition(b":")
    if tag == b"empty":
        return "the command is empty", "give a command after --"
    if tag == b"path":
        return "not found in PATH", "name it by its path, or set PATH for the container"
    if tag in (b"interpreter", b"loader"):
        part = "interpreter" if tag == b"interpreter" else "program loader"
        if failed.errno == errno.EACCES:
            return f"permission denied for its {part} {quote(name)}{found}", ""
        named = f"{part} {quote(name)}" if name else "interpreter or program loader"
        return f"its {named} is not in the root file system{found}", ""
    if tag == b"directory":
        return f"it is a directory{found}", ""
    if tag == b"not-regular":
        return f"it is not a regular file{found}", ""
    if tag == b"noexec":
        return f"its file system is mounted noexec{found}", "mount it without noexec"
    if tag == b"mode":
        return f"permission denied, no execute bit that applies to its user{found}", ""
    if failed.errno == errno.E2BIG:
        return (
            f"its arguments and environment are too long{found}",
            "pass less, or raise the stack rlimit: a quarter of it, at most 6 MiB, is usable",
        )
    if failed.errno == errno.ENOEXEC:
        return (
            f"its format is not executable{found}",
            "a script needs #! and an interpreter as its first line",
        )
    return f"{_strerror(failed.errno)}{found}", ""


def _explain_setup(failed: Failed) -> tuple[str, str]:
    """Reason and hint for every stage but exec."""
    why = _strerror(failed.errno)
    tag, _, value = failed.detail.partition(b":")
    if tag == b"signal":
        return f"signal {value.decode()} ended it in stage {failed.stage!r}", ""
    match failed.stage:
        case "chdir":
            return _explain_cwd(failed, why)
        case "rlimit":
            return _explain_rlimit(failed, why)
        case "keep-fds":
            return f"fd {failed.path.decode()} is not open", "open it, or do not pass it"
        case "close-fds":
            return (
                f"cannot close the descriptors that are not the job's: {why}",
                "allow close_range, or mount /proc in the container",
            )
        case "fork":
            return f"cannot fork: {why}", "the init counts too: raise the pids limit by one"
        case "bounding" if failed.detail == b"absent":
            return f"capability {failed.path.decode()} is not in execdrv's own bounding set", ""
        case "bounding":
            return f"cannot drop capability {failed.path.decode()}: {why}", ""
        case "no-new-privs" if failed.detail == b"set":
            return "no_new_privs is set for execdrv itself and can't be cleared", ""
        case "order" if failed.errno != errno.ENOMEM:
            return f"its init does not understand the order ({why})", "install execdrv again"
    part = f" ({failed.detail.decode('ascii', 'replace')})" if failed.detail else ""
    return f"cannot set its {failed.stage}{part}: {why}", ""


def _explain_cwd(failed: Failed, why: str) -> tuple[str, str]:
    cwd = quote(failed.path)
    if failed.detail in (b"unreachable", b"getcwd"):
        return f"working directory {cwd} is not inside the root file system", ""
    uid, _, gid = failed.detail.decode("ascii", "replace").partition(":")
    user = f" for user {uid}, group {gid}" if gid else ""
    return f"cannot enter working directory {cwd}{user}: {why}", ""


def _explain_rlimit(failed: Failed, why: str) -> tuple[str, str]:
    number = int(failed.path)
    name = _RLIMITS[number] if number < len(_RLIMITS) else str(number)
    hint = ""
    if failed.errno == errno.EPERM:
        hint = "a hard limit above the caller's needs CAP_SYS_RESOURCE"
    return f"cannot set rlimit {name!r}: {why}", hint


def _strerror(number: int) -> str:
    return os.strerror(number).lower()
