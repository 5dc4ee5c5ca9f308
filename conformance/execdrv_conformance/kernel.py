"""The few system calls of the kit's own, by ctypes: one small function each.

Not shared with the host: the stand-in host must stand even where the host's layer is what is
wrong. Numbers are those of x86_64 and aarch64, the two architectures of execdrv.
"""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

PR_SET_PDEATHSIG = 1

#: By machine: the numbers of calls that glibc has no function for.
_NUMBERS = {
    "mq_open": {"x86_64": 240, "aarch64": 180},
    "add_key": {"x86_64": 248, "aarch64": 217},
    "keyctl": {"x86_64": 250, "aarch64": 219},
}


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc().unshare(ctypes.c_int(flags)), f"unshare({flags:#x})")


def setns(fd: int, kind: int) -> None:
    """setns(2)."""
    _check(_libc().setns(ctypes.c_int(fd), ctypes.c_int(kind)), f"setns({kind:#x})")


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    result = _libc().mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    _check(result, f"mount({source!r}, {target!r}, {kind!r}, {flags:#x})")


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc().umount2(os.fsencode(target), ctypes.c_int(flags)), f"umount({target!r})")


def sethostname(name: str) -> None:
    """sethostname(2)."""
    data = name.encode()
    _check(_libc().sethostname(data, ctypes.c_size_t(len(data))), f"sethostname({name!r})")


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    data = name.encode()
    _check(_libc().setdomainname(data, ctypes.c_size_t(len(data))), f"setdomainname({name!r})")


def add_inheritable(number: int) -> None:
    """Put a capability into this thread's inheritable set (capset(2), version 3)."""
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    _check(_libc().capget(header, sets), "capget")
    # Effective, permitted and inheritable of the low numbers, then of the high ones.
    sets[2 + 3 * (number // 32)] |= 1 << number % 32
    _check(_libc().capset(header, sets), f"capset({number})")


def prctl(option: int, *arguments: int) -> int:
    """prctl(2)."""
    words = [ctypes.c_ulong(word) for word in (*arguments, 0, 0, 0, 0)[:4]]
    return _check(_libc().prctl(ctypes.c_int(option), *words), f"prctl({option})")


def syscall(name: str, *arguments: Any) -> int:
    """A call of `_NUMBERS`."""
    number = _NUMBERS[name][os.uname().machine]
    return _check(_libc().syscall(ctypes.c_long(number), *arguments), name)


def shmget(key: int, size: int, flags: int) -> int:
    """shmget(2)."""
    return _check(_libc().shmget(ctypes.c_int(key), ctypes.c_size_t(size), flags), "shmget")


def shm_write(identity: int, data: bytes) -> None:
    """Attach a segment, write at its beginning, detach it (shmat(2))."""
    libc = _libc()
    libc.shmat.restype = ctypes.c_void_p
    address = libc.shmat(identity, None, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        _check(-1, "shmat")
    ctypes.memmove(address, data, len(data))
    _check(libc.shmdt(ctypes.c_void_p(address)), "shmdt")


def shm_read(identity: int, size: int) -> bytes:
    """Attach a segment, read from its beginning, detach it."""
    libc = _libc()
    libc.shmat.restype = ctypes.c_void_p
    address = libc.shmat(identity, None, 0o10000)
    if address in (None, ctypes.c_void_p(-1).value):
        _check(-1, "shmat")
    data = ctypes.string_at(address, size)
    _check(libc.shmdt(ctypes.c_void_p(address)), "shmdt")
    return data


def semget(key: int, count: int, flags: int) -> int:
    """semget(2)."""
    return _check(_libc().semget(ctypes.c_int(key), count, flags), "semget")


def msgget(key: int, flags: int) -> int:
    """msgget(2)."""
    return _check(_libc().msgget(ctypes.c_int(key), flags), "msgget")


def mq_open(name: str, flags: int, mode: int = 0o666) -> int:
    """mq_open(3), as a descriptor; the name without the slash.

    A queue made by it holds one short message: those of a user share 800 KiB, in all namespaces
    together (RLIMIT_MSGQUEUE).
    """
    attributes = (ctypes.c_long * 8)(0, 1, 64)
    return syscall(
        "mq_open",
        name.encode(),
        ctypes.c_int(flags),
        ctypes.c_uint(mode),
        ctypes.byref(attributes),
    )


def add_key(kind: str, description: str, payload: bytes, ring: int) -> int:
    """add_key(2)."""
    return syscall(
        "add_key",
        kind.encode(),
        description.encode(),
        payload,
        ctypes.c_size_t(len(payload)),
        ctypes.c_int(ring),
    )


def keyctl_join_session(name: str) -> int:
    """KEYCTL_JOIN_SESSION_KEYRING: a session keyring of this process's own (keyctl(2))."""
    return syscall("keyctl", ctypes.c_int(1), name.encode())


def keyctl_unlink(key: int, ring: int) -> None:
    """KEYCTL_UNLINK: a key goes with its last link (keyctl(2))."""
    syscall("keyctl", ctypes.c_int(9), ctypes.c_int(key), ctypes.c_int(ring))


class _Handle(ctypes.Structure):
    """struct file_handle of open_by_handle_at(2)."""

    _fields_ = (
        ("length", ctypes.c_uint),
        ("kind", ctypes.c_int),
        ("data", ctypes.c_ubyte * 128),
    )


def name_to_handle(path: str) -> tuple[int, list[int]]:
    """Type and bytes of a file's handle (name_to_handle_at(2))."""
    handle, mount_id = _Handle(length=128), ctypes.c_int()
    result = _libc().name_to_handle_at(
        ctypes.c_int(-100),
        os.fsencode(path),
        ctypes.byref(handle),
        ctypes.byref(mount_id),
        ctypes.c_int(0),
    )
    _check(result, f"name_to_handle_at({path!r})")
    return handle.kind, list(handle.data[: handle.length])


def exchange(one: str, other: str) -> None:
    """Two names change places, at once (RENAME_EXCHANGE of renameat2(2))."""
    here = ctypes.c_int(-100)
    result = _libc().renameat2(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(2))
    _check(result, f"renameat2({one!r}, {other!r})")
