"""What the chroot driver declares of every guarantee.

Constant data. A chroot is a root directory and a process without rights: no namespace, no group,
no mount. Barriers that are made of missing capabilities hold for a job that has none, of whatever
user; a job that runs as root is not walled in at all, so the climb out is claimed for others only.
"""

from __future__ import annotations

from execdrv.offers import Offers, Status, absent, enforced, not_applicable, partial, when

_NO_NAMESPACE = "a chroot makes no namespace: the job shares this one with the machine"
_NO_MOUNT = "a chroot mounts nothing: the job works in the directory itself"
_NO_GROUP = "a chroot makes no cgroup: nothing is counted or limited for all processes together"
_NO_FILTER = "the driver installs no system call filter"


def _bare(what: str) -> Status:
    """Kept by the lack of a capability."""
    return when("job-without-capabilities", f"a job with capabilities may {what}")


OFFERS = Offers(
    {
        # What every container does that ends in execdrv-init, and what the host sees to.
        "base": enforced(),
        "life.stop-grace": absent("there is no stop with a time of grace yet"),
        "life.exec-join": absent("processes can't join a running container yet"),
        "life.parent-death": partial(
            "nothing but its parents ends a job that has neither a pid namespace nor a cgroup",
            remains="if the supervisor and the process that started it are killed at the same "
            "moment, processes of the job run on until `execdrv gc`",
            parts=("both",),
        ),
        "proc.pid1-term": not_applicable("there is no pid namespace"),
        "proc.reap": enforced(),
        "proc.oom-adj": absent("there is no option for it yet"),
        "tty.*": absent("there are no terminals yet"),
        "tty.no-inject": _bare("type into any terminal that it holds"),
        # Files.
        "fs.*": absent(_NO_MOUNT),
        "fs.root": enforced(),
        "fs.dotdot": enforced(),
        "fs.owner": enforced(),
        "fs.escape-chroot": when(
            "job-not-root", "root in a chroot is not walled in: it shares its user with the machine"
        ),
        "fs.nosuid": enforced(),
        "fs.masked": _bare("mount a procfs"),
        "fs.sys-ro": _bare("mount a procfs or sysfs"),
        "fs.no-host-names": _bare("mount a procfs, which names the machine's mounts"),
        "mnt.*": absent(_NO_MOUNT),
        "mnt.no-remount": _bare("remount what the machine has mounted in its root"),
        "mnt.no-old-root": not_applicable("the root is changed, not the mount namespace"),
        # Other processes, networks, objects of the kernel.
        "pid.*": absent(_NO_NAMESPACE),
        "pid.no-signal": when("own-uid", "the job may signal every process of its user"),
        "pid.no-ptrace": when("own-uid", "the job may trace processes of its user"),
        "pid.ns-death": not_applicable("there is no pid namespace"),
        "net.*": absent(_NO_NAMESPACE),
        "net.lo-up": not_applicable("the job has the machine's loopback"),
        "net.no-raw": _bare("open raw sockets"),
        "net.no-admin": _bare("change the machine's network"),
        "ipc.*": absent(_NO_NAMESPACE),
        "ipc.keyring": absent("the job keeps the session keyring of who started it"),
        "uts.*": absent(_NO_NAMESPACE),
        "uts.no-host-set": _bare("change the machine's host name"),
        # Users and rights.
        "user.*": enforced(),
        "user.map": absent("there is no user namespace: user 0 is the machine's root"),
        "user.setgroups": absent("there is no user namespace"),
        "cap.*": enforced(),
        "sec.*": absent(_NO_FILTER),
        "lsm.*": absent("the driver sets no security label"),
        "time.*": absent(_NO_NAMESPACE),
        "time.no-set": _bare("set the machine's clock"),
        # /dev is the root's own; `check` refuses one that holds anything but the usual nodes.
        "dev.minimal": enforced(),
        "dev.usable": enforced(),
        "dev.no-mknod": _bare("make device nodes"),
        "dev.no-disk": _bare("make the nodes of disks"),
        # Limits: of each process by rlimits, of all together none.
        "limits": absent(_NO_GROUP),
        "rlim.*": enforced(),
        "cpu.seconds": absent("there is no budget of cpu seconds yet; --rlimit cpu is per process"),
        "cg.view": absent(_NO_NAMESPACE),
        "pids.bomb": absent(_NO_GROUP),
        "pause.*": absent("a chroot makes no cgroup that could be frozen"),
        "stat.monotone": absent("a running container has no numbers yet"),
        # Leftovers and crashes.
        "leak.*": enforced(),
        "leak.net": not_applicable("the driver makes nothing in any network"),
        "crash.recover": absent("there are no detached containers yet"),
        "crash.mid-create": enforced(),
        # Attacks.
        "hostile": enforced(),
        "esc.handle": _bare("open files by handle"),
        "esc.release-agent": _bare("mount a cgroup hierarchy"),
        "esc.core-pattern": _bare("mount a procfs"),
        "esc.setns": _bare("enter namespaces of which it has a descriptor"),
        "esc.state": _bare("reach files outside its root"),
        "esc.teardown": _bare("leave mounts and groups on the machine"),
        "esc.symlink-mount": absent(_NO_MOUNT),
        "esc.exec-ptrace": absent("processes can't join a running container yet"),
    }
)
