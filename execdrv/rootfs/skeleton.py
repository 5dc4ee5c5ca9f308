"""What every root file system has beside programs: directories, a few files in /etc, device nodes.

Constants and the one function that adds them to a plan. The files are our own, never copies of this
machine's: they name no user, host or server of it.
"""

from __future__ import annotations

from execdrv.rootfs.plan import Directory, Node, Planner, Text

DIRECTORIES = (
    "dev",
    "dev/pts",
    "dev/shm",
    "etc",
    "home",
    "media",
    "mnt",
    "opt",
    "proc",
    "root",
    "run",
    "run/lock",
    "srv",
    "sys",
    "tmp",
    "usr/bin",
    "usr/lib",
    "usr/lib64",
    "usr/local/bin",
    "usr/local/lib",
    "usr/local/sbin",
    "usr/sbin",
    "usr/share",
    "var/cache",
    "var/lib",
    "var/log",
    "var/tmp",
)

#: In a private tree anybody may write here, as usual; in a shared one nobody but root may write
#: anywhere (native and lxc mount a tmpfs over /tmp and /dev/shm).
SCRATCH = ("dev/shm", "tmp", "var/tmp")

#: Linux device numbers (Documentation/admin-guide/devices.txt).
NODES = {
    "dev/null": Node(1, 3),
    "dev/zero": Node(1, 5),
    "dev/full": Node(1, 7),
    "dev/random": Node(1, 8),
    "dev/urandom": Node(1, 9),
    "dev/tty": Node(5, 0),
}

#: resolv.conf is empty on purpose: no server is named, and there is a file to bind over.
FILES = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
    ),
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "etc/nsswitch.conf": (
        "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"
        "protocols: files\nservices: files\n"
    ),
    "etc/resolv.conf": "",
    "etc/os-release": (
        'NAME="execdrv"\nID=execdrv\nPRETTY_NAME="execdrv root file system (files of its host)"\n'
    ),
}


def add_skeleton(planner: Planner, *, scratch_mode: int) -> None:
    """Add all of it.

    Args:
        scratch_mode: mode of the directories in SCRATCH.
    """
    for path in DIRECTORIES:
        planner.add(path, Directory(scratch_mode if path in SCRATCH else 0o755))
    for path, text in FILES.items():
        planner.add(path, Text(text))
    for path, node in NODES.items():
        planner.add(path, node)
