"""The kernel's capabilities by name and number (capabilities(7), linux/capability.h).

Pure data and arithmetic; it touches no kernel. Names are written without the CAP_ prefix.
"""

from __future__ import annotations

from collections.abc import Iterable

#: Names in the order of their numbers.
CAPABILITIES: tuple[str, ...] = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"),
    *("SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW"),
    *("IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT"),
    *("SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD"),
    *("LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG"),
    *("WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"),
)

#: What a container's root keeps by default under native and lxc: what changing owners, users and
#: low ports in one's own tree takes. Neither MKNOD, NET_RAW, DAC_READ_SEARCH nor any SYS_*.
CONTAINER_CAPABILITIES = frozenset(
    {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"}
    | {"NET_BIND_SERVICE"}
)


def capability_mask(names: Iterable[str]) -> int:
    """The bit mask of capability names (without CAP_); KeyError for an unknown one."""
    numbers = {name: number for number, name in enumerate(CAPABILITIES)}
    mask = 0
    for name in names:
        mask |= 1 << numbers[name]
    return mask


def capability_names(mask: int) -> tuple[str, ...]:
    """The names of the bits set in `mask`, lowest first."""
    return tuple(name for number, name in enumerate(CAPABILITIES) if mask >> number & 1)
