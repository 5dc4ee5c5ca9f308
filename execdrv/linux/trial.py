"""Questions about the kernel that only a try answers, made in a child that ends with it.

Each leaves nothing changed: what is made goes with the child's own namespace. For single-threaded
processes; not part of an ordinary run. Sources: rtnetlink(7), elf(5), syscall(2).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable

from execdrv.linux import syscalls

#: The ELF machine of each architecture's 32-bit mode, and a program for it of one call, exit(42).
_EXIT_42 = {
    # mov eax, 1; mov ebx, 42; int 0x80
    "x86_64": (3, bytes.fromhex("b801000000bb2a000000cd80")),
    # mov r7, #1; mov r0, #42; svc 0
    "aarch64": (40, bytes.fromhex("0170a0e32a00a0e3000000ef")),
}
_EM_ARM = 40

#: linux/netlink.h, linux/rtnetlink.h, linux/if_link.h
_RTM_NEWLINK, _NLM_REQUEST_ACK_EXCL_CREATE = 16, 0x1 | 0x4 | 0x200 | 0x400
_IFLA_LINKINFO, _IFLA_INFO_KIND = 18, 1


def detect_veth() -> bool:
    """Whether this process may make a pair of veth interfaces, in a network namespace of its own.

    Raises:
        OSError: no child could be made.
    """

    def make_pair() -> int:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        return _make_veth()

    return _status_of_child(make_pair) == 0


def detect_compat32() -> bool:
    """Whether the kernel runs a 32-bit program, and so takes 32-bit system calls.

    Raises:
        OSError: no child, or no file in memory, could be made.
    """
    if os.uname().machine not in _EXIT_42:
        return False
    memfd = os.memfd_create("execdrv-compat32", os.MFD_CLOEXEC)
    try:
        os.write(memfd, _program(*_EXIT_42[os.uname().machine]))

        def execute() -> int:
            os.execve(memfd, ["compat32"], {})

        return _status_of_child(execute) == 42
    finally:
        os.close(memfd)


def _program(machine: int, code: bytes) -> bytes:
    """A static ELF32 file of one segment, mapped whole, which starts at `code`."""
    base, head = 0x10000, 52 + 32
    size = head + len(code)
    # EABI version 5, without which arm refuses.
    flags = 0x05000000 if machine == _EM_ARM else 0
    ident = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    sizes = (52, 32, 1, 0, 0, 0)
    header = struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, base + head, 52, 0, flags, *sizes)
    segment = struct.pack("<8I", 1, 0, base, base, size, size, 5, 0x1000)
    return ident + header + segment + code


def _make_veth() -> int:
    """The errno of making a veth pair in this network namespace, 0 if it was made."""

    def attribute(kind: int, value: bytes) -> bytes:
        size = 4 + len(value)
        return struct.pack("=HH", size, kind) + value + bytes(-size % 4)

    body = bytes(16) + attribute(_IFLA_LINKINFO, attribute(_IFLA_INFO_KIND, b"veth"))
    head = struct.pack("=IHHII", 16 + len(body), _RTM_NEWLINK, _NLM_REQUEST_ACK_EXCL_CREATE, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as link:
        link.settimeout(5)
        link.bind((0, 0))
        link.send(head + body)
        (negative_errno,) = struct.unpack_from("=i", link.recv(4096), 16)
    return -int(negative_errno)


def _status_of_child(ask: Callable[[], int]) -> int:
    """The exit status of a child that does one thing and ends; 255 if that raised."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(ask() & 0xFF)
        except BaseException:
            os._exit(255)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
