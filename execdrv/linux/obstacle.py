"""What stands against making containers with mounts here, asked of the kernel, changing nothing.

Runs in a supervisor, or in any process that wants to know whether a driver can work. An obstacle
is one line with the way out, or None; an absent feature is an answer, never an exception.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from execdrv.errors import UnsupportedError
from execdrv.linux.capabilities import capability_mask, capability_names
from execdrv.linux.syscalls import capget, fsopen, mount_setattr

#: What making the walls takes.
_NEEDED: Final = (
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "MKNOD", "NET_ADMIN"),
    *("SETGID", "SETPCAP", "SETUID", "SYS_ADMIN", "SYS_CHROOT"),
)


def detect_obstacle() -> str | None:
    """Why native containers can't be made here by this process."""
    if os.geteuid() != 0:
        return "it needs root (run it with sudo)"
    with open("/proc/self/uid_map", encoding="ascii") as file:
        if file.read().split() != ["0", "0", "4294967295"]:
            return "in a user namespace device nodes can't be made (run it outside of that)"
    effective, _, _ = capget()
    lacking = capability_names(capability_mask(_NEEDED) & ~effective)
    if lacking:
        return f"this process lacks CAP_{', CAP_'.join(lacking)} (run it with full root)"
    try:
        mount_setattr(-1)
    except UnsupportedError as error:
        return str(error)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return "this kernel has no mount_setattr(2) (Linux 5.12 or newer is needed)"
        if error.errno == errno.EPERM:
            return "a system call filter forbids mount_setattr(2) (run it outside of that)"
    return None


def detect_root_obstacle() -> str | None:
    """Why this process's root can't be exchanged in a mount namespace (pivot_root(2))."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return find_root_obstacle(file.read())


def find_root_obstacle(mountinfo: str) -> str | None:
    """The same, from the text of /proc/self/mountinfo (proc_pid_mountinfo(5))."""
    found = None
    for line in mountinfo.splitlines():
        number, parent, _, _, mountpoint, *_ = line.split(" ")
        if mountpoint == "/":
            found = number, parent
    if found is None:
        return "the current root is not a mount point, inside a chroot (run it outside of that)"
    if found[0] == found[1]:
        return "the current root is the initramfs (move it to a mounted file system first)"
    return None


def detect_overlay() -> bool:
    """Whether the kernel knows overlay; it loads a module for the question."""
    try:
        os.close(fsopen(b"overlay"))
    except OSError:
        return False
    return True


def detect_bounding() -> int:
    """The bit mask of this process's bounding set, beyond which nothing can be given."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next(int(line[7:], 16) for line in file if line.startswith("CapBnd:"))
