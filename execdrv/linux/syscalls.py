"""System calls that Python's standard library lacks: one small function each.

Runs in any process; nothing is loaded before the first call. A failed call raises OSError (the
subclass of its errno), whose text names the call and its arguments. Nothing here decides anything:
which call is made when is the callers' business. Numbers and constants are those of the kernel's
uapi headers; each function names its man page.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import struct
import sys
from collections.abc import Callable
from typing import Final

from execdrv.errors import UnsupportedError

#: System call numbers, one table an architecture (arch/x86/entry/syscalls/syscall_64.tbl and
#: include/uapi/asm-generic/unistd.h).
NUMBERS: Final[dict[str, dict[str, int]]] = {
    "x86_64": {
        "bpf": 321,
        "capget": 125,
        "capset": 126,
        "clone": 56,
        "close_range": 436,
        "fsconfig": 431,
        "fsmount": 432,
        "fsopen": 430,
        "mount": 165,
        "mount_setattr": 442,
        "move_mount": 429,
        "name_to_handle_at": 303,
        "open_tree": 428,
        "openat2": 437,
        "pidfd_open": 434,
        "pivot_root": 155,
        "prctl": 157,
        "seccomp": 317,
        "sethostname": 170,
        "setns": 308,
        "statx": 332,
        "umount2": 166,
        "unshare": 272,
    },
    "aarch64": {
        "bpf": 280,
        "capget": 90,
        "capset": 91,
        "clone": 220,
        "close_range": 436,
        "fsconfig": 431,
        "fsmount": 432,
        "fsopen": 430,
        "mount": 40,
        "mount_setattr": 442,
        "move_mount": 429,
        "name_to_handle_at": 264,
        "open_tree": 428,
        "openat2": 437,
        "pidfd_open": 434,
        "pivot_root": 41,
        "prctl": 167,
        "seccomp": 277,
        "sethostname": 161,
        "setns": 268,
        "statx": 291,
        "umount2": 39,
        "unshare": 97,
    },
}

AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000
AT_SYMLINK_NOFOLLOW: Final = 0x100

# clone(2), unshare(2), setns(2)
CLONE_FILES: Final = 0x00000400
CLONE_PARENT: Final = 0x00008000
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
CLONE_NEWTIME: Final = 0x00000080

# mount(2), umount2(2)
MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REMOUNT: Final = 0x20
MS_BIND: Final = 0x1000
MS_MOVE: Final = 0x2000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
MS_SLAVE: Final = 0x80000
MS_SHARED: Final = 0x100000
MNT_DETACH: Final = 0x2
UMOUNT_NOFOLLOW: Final = 0x8

# openat2(2)
RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10

# open_tree(2), move_mount(2), fsopen(2), fsmount(2), mount_setattr(2)
OPEN_TREE_CLONE: Final = 0x1
OPEN_TREE_CLOEXEC: Final = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH: Final = 0x04
MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40
FSOPEN_CLOEXEC: Final = 0x1
FSMOUNT_CLOEXEC: Final = 0x1
FSCONFIG_SET_FLAG: Final = 0
FSCONFIG_SET_STRING: Final = 1
FSCONFIG_SET_FD: Final = 5
FSCONFIG_CMD_CREATE: Final = 6
MOUNT_ATTR_RDONLY: Final = 0x1
MOUNT_ATTR_NOSUID: Final = 0x2
MOUNT_ATTR_NODEV: Final = 0x4
MOUNT_ATTR_NOEXEC: Final = 0x8
MOUNT_ATTR_NOSYMFOLLOW: Final = 0x200000

# prctl(2)
PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_SET_CHILD_SUBREAPER: Final = 36
PR_GET_CHILD_SUBREAPER: Final = 37
PR_SET_NO_NEW_PRIVS: Final = 38
PR_GET_NO_NEW_PRIVS: Final = 39
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

# statx(2)
STATX_MNT_ID: Final = 0x1000

# --- processes and namespaces ------------------------------------------------------------------


def clone(flags: int) -> int:
    """Fork with CLONE_* flags; returns 0 in the child and its pid in the parent (clone(2)).

    Python's own hooks of a fork do not run, so the caller must have one thread only, and the
    child must end in exec or `os._exit`. No flag that shares memory is for this function.
    """
    return call("clone", flags | signal.SIGCHLD, 0, 0, 0, 0)


def unshare(flags: int) -> None:
    """Leave namespaces for new ones (unshare(2))."""
    call("unshare", flags)


def setns(fd: int, nstype: int = 0) -> None:
    """Join the namespace of a descriptor (setns(2))."""
    call("setns", fd, nstype)


def pidfd_open(pid: int) -> int:
    """A descriptor of a process, closed on exec (pidfd_open(2))."""
    return call("pidfd_open", pid, 0)


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """Change or read an attribute of the calling thread (prctl(2))."""
    return call("prctl", option, arg2, arg3, arg4, arg5)


def sethostname(name: bytes) -> None:
    """Set the host name of the UTS namespace (sethostname(2))."""
    call("sethostname", name, len(name))


def close_range(first: int, last: int = 2**32 - 1, flags: int = 0) -> None:
    """Close the descriptors from `first` to `last`, both included (close_range(2))."""
    call("close_range", first, last, flags)


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the thread's capabilities, given as bit masks (capset(2), version 3)."""
    header = bytearray(struct.pack("=Ii", 0x20080522, 0))
    words = [
        (mask >> shift) & 0xFFFFFFFF
        for shift in (0, 32)
        for mask in (effective, permitted, inheritable)
    ]
    call("capset", header, Packed(struct.pack("=6I", *words)))


