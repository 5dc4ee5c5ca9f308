"""The closed lists of named facts, about the machine and about a spec.

A guarantee names the machine facts it needs; a driver's `when` names a fact of either list. The
host finds their truth (the machine's by asking the kernel, the spec's from the effective values,
the driver's defaults filled in); nothing here looks at anything. A name is added here together
with the code that detects it.
"""

#: Facts about the machine. Each text completes "this machine lacks ...".
MACHINE_FACTS: dict[str, str] = {
    "root": "uid 0 in the initial user namespace, for execdrv itself",
    "cgroup": "a cgroup hierarchy in which execdrv may make a group",
    "cgroup.memory": "the memory controller, in a group of ours",
    "cgroup.cpu": "the cpu controller with bandwidth control, in a group of ours",
    "cgroup.cpuset": "the cpuset controller, in a group of ours",
    "cgroup.pids": "the pids controller, in a group of ours",
    "cgroup.devices": "device control of a group: the v1 devices controller, or device BPF on v2",
    "cgroup.freezer": "freezing of a group: the v1 freezer controller, or cgroup.freeze on v2",
    "cgroup.blkio": "throttling of block devices: the v1 blkio controller, or io on v2",
    "ns.mnt": "mount namespaces that we may make",
    "ns.pid": "pid namespaces that we may make",
    "ns.net": "network namespaces that we may make",
    "ns.ipc": "ipc namespaces that we may make",
    "ns.uts": "uts namespaces that we may make",
    "ns.cgroup": "cgroup namespaces that we may make",
    "ns.user": "user namespaces that we may make",
    "ns.time": "time namespaces that we may make",
    "overlay": "the overlay file system, mountable by us",
    "seccomp": "seccomp filters (CONFIG_SECCOMP_FILTER)",
    "lsm": "a security module with labels for processes (AppArmor, SELinux, Smack)",
    "tty": "a devpts file system that we may mount",
    "tiocsti": "TIOCSTI open to the control arm (dev.tty.legacy_tiocsti=1, or CAP_SYS_ADMIN)",
    "swap": "swap space in use, and its accounting in a group of ours",
    "smp": "two or more cpus that we may run on",
    "keyring": "kernel keyrings (CONFIG_KEYS)",
    "mqueue": "POSIX message queues (CONFIG_POSIX_MQUEUE)",
    "veth": "pairs of veth interfaces that we may make",
    "loop": "a free loop device that we may open",
    "compat32": "a kernel that takes 32-bit system calls",
    "file-handles": "file handles on the root's file system (name_to_handle_at(2))",
}

#: Facts about a spec as it will be run. Each text completes "true when ...".
SPEC_FACTS: dict[str, str] = {
    "job-not-root": "the job's uid, as the job sees it, is not 0",
    "job-without-capabilities": "all five capability sets of the job are empty",
    "capabilities-default": "the job gets no capability outside the driver's default set",
    "own-uid": "nobody asked for a user: the container has a uid that no other one has",
    "root-private": "the root mode is private",
    "root-read-only": "the root mode is read-only",
    "root-not-direct": "the root mode is private or read-only",
    "net-none": "the network is none: a namespace with loopback only",
    "net-own": "the network is not the machine's",
    "group-made": "the host makes a cgroup for the container",
    "memory-limited": "a memory limit was asked for",
}
