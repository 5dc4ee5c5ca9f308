"""What a container's file system view consists of, as data: the same for every driver that mounts.

Pure: `plan_mounts` turns what was asked into steps for execdrv.linux.mounts, in this order:

1. /proc: a new procfs; what tells of the machine is covered, what changes it is read-only;
2. /dev: a tmpfs with eight device nodes and links, read-only in the end; /dev/pts, /dev/shm;
3. /tmp: a tmpfs;
4. the mounts that were asked: those with fewer names in their target first, a tmpfs before a
   bind, then as given. So a mount is never hidden by one above it, however they were written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from execdrv.linux.mounts import INERT
from execdrv.linux.step import (
    Attach,
    Cover,
    MakeLink,
    MakeNode,
    MountStep,
    NewFs,
    Protect,
    Seal,
)
from execdrv.linux.syscalls import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID
from execdrv.spec import Bind, Tmpfs

#: Files and directories of /proc that tell of the machine or its kernel's memory, or reach its
#: hardware (proc(5)). Root may read each of them, whatever its capabilities.
COVERED: Final = (
    *(b"acpi", b"asound", b"driver", b"dynamic_debug", b"firmware", b"interrupts", b"iomem"),
    *(b"ioports", b"kallsyms", b"kcore", b"key-users", b"keys", b"kmsg", b"kpagecgroup"),
    *(b"kpagecount", b"kpageflags", b"latency_stats", b"modules", b"mtrr", b"pagetypeinfo"),
    *(b"sched_debug", b"scsi", b"slabinfo", b"timer_list", b"timer_stats", b"vmallocinfo"),
    *(b"vmcore", b"xen"),
)
#: Those that change the machine when written to, and are of use to a job that reads them.
PROTECTED: Final = (b"bus", b"fs", b"irq", b"pressure", b"sys", b"sysrq-trigger")

#: Name -> device number (Documentation/admin-guide/devices.txt).
NODES: Final = {
    b"null": (1, 3),
    b"zero": (1, 5),
    b"full": (1, 7),
    b"random": (1, 8),
    b"urandom": (1, 9),
    b"tty": (5, 0),
}
LINKS: Final = {
    b"ptmx": b"pts/ptmx",
    b"fd": b"/proc/self/fd",
    b"stdin": b"/proc/self/fd/0",
    b"stdout": b"/proc/self/fd/1",
    b"stderr": b"/proc/self/fd/2",
}

#: What a tmpfs or bind gets: programs may be run from it, but none with another's rights.
_PLAIN: Final = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
#: The only mount on which device nodes work, beside its /dev/pts.
_DEVICES: Final = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC


def plan_mounts(
    *, tmpfs: Sequence[Tmpfs] = (), binds: Sequence[Bind] = ()
) -> tuple[MountStep, ...]:
    """All steps on top of the root, in the order of this module's docstring.

    Args:
        tmpfs, binds: what was asked; `Attach.tree` is a bind's index.
    """
    return (
        NewFs(target=b"/proc", fstype=b"proc", attributes=INERT),
        *(Cover(target=b"/proc/" + name) for name in COVERED),
        *(Protect(target=b"/proc/" + name) for name in PROTECTED),
        *_plan_dev(),
        NewFs(target=b"/tmp", fstype=b"tmpfs", options=((b"mode", b"1777"),), attributes=_PLAIN),
        *_plan_asked(tmpfs, binds),
        # Last, so that mount points could be made in it.
        Seal(target=b"/dev"),
    )


def _plan_dev() -> list[MountStep]:
    small = ((b"mode", b"755"), (b"size", b"64k"), (b"nr_inodes", b"128"))
    # 5 is the group tty in every distribution, as in glibc's own grantpt(3).
    terminals = ((b"ptmxmode", b"0666"), (b"mode", b"0620"), (b"gid", b"5"))
    return [
        NewFs(target=b"/dev", fstype=b"tmpfs", options=small, attributes=_DEVICES),
        *(
            MakeNode(target=b"/dev/" + name, major=major, minor=minor)
            for name, (major, minor) in NODES.items()
        ),
        *(MakeLink(target=b"/dev/" + name, to=to) for name, to in LINKS.items()),
        NewFs(target=b"/dev/pts", fstype=b"devpts", options=terminals, attributes=_DEVICES),
        NewFs(
            target=b"/dev/shm", fstype=b"tmpfs", options=((b"mode", b"1777"),), attributes=_PLAIN
        ),
    ]


def _plan_asked(tmpfs: Sequence[Tmpfs], binds: Sequence[Bind]) -> list[MountStep]:
    asked: list[MountStep] = []
    for item in tmpfs:
        options = [(b"mode", b"%o" % item.mode)]
        if item.size is not None:
            options.append((b"size", b"%d" % item.size))
        asked.append(
            NewFs(
                target=item.target,
                fstype=b"tmpfs",
                options=tuple(options),
                attributes=_PLAIN,
                asked=True,
            )
        )
    asked += [Attach(target=bind.target, tree=index) for index, bind in enumerate(binds)]
    return sorted(asked, key=lambda step: _count_names(step.target))


def _count_names(path: bytes) -> int:
    return sum(part not in (b"", b".") for part in path.split(b"/"))