def capget(pid: int = 0) -> tuple[int, int, int]:
    """Effective, permitted and inheritable capabilities as bit masks (capget(2))."""
    header, data = bytearray(struct.pack("=Ii", 0x20080522, pid)), bytearray(24)
    call("capget", header, data)
    low_e, low_p, low_i, high_e, high_p, high_i = struct.unpack("=6I", data)
    return (low_e | high_e << 32, low_p | high_p << 32, low_i | high_i << 32)


def seccomp(operation: int, flags: int, args: bytearray) -> int:
    """Operate on the thread's system call filter (seccomp(2))."""
    return call("seccomp", operation, flags, args)


def bpf(command: int, attr: bytearray) -> int:
    """Run a BPF command on a `union bpf_attr` (bpf(2)); the caller keeps what it points to."""
    return call("bpf", command, attr, len(attr))


# --- mounts ------------------------------------------------------------------------------------


def mount(
    source: bytes | None,
    target: bytes,
    *,
    fstype: bytes | None = None,
    flags: int = 0,
    data: bytes | None = None,
) -> None:
    """Mount, or change a mount (mount(2)). The kernel follows links in both paths."""
    call("mount", source, target, fstype, flags, data)


def umount2(target: bytes, flags: int = 0) -> None:
    """Unmount (umount2(2))."""
    call("umount2", target, flags)


def pivot_root(new_root: bytes, put_old: bytes) -> None:
    """Exchange the root mount; `(b".", b".")` stacks the old one on top (pivot_root(2))."""
    call("pivot_root", new_root, put_old)


def open_tree(dir_fd: int, path: bytes = b"", *, flags: int = 0) -> int:
    """A descriptor of a mount, or of a detached copy with OPEN_TREE_CLONE (open_tree(2)).

    An empty path means `dir_fd` itself. Closed on exec.
    """
    empty = 0 if path else AT_EMPTY_PATH
    return call("open_tree", dir_fd, path, flags | empty | OPEN_TREE_CLOEXEC)


def move_mount(from_fd: int, to_fd: int, to_path: bytes = b"") -> None:
    """Attach the mount of `from_fd` at `to_fd`, or at a path below it (move_mount(2)).

    Links in `to_path` are not followed at its end.
    """
    empty = 0 if to_path else MOVE_MOUNT_T_EMPTY_PATH
    call("move_mount", from_fd, b"", to_fd, to_path, MOVE_MOUNT_F_EMPTY_PATH | empty)


def mount_setattr(
    fd: int, *, attr_set: int = 0, attr_clr: int = 0, propagation: int = 0, flags: int = 0
) -> None:
    """Change MOUNT_ATTR_* and propagation (MS_PRIVATE ...) of the mount of `fd`.

    With AT_RECURSIVE of all mounts below it too, all or none (mount_setattr(2), Linux 5.12).
    """
    attributes = Packed(struct.pack("=4Q", attr_set, attr_clr, propagation, 0))
    call("mount_setattr", fd, b"", flags | AT_EMPTY_PATH, attributes, len(attributes))


def fsopen(fstype: bytes) -> int:
    """A descriptor to configure a new file system with, closed on exec (fsopen(2))."""
    return call("fsopen", fstype, FSOPEN_CLOEXEC)


def fsconfig(fd: int, command: int, key: bytes | None, value: bytes | None, aux: int = 0) -> None:
    """Set a parameter of the file system of `fd`, or create it (fsconfig(2))."""
    call("fsconfig", fd, command, key, value, aux)


