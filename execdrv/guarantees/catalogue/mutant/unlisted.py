"""Faults thought up by somebody who had not read the checks, to see what those would miss."""

from execdrv.guarantees.types import Mutant

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="bare-sysfs",
        fault="mounts a read-only sysfs, and masks nothing of it",
        kills=("fs.masked",),
    ),
    Mutant(
        name="staged-binds",
        fault="leaves a second, writable mount of each bind in the root",
        kills=("mnt.bind", "mnt.bind-ro"),
    ),
    Mutant(
        name="staged-ro-binds",
        fault="leaves a second, writable mount of each read-only bind in the root",
        kills=("mnt.bind-ro",),
    ),
    Mutant(
        name="net-of-sibling",
        fault="takes the network namespace of a container that runs already",
        kills=("net.siblings",),
    ),
    Mutant(
        name="inheritable-caps",
        fault="leaves the bounding set in the inheritable one, too",
        kills=("cap.effective",),
    ),
    Mutant(
        name="headroom",
        fault="gives a tenth of memory more than was asked for, and does not say so",
        kills=("mem.limit-oom", "mem.tree", "mem.tmpfs", "mem.kernel", "upd.mem", "conc.crosstalk"),
        verdict="CONFLICT",
        liar=True,
    ),
    Mutant(
        name="user-time-only",
        fault="reports user time as cpu time",
        kills=("stat.cpu", "stat.final"),
        liar=True,
    ),
    Mutant(
        name="no-rollback",
        fault="applies limits one by one, and leaves those before one that fails changed",
        kills=("upd.atomic",),
    ),
    Mutant(
        name="no-rollback-reverse",
        fault="the same, in the other order",
        kills=("upd.atomic",),
    ),
    Mutant(
        name="leaks-when-running",
        fault="removes its scratch file only if the job had ended by itself",
        kills=(
            "leak.files",
            "conc.races",
            "bad.fails-closed",
            "esc.teardown",
        ),
    ),
    Mutant(
        name="update-forgets",
        fault="frees the memory that an update does not name",
        kills=("upd.cpu",),
        verdict="CONFLICT",
    ),
    Mutant(
        name="short-hostname",
        fault="cuts the host name at its first dot",
        kills=("uts.hostname",),
    ),
    Mutant(
        name="drops-realtime",
        fault="does not send signals above 31, and does not say so",
        kills=("proc.sig-deliver",),
        liar=True,
    ),
    Mutant(
        name="no-ipv6-lo",
        fault="leaves the container without ::1",
        kills=("net.lo-up",),
    ),
    Mutant(
        name="drops-empty-env",
        fault="drops variables that are set to nothing",
        kills=("proc.env-exact",),
    ),
    Mutant(
        name="loses-groups",
        fault="drops the supplementary groups that were asked for",
        kills=("user.groups", "bad.fails-closed"),
    ),
    Mutant(
        name="nodes-owner-only",
        fault="makes device nodes that only root may write",
        kills=("dev.usable",),
    ),
)
