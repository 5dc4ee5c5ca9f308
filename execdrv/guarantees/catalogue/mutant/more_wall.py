"""Beyond the first proposal: files, mounts, rights."""

from execdrv.guarantees.types import Mutant

MUTANTS: tuple[Mutant, ...] = (
    # --- files and mounts
    Mutant(
        name="ro-root-writable",
        fault="leaves a root writable that was asked read-only",
        kills=("fs.ro-root", "bad.fails-closed"),
    ),
    Mutant(
        name="writes-through",
        fault="lays no private layer over the root",
        kills=("fs.write-private", "fs.tmp-private", "fs.no-host-names"),
    ),
    Mutant(
        name="unprotected-proc",
        fault="leaves /proc/sys and the like writable",
        kills=("fs.sys-ro", "esc.core-pattern"),
    ),
    Mutant(
        name="masks-with-the-image",
        fault="covers files of /proc with what the root has as /dev/null",
        kills=("esc.rootfs-links",),
    ),
    Mutant(
        name="names-host-paths",
        fault="names directories of the machine as the sources of its mounts",
        kills=("fs.no-host-names",),
    ),
    Mutant(
        name="ro-bind-writable",
        fault="leaves a bind writable that was asked read-only",
        kills=("mnt.bind-ro", "mnt.bind-ro-rec", "bad.fails-closed"),
    ),
    Mutant(
        name="bind-is-empty",
        fault="mounts an empty file system where a bind was asked",
        kills=(
            "fs.no-host-names",
            "mnt.bind",
            "mnt.bind-ro",
            "mnt.bind-ro-rec",
            "mnt.bind-flags",
            "mnt.order",
            "bad.fails-closed",
        ),
    ),
    Mutant(
        name="tmpfs-without-options",
        fault="mounts a tmpfs without the size and mode that were asked",
        kills=("mnt.tmpfs", "bad.fails-closed"),
    ),
    Mutant(
        name="mounts-deepest-first",
        fault="mounts what was asked deepest first",
        kills=("mnt.order",),
    ),
    Mutant(
        name="extra-device",
        fault="has a node in /dev that nobody asked for",
        kills=("dev.minimal",),
    ),
    Mutant(
        name="wrong-device",
        fault="makes /dev/zero a node of the null device",
        kills=("dev.minimal", "dev.usable"),
    ),
    Mutant(
        name="makes-any-device",
        fault="leaves root of the container the right to make device nodes and to open them",
        kills=(
            "dev.no-mknod",
            "dev.no-disk",
            "cap.bounding",
        ),
    ),
    # --- rights
    Mutant(
        name="drops-no-capability",
        fault="leaves root of the container every capability",
        kills=(
            "mnt.no-remount",
            "mnt.no-unmask",
            "net.no-raw",
            "time.no-set",
            "cap.bounding",
            "cap.effective",
            "cap.securebits",
            "bad.fails-closed",
            "esc.core-pattern",
            "esc.handle",
        ),
    ),
    Mutant(
        name="keeps-sys-admin",
        fault="leaves root of the container CAP_SYS_ADMIN",
        kills=(
            "mnt.no-remount",
            "mnt.no-unmask",
            "cap.bounding",
            "cap.effective",
            "esc.core-pattern",
        ),
    ),
    Mutant(
        name="leaves-way-back",
        fault="leaves the job a descriptor of the machine's mounts, and the right to go there",
        kills=(
            "proc.fds-closed",
            "mnt.no-remount",
            "mnt.no-unmask",
            "cap.bounding",
            "conc.threads",
            "esc.core-pattern",
            "esc.setns",
        ),
    ),
    Mutant(
        name="leaves-ambient",
        fault="leaves a job that is not root capabilities in the ambient set",
        kills=(
            "proc.cwd",
            "user.no-return",
            "user.no-host-file",
            "cap.bounding",
            "cap.effective",
        ),
    ),
    Mutant(
        name="wrong-user",
        fault="runs the job as the next user and group",
        kills=("fs.owner", "user.uid", "bad.fails-closed"),
    ),
)
