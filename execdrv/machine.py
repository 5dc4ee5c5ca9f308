"""What this machine can: the truth of the named facts, and what to do about those that lack.

Each fact of guarantees/facts.py is found by one small function that asks the kernel (never a
distribution's name), raises nothing and leaves nothing changed; only the facts that were asked for
are looked at. The answers hold for the process that asked, with its privileges and its cgroup. Runs
in single-threaded processes (two facts take a short-lived child). Knows no driver and no spec.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterable

import attrs

from execdrv.guarantees.facts import MACHINE_FACTS
from execdrv.limits import Limits
from execdrv.linux import cgroups
from execdrv.linux.capabilities import CAPABILITIES
from execdrv.linux.cgroups.control import read_optional, swap_in_use

#: The oldest kernel that execdrv is meant for.
KERNEL_FLOOR = (5, 10)

#: The inode of the initial user namespace (PROC_USER_INIT_INO, linux/proc_ns.h).
_INITIAL_USER_NAMESPACE = 0xEFFFFFFD


@attrs.frozen(kw_only=True)
class Finding:
    """One thing that was looked at."""

    #: The fact's name, or "kernel", "architecture".
    name: str
    #: Whether the machine has it.
    present: bool
    #: What it is, one line.
    text: str
    #: What to do where it lacks, one line.
    hint: str = ""


def detect_facts(names: Iterable[str]) -> dict[str, bool]:
    """The truth of some machine facts, for this process; only these are looked at.

    Args:
        names: of MACHINE_FACTS.
    Returns:
        A truth for each name; an unknown name is false (this machine is not known to have it).
    """
    look = _Look()
    return {name: _detect(look, name) for name in names}


def describe_machine() -> list[Finding]:
    """Everything that can be said about this machine, with the way out of what lacks."""
    truth = detect_facts(MACHINE_FACTS)
    found = [_describe_kernel(), _describe_architecture()]
    found += [
        Finding(
            name=name,
            present=truth[name],
            text=text,
            hint="" if truth[name] else _hint_for(name),
        )
        for name, text in MACHINE_FACTS.items()
    ]
    return found


def _describe_kernel() -> Finding:
    release = os.uname().release
    numbers = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
    floor = ".".join(str(part) for part in KERNEL_FLOOR)
    return Finding(
        name="kernel",
        present=numbers >= KERNEL_FLOOR,
        text=f"Linux {release} ({floor} or newer)",
        hint="" if numbers >= KERNEL_FLOOR else f"boot a kernel of {floor} or newer",
    )


def _describe_architecture() -> Finding:
    from execdrv.linux.syscalls import NUMBERS

    machine = os.uname().machine
    return Finding(
        name="architecture",
        present=machine in NUMBERS,
        text=f"{machine} ({' or '.join(sorted(NUMBERS))})",
        hint="" if machine in NUMBERS else "use another machine",
    )


# --- looking -----------------------------------------------------------------------------------


class _Look:
    """What several facts are read from, read once and only when asked for."""

    @functools.cached_property
    def layout(self) -> cgroups.Layout:
        return cgroups.detect_layout()

    @functools.cached_property
    def filesystems(self) -> set[str]:
        text = read_optional("/proc/filesystems") or ""
        return {line.split()[-1] for line in text.splitlines() if line.split()}

    @functools.cached_property
    def capabilities(self) -> int:
        matched = re.search(
            r"^CapEff:\s*([0-9a-f]+)", read_optional("/proc/self/status") or "", re.M
        )
        return int(matched.group(1), 16) if matched else 0

    def may(self, capability: str) -> bool:
        """Whether this process has a capability, in its own user namespace."""
        return bool(self.capabilities >> CAPABILITIES.index(capability) & 1)


def _detect(look: _Look, name: str) -> bool:
    detector = _DETECTORS.get(name)
    if detector is None:
        return False
    try:
        return detector(look)
    except (OSError, ValueError):
        # What can't be looked at can't be relied on.
        return False


def _detect_root(_look: _Look) -> bool:
    return os.geteuid() == 0 and os.stat("/proc/self/ns/user").st_ino == _INITIAL_USER_NAMESPACE


def _detect_cgroup(look: _Look) -> bool:
    return any(_writable(hierarchy) for hierarchy in look.layout.hierarchies)


def _writable(hierarchy: cgroups.Hierarchy | None) -> bool:
    if hierarchy is None or hierarchy.own is None or hierarchy.read_only:
        return False
    return os.access(hierarchy.own, os.W_OK | os.X_OK)


def _detect_limit(look: _Look, limits: Limits) -> bool:
    return not cgroups.check_limits(look.layout, limits)


def _detect_memory(look: _Look) -> bool:
    return _detect_limit(look, Limits(memory_bytes=2**30))


def _detect_cpu(look: _Look) -> bool:
    hierarchy = look.layout.v1("cpu")
    if hierarchy is not None and not os.path.exists(f"{hierarchy.own}/cpu.cfs_quota_us"):
        # A kernel without CONFIG_CFS_BANDWIDTH.
        return False
    # The least there is: an outer quota does not matter.
    return _detect_limit(look, Limits(cpus=0.001))


def _detect_pids(look: _Look) -> bool:
    return _detect_limit(look, Limits(pids=1))


def _detect_cpuset(look: _Look) -> bool:
    return _detect_controller(look, "cpuset", unified="cpuset")


def _detect_blkio(look: _Look) -> bool:
    return _detect_controller(look, "blkio", unified="io")


def _detect_controller(look: _Look, v1: str, *, unified: str) -> bool:
    """Whether a group of ours can get a controller; on v2 it stands where the pids one would."""
    if (hierarchy := look.layout.v1(v1)) is not None:
        return _writable(hierarchy)
    own = look.layout.unified_group
    return own is not None and unified in own.available and _writable(look.layout.unified)


def _detect_devices(look: _Look) -> bool:
    return cgroups.devices_supported(look.layout)


def _detect_freezer(look: _Look) -> bool:
    if (hierarchy := look.layout.v1("freezer")) is not None and _writable(hierarchy):
        return True
    # Every group but the root has cgroup.freeze since Linux 5.2.
    return _writable(look.layout.unified)


def _namespace_detector(name: str) -> Callable[[_Look], bool]:
    def detect(look: _Look) -> bool:
        if not os.path.exists(f"/proc/self/ns/{name}"):
            return False
        most = read_optional(f"/proc/sys/user/max_{name}_namespaces")
        if most is not None and int(most) < 1:
            return False
        # The others take CAP_SYS_ADMIN, which an ordinary user has in a new user namespace only.
        return look.may("SYS_ADMIN") or (name == "user" and _unprivileged_user_namespaces())

    return detect


def _unprivileged_user_namespaces() -> bool:
    # The first is Debian's and the second Ubuntu's; kernels without them ask nothing.
    clone = read_optional("/proc/sys/kernel/unprivileged_userns_clone")
    apparmor = read_optional("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    return (clone or "1").strip() != "0" and (apparmor or "0").strip() == "0"


def _detect_overlay(look: _Look) -> bool:
    if not look.may("SYS_ADMIN"):
        return False
    if "overlay" in look.filesystems:
        return True
    listed = read_optional(f"/lib/modules/{os.uname().release}/modules.dep") or ""
    if "/overlay.ko" in listed:
        # Mounting loads it.
        return True
    from execdrv.linux import syscalls

    # The kernel may have a module where we see none: this asks for it as a mount would.
    os.close(syscalls.fsopen(b"overlay"))
    return True


def _detect_seccomp(_look: _Look) -> bool:
    # There with CONFIG_SECCOMP_FILTER (Linux 4.14).
    return os.path.exists("/proc/sys/kernel/seccomp/actions_avail")


def _detect_lsm(_look: _Look) -> bool:
    # EINVAL where no module gives labels; AppArmor says `unconfined` at least.
    return bool((read_optional("/proc/self/attr/current") or "").strip("\0\n"))


def _detect_tty(look: _Look) -> bool:
    return "devpts" in look.filesystems and look.may("SYS_ADMIN")


def _detect_tiocsti(look: _Look) -> bool:
    # Before Linux 6.2 there was no such switch, and it was open.
    legacy = read_optional("/proc/sys/dev/tty/legacy_tiocsti")
    return (legacy or "1").strip() == "1" or look.may("SYS_ADMIN")


def _detect_swap(look: _Look) -> bool:
    limits = Limits(memory_bytes=2**30, memory_swap_bytes=2**20)
    return swap_in_use() and _detect_limit(look, limits)


def _detect_smp(_look: _Look) -> bool:
    return len(os.sched_getaffinity(0)) >= 2


def _detect_keyring(_look: _Look) -> bool:
    return os.path.exists("/proc/key-users")


def _detect_mqueue(look: _Look) -> bool:
    return "mqueue" in look.filesystems


def _detect_loop(_look: _Look) -> bool:
    if not _opens("/dev/loop-control"):
        return False
    names = [name for name in os.listdir("/sys/block") if name.startswith("loop")]
    free = [name for name in names if not os.path.exists(f"/sys/block/{name}/loop/backing_file")]
    # With none free, loop-control makes another one.
    return not free or any(_opens(f"/dev/{name}") for name in free)


def _opens(path: str) -> bool:
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        return True
    return False


def _detect_file_handles(_look: _Look) -> bool:
    from execdrv.linux import syscalls

    syscalls.name_to_handle_at(syscalls.AT_FDCWD, b"/")
    return True


def _detect_veth(look: _Look) -> bool:
    from execdrv.linux import trial

    return look.may("SYS_ADMIN") and look.may("NET_ADMIN") and trial.detect_veth()


def _detect_compat32(_look: _Look) -> bool:
    from execdrv.linux import trial

    return trial.detect_compat32()


_DETECTORS: dict[str, Callable[[_Look], bool]] = {
    "root": _detect_root,
    "cgroup": _detect_cgroup,
    "cgroup.memory": _detect_memory,
    "cgroup.cpu": _detect_cpu,
    "cgroup.cpuset": _detect_cpuset,
    "cgroup.pids": _detect_pids,
    "cgroup.devices": _detect_devices,
    "cgroup.freezer": _detect_freezer,
    "cgroup.blkio": _detect_blkio,
    **{
        f"ns.{name}": _namespace_detector(name)
        for name in ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user", "time")
    },
    "overlay": _detect_overlay,
    "seccomp": _detect_seccomp,
    "lsm": _detect_lsm,
    "tty": _detect_tty,
    "tiocsti": _detect_tiocsti,
    "swap": _detect_swap,
    "smp": _detect_smp,
    "keyring": _detect_keyring,
    "mqueue": _detect_mqueue,
    "veth": _detect_veth,
    "loop": _detect_loop,
    "compat32": _detect_compat32,
    "file-handles": _detect_file_handles,
}


# --- ways out ----------------------------------------------------------------------------------

_DELEGATE = "run inside `systemd-run --scope -p Delegate=yes`"

_HINTS: dict[str, str] = {
    "root": "run as root; inside a container, start that with more privilege",
    "cgroup": f"mount cgroup2 on /sys/fs/cgroup writable, or {_DELEGATE}",
    "cgroup.devices": "mount the v1 controller 'devices', or cgroup2 on a kernel with "
    "CONFIG_CGROUP_BPF",
    "cgroup.freezer": "mount cgroup2, or the v1 controller 'freezer'",
    "overlay": "load the module `overlay`; until then use --root-mode read-only",
    "seccomp": "use a kernel built with CONFIG_SECCOMP_FILTER",
    "lsm": "boot with a security module: lsm=...,apparmor or lsm=...,selinux",
    "tty": "run as root, with CAP_SYS_ADMIN",
    "tiocsti": "sysctl dev.tty.legacy_tiocsti=1, for the proof only",
    "swap": "swapon a file or partition; on v1 boot with swapaccount=1",
    "smp": "give this process a second cpu (taskset, cpuset)",
    "keyring": "use a kernel built with CONFIG_KEYS",
    "mqueue": "use a kernel built with CONFIG_POSIX_MQUEUE",
    "veth": "load the module `veth`, and run as root",
    "loop": "load the module `loop`, and allow its devices to this process",
    "compat32": "boot with ia32_emulation=1, on a kernel built with CONFIG_IA32_EMULATION",
    "file-handles": "use a root file system that has them, such as ext4, xfs or btrfs",
}


def _hint_for(name: str) -> str:
    if name in _HINTS:
        return _HINTS[name]
    family, _, member = name.partition(".")
    if family == "cgroup":
        return f"boot with that controller enabled (cgroup_enable={member}), or {_DELEGATE}"
    return f"run as root with CAP_SYS_ADMIN, and let sysctl user.max_{member}_namespaces be above 0"