def fsmount(fd: int, *, attributes: int = 0) -> int:
    """A descriptor of a new detached mount, with MOUNT_ATTR_*, closed on exec (fsmount(2))."""
    return call("fsmount", fd, FSMOUNT_CLOEXEC, attributes)


# --- files -------------------------------------------------------------------------------------


def openat2(dir_fd: int, path: bytes, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """Open with RESOLVE_* restrictions; the descriptor is closed on exec (openat2(2))."""
    how = Packed(struct.pack("=3Q", flags | os.O_CLOEXEC, mode, resolve))
    return call("openat2", dir_fd, path, how, len(how))


def mount_id(fd: int) -> int:
    """The number of the mount that a descriptor is on, as in mountinfo (statx(2), Linux 5.8)."""
    answer = bytearray(256)
    call("statx", fd, b"", AT_EMPTY_PATH, STATX_MNT_ID, answer)
    (number,) = struct.unpack_from("=Q", answer, 0x90)  # struct statx: stx_mnt_id
    return int(number)


def name_to_handle_at(dir_fd: int, path: bytes) -> bytes:
    """The file handle that a file system gives a path, type and bytes (name_to_handle_at(2))."""
    # struct file_handle: size of the bytes, type, at most MAX_HANDLE_SZ bytes.
    handle = bytearray(struct.pack("=Ii", 128, 0) + bytes(128))
    call("name_to_handle_at", dir_fd, path, handle, bytearray(4), 0)
    (size,) = struct.unpack_from("=I", handle)
    return bytes(handle[4 : 8 + size])


# --- the one way into the kernel ---------------------------------------------------------------


class Packed(bytes):
    """A structure that the kernel only reads; unlike other bytes it may hold zero bytes."""


Argument = int | bytes | bytearray | None


def call(name: str, *args: Argument) -> int:
    """Make the system call `name` and return its result.

    Args:
        args: bytes are C strings, Packed is memory that the kernel reads, a bytearray memory that
            it may write too; None is a null pointer.

    Raises:
        OSError: the call failed; its text has the call and its arguments.
        ValueError: a string contains a zero byte, so that the kernel would see a part of it.
        UnsupportedError: this machine's architecture has no table.
    """
    number = numbers()[name]
    converted = [arg if isinstance(arg, int) else _convert(arg) for arg in args]
    function = _syscall_function(locked=name == "clone")
    result = function(number, *converted, *_NO_ARGUMENTS[len(args) :])
    if result == -1:
        errno = ctypes.get_errno()
        shown = ", ".join(_show(arg) for arg in args)
        raise OSError(errno, f"{os.strerror(errno)}: {name}({shown})")
    return result


@functools.cache
def numbers() -> dict[str, int]:
    """The table of this machine's architecture.

    Raises:
        UnsupportedError: there is none.
    """
    machine = os.uname().machine
    if machine not in NUMBERS or sys.maxsize <= 2**32:
        raise UnsupportedError(
            f"cannot make system calls on {machine!r}: only 64-bit "
            f"{' and '.join(sorted(NUMBERS))} are known",
            hint="run a 64-bit python on one of these",
        )
    return NUMBERS[machine]


#: Every call is made with six: a variadic function would take an int for 32 bits wide.
_NO_ARGUMENTS: Final = (0,) * 6


@functools.cache
def _syscall_function(*, locked: bool) -> Callable[..., int]:
    """libc's syscall(2), for it knows each architecture's way to pass arguments.

    Args:
        locked: whether the interpreter's lock is held meanwhile. A thread that took it during a
            clone would hold it in the child for ever, where there is no such thread. (It may still
            have asked for it, and then the child waits for it to be taken: so one thread only.)
    """
    library = ctypes.PyDLL if locked else ctypes.CDLL
    function = library(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    # A void pointer takes numbers, bytes and memory alike, without a wrapper around each.
    function.argtypes = [ctypes.c_long, *[ctypes.c_void_p] * len(_NO_ARGUMENTS)]
    return function


def _convert(arg: bytes | bytearray | None) -> object:
    if isinstance(arg, bytearray):
        return (ctypes.c_char * len(arg)).from_buffer(arg)
    if arg is not None and b"\0" in arg and not isinstance(arg, Packed):
        raise ValueError(f"cannot pass {arg!r} to the kernel: it contains a zero byte")
    return arg


def _show(arg: Argument) -> str:
    if arg is None:
        return "NULL"
    if isinstance(arg, bytearray | Packed):
        return "{" + arg[:48].hex() + "}"
    if isinstance(arg, int):
        return str(arg) if -4096 < arg < 4096 else hex(arg)
    return repr(arg)
