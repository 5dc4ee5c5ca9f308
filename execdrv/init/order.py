"""What the init is told: the order, and its bytes.

Pure; runs in the supervisor. The layout is that of `struct head` in execdrv-init.c, which checks
every count and range again. Native byte order: the init runs on the same machine.
"""

from __future__ import annotations

import struct
from typing import Final

from attrs import frozen

from execdrv.errors import SpecError

ORDER_VERSION: Final = 1
#: The init reads no longer order; the kernel takes 6 MiB of argv and env at most (execve(2)).
ORDER_BYTES_MAX: Final = 8 << 20
#: NGROUPS_MAX of the kernel
GROUPS_MAX: Final = 65536
RLIMITS_MAX: Final = 64
KEEP_FDS_MAX: Final = 4096
#: BPF_MAXINSNS of the kernel
FILTER_INSTRUCTIONS_MAX: Final = 4096
#: -1 means "leave unchanged" to setresuid(2)
ID_MAX: Final = 2**32 - 2

NO_NEW_PRIVS: Final = 1
DROP_INIT_CAPS: Final = 2

_HEAD: Final = struct.Struct("=12I5Q")
_LIMIT: Final = struct.Struct("=IIQQ")
_LENGTH: Final = struct.Struct("=I")
_INSTRUCTION_BYTES: Final = 8  # struct sock_filter


@frozen(kw_only=True)
class Order:
    """What the init makes of its job. All of it is exact, or the start fails.

    The capability sets are those at the exec, which recomputes them (capabilities(7)): for uid 0
    permitted and effective become bounding | inheritable, for every other uid they become ambient.
    """

    #: 0 to 4294967294; the real, effective and saved one.
    uid: int
    gid: int
    #: The whole supplementary list, the primary one only if it is named here too.
    groups: tuple[int, ...] = ()
    umask: int = 0o022
    no_new_privs: bool = True
    #: The init itself gives up every capability once the job is forked.
    drop_init_caps: bool = True
    #: Bit n stands for capability n.
    bounding: int = 0
    permitted: int = 0
    effective: int = 0
    inheritable: int = 0
    ambient: int = 0
    #: (RLIMIT_* number, soft, hard); 2**64 - 1 is no limit.
    rlimits: tuple[tuple[int, int, int], ...] = ()
    #: Descriptors that the job keeps beside 0, 1 and 2; they are at these numbers already.
    keep_fds: tuple[int, ...] = ()
    #: Absolute, inside the container; entered as the job's user.
    cwd: bytes = b"/"
    argv: tuple[bytes, ...]
    #: NAME=VALUE each; the whole environment.
    env: tuple[bytes, ...] = ()
    #: An array of struct sock_filter, or nothing.
    seccomp_filter: bytes = b""


def encode_order(order: Order) -> bytes:
    """The order as the init reads it, length prefix included.

    Raises:
        SpecError: a value does not fit its field, a string holds a NUL byte, cwd is not absolute,
            or the whole is over 8 MiB.
    """
    groups = sorted(set(order.groups))
    keep = sorted(set(order.keep_fds))
    _check_ranges(order, groups, keep)
    strings = (order.cwd, *order.argv, *order.env)
    for name, values in (("cwd", (order.cwd,)), ("argv", order.argv), ("env", order.env)):
        for value in values:
            if b"\0" in value:
                raise _spec_error(name, value, "it holds a NUL byte")
    filters = len(order.seccomp_filter) // _INSTRUCTION_BYTES
    flags = (NO_NEW_PRIVS if order.no_new_privs else 0) | (
        DROP_INIT_CAPS if order.drop_init_caps else 0
    )
    head = _HEAD.pack(
        ORDER_VERSION, flags, order.uid, order.gid, order.umask,
        len(order.rlimits), filters, len(groups), len(keep), len(order.argv), len(order.env), 0,
        order.bounding, order.permitted, order.effective, order.inheritable, order.ambient,
    )  # fmt: skip
    body = b"".join(
        (
            head,
            *(_LIMIT.pack(number, 0, soft, hard) for number, soft, hard in order.rlimits),
            order.seccomp_filter,
            struct.pack(f"={len(groups)}I", *groups),
            struct.pack(f"={len(keep)}I", *keep),
            b"\0".join(strings),
            b"\0",
        )
    )
    if len(body) > ORDER_BYTES_MAX:
        raise SpecError(
            f"cannot start the job: its command and environment take {len(body)} bytes, "
            f"over {ORDER_BYTES_MAX}",
            hint="pass less by argument or environment, more by file or standard input",
            field="argv",
        )
    return _LENGTH.pack(len(body)) + body


def _check_ranges(order: Order, groups: list[int], keep: list[int]) -> None:
    for name, value, highest in (
        ("uid", order.uid, ID_MAX),
        ("gid", order.gid, ID_MAX),
        ("umask", order.umask, 0o777),
        ("bounding", order.bounding, 2**64 - 1),
        ("permitted", order.permitted, 2**64 - 1),
        ("effective", order.effective, 2**64 - 1),
        ("inheritable", order.inheritable, 2**64 - 1),
        ("ambient", order.ambient, 2**64 - 1),
        *(("groups", group, ID_MAX) for group in groups),
        *(("rlimits", number, 2**32 - 1) for number, _, _ in order.rlimits),
        *(("rlimits", value, 2**64 - 1) for _, *pair in order.rlimits for value in pair),
    ):
        if not 0 <= value <= highest:
            raise _spec_error(name, value, f"it is not in 0 to {highest}")
    for fd in keep:
        if not 3 <= fd < 2**31:
            raise _spec_error("keep_fds", fd, "it is not in 3 to 2147483647")
    for name, count, most in (
        ("groups", len(groups), GROUPS_MAX),
        ("rlimits", len(order.rlimits), RLIMITS_MAX),
        ("keep_fds", len(keep), KEEP_FDS_MAX),
        ("seccomp_filter", len(order.seccomp_filter) // 8, FILTER_INSTRUCTIONS_MAX),
    ):
        if count > most:
            raise _spec_error(name, count, f"there are more than {most}")
    if len(order.seccomp_filter) % _INSTRUCTION_BYTES:
        raise _spec_error(
            "seccomp_filter", len(order.seccomp_filter), "its length is not a multiple of 8"
        )
    if not order.argv:
        raise _spec_error("argv", [], "it is empty")
    if not order.cwd.startswith(b"/"):
        raise _spec_error("cwd", order.cwd, "it is not absolute")


def _spec_error(name: str, value: object, reason: str) -> SpecError:
    return SpecError(f"cannot use {name} {value!r}: {reason}", field=name, value=value)
