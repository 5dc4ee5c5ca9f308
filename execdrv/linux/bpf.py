"""bpf(2) for one purpose: device programs on cgroup2 groups.

Numbers, structures and one function a command; what a program says is `cgroups.devices`'s
business. Its own raw syscall through libc, loaded at the first call. Runs where groups are made.
Sources: bpf(2), include/uapi/linux/bpf.h, Documentation/bpf/standardization/instruction-set.
"""

from __future__ import annotations

import errno
import os
import struct
from functools import cache
from typing import Any

#: By machine (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h).
_BPF_NUMBERS = {"x86_64": 321, "aarch64": 280}

_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 9, 13, 16
_PROG_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
#: Programs of the groups above still apply: each one must allow.
_F_ALLOW_MULTI = 2
#: The kernel attaches no more to one group (BPF_CGROUP_MAX_PROGS).
_MOST_PROGRAMS = 64

#: Opcodes: a load of 32 bit, then 64 bit operations with an immediate unless named otherwise.
LOAD_WORD, MOVE_REGISTER, MOVE, AND = 0x61, 0xBF, 0xB7, 0x57
SHIFT_RIGHT, JUMP_NOT_EQUAL, EXIT = 0x77, 0x55, 0x95


def encode(
    opcode: int, *, dst: int = 0, src: int = 0, offset: int = 0, immediate: int = 0
) -> bytes:
    """One instruction; the `offset` of a jump counts instructions after the next one."""
    # The two register numbers share a byte, in the machine's own bit order; both supported
    # machines are little-endian.
    return struct.pack("<BBhi", opcode, src << 4 | dst, offset, immediate)


@cache
def _libc() -> Any:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytearray) -> int:
    """One bpf(2) call; the kernel may write into `attributes`.

    Raises:
        OSError: the kernel's errno; ENOSYS on a machine whose call number is not known.
    """
    import ctypes

    machine = os.uname().machine
    if machine not in _BPF_NUMBERS:
        raise OSError(errno.ENOSYS, f"no number of bpf(2) known for {machine!r}")
    buffer = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    result = _libc().syscall(
        ctypes.c_long(_BPF_NUMBERS[machine]),
        ctypes.c_long(command),
        ctypes.byref(buffer),
        ctypes.c_ulong(len(attributes)),
    )
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)


def load_device_program(program: bytes) -> int:
    """Load a device program; returns its descriptor (close-on-exec).

    Raises:
        OSError: EPERM without CAP_BPF and CAP_NET_ADMIN; EINVAL where the kernel has no such
            programs, or its verifier refuses this one.
    """
    import ctypes

    instructions = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"MIT")
    attributes = struct.pack(
        "=IIQQIIQII16s",
        _PROG_TYPE_CGROUP_DEVICE,
        len(program) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(licence),
        *(0, 0, 0),  # no verifier log
        *(0, 0),  # any kernel version, no flags
        b"execdrv_devices",
    )
    return _bpf(_PROG_LOAD, bytearray(attributes))


def attach_device_program(group_fd: int, program_fd: int) -> None:
    """Attach a program to a cgroup2 group, beside those that are there.

    Raises:
        OSError: EPERM where a group above forbids further programs; E2BIG at 64 of them.
    """
    values = (group_fd, program_fd, _ATTACH_CGROUP_DEVICE, _F_ALLOW_MULTI)
    _bpf(_PROG_ATTACH, bytearray(struct.pack("=IIII", *values)))


def query_device_programs(group_fd: int) -> list[int]:
    """The ids of the device programs attached to a group itself.

    Raises:
        OSError: the kernel can't say.
    """
    import ctypes

    ids = (ctypes.c_uint32 * _MOST_PROGRAMS)()
    head = (group_fd, _ATTACH_CGROUP_DEVICE, 0, 0)
    attributes = bytearray(struct.pack("=IIIIQII", *head, ctypes.addressof(ids), _MOST_PROGRAMS, 0))
    _bpf(_PROG_QUERY, attributes)
    (count,) = struct.unpack_from("=I", attributes, 24)
    return list(ids[:count])


def detach_device_program(group_fd: int, program_id: int) -> None:
    """Detach a program from a group; without another reference it is gone.

    Raises:
        OSError: it is not attached there.
    """
    program_fd = _bpf(_PROG_GET_FD_BY_ID, bytearray(struct.pack("=III", program_id, 0, 0)))
    try:
        values = (group_fd, program_fd, _ATTACH_CGROUP_DEVICE, 0)
        _bpf(_PROG_DETACH, bytearray(struct.pack("=IIII", *values)))
    finally:
        os.close(program_fd)


def detect_device_programs() -> bool:
    """Whether this process can load device programs; one that allows all is loaded and dropped."""
    try:
        os.close(load_device_program(encode(MOVE, immediate=1) + encode(EXIT)))
    except OSError:
        return False
    return True
