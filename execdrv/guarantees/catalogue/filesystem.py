"""The root file system: what the job sees, may write, and can't leave.

Data of the catalogue (see execdrv.guarantees.catalogue): sentences and observations, no code.
Loaded by the conformance kit, the documentation, `drivers` and `doctor`; never by a `run`. The
mutants that kill each guarantee stand in `mutant`.
"""

from execdrv.guarantees.types import Guarantee

GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        id="fs.root",
        title=(
            "The job MUST NOT reach by any path a file of the machine outside its root and its "
            "binds."
        ),
        kind="isolating",
        profile="fs",
        inside="opens the canary by paths, descriptors and links in /proc; walks the tree for it",
        outside="the process's root is not the machine's, and the canary is not below it",
        control="under the null driver the canary opens",
        references=("chroot(2)", "pivot_root(2)"),
    ),
    Guarantee(
        id="fs.dotdot",
        title=(
            "`..`, absolute symbolic links and the links in /proc/self MUST end inside the "
            "container's root."
        ),
        kind="isolating",
        profile="fs",
        inside="tries a dozen forms of such paths",
        outside="content and times of the canary are untouched; what reaches it writes it anew",
        control="under the null driver the same forms reach the canary",
        references=("path_resolution(7)",),
    ),
    Guarantee(
        id="fs.escape-chroot",
        title=(
            "The classic climb out of a chroot (make a directory, chroot into it, fchdir, walk "
            "`..`) MUST end at the container's own root."
        ),
        kind="isolating",
        profile="fs",
        inside=(
            "performs the climb, with CAP_SYS_CHROOT where it may be asked for, and compares "
            "device and inode of where it stands"
        ),
        outside="the canary is untouched",
        control="under a plain chroot with CAP_SYS_CHROOT the climb reaches the machine's root",
        references=("chroot(2)",),
    ),
    Guarantee(
        id="fs.ro-root",
        title="A root that was asked to be read-only MUST refuse every write with EROFS.",
        kind="isolating",
        profile="fs",
        needs=("ns.mnt",),
        inside="twelve writing system calls fail with EROFS",
        outside="hash of the tree is unchanged",
        control="in a writable root the same calls succeed",
        references=("mount_setattr(2)",),
    ),
    Guarantee(
        id="fs.write-private",
        title=(
            "What the job writes to a private root MUST NOT reach the tree that it was made from, "
            "nor a sibling, and MUST end with the container."
        ),
        kind="isolating",
        profile="fs",
        needs=("ns.mnt", "overlay"),
        inside="creates, changes and removes files; a sibling sees none of it",
        outside="hash of the tree; nothing is left of it after the end",
        control="in a direct root the tree changes",
        references=("overlayfs in the kernel documentation",),
    ),
    Guarantee(
        id="fs.tmp-private",
        title=(
            "/tmp, /var/tmp and /dev/shm MUST be the container's own: what the job writes there "
            "shows neither on the machine, the directory of its root included, nor in a sibling."
        ),
        kind="isolating",
        profile="fs",
        needs=("ns.mnt",),
        inside="writes a canary into each; a sibling does not see it",
        outside="neither the machine nor the root's directory has it",
        control="under the null driver the machine sees it",
    ),
    Guarantee(
        id="fs.size",
        title=(
            "A size limit on the writable layer MUST end writing with ENOSPC at the limit, and "
            "just under it writing MUST work."
        ),
        kind="limit",
        profile="fs",
        needs=("ns.mnt",),
        inside="fills it to just under and to just over the limit",
        outside="size in statfs",
        control="without the limit the larger file fits",
        references=("tmpfs(5)",),
    ),
    Guarantee(
        id="fs.inodes",
        title=(
            "An inode limit on the writable layer MUST end creation with ENOSPC at the limit, and "
            "just under it creation MUST work."
        ),
        kind="limit",
        profile="fs",
        needs=("ns.mnt",),
        inside="creates files to just under and to just over the limit",
        outside="inode counts in statfs",
        control="without the limit the larger number fits",
        references=("tmpfs(5)",),
    ),
    Guarantee(
        id="fs.nosuid",
        title=(
            "A setuid or setgid file that the job puts into a writable mount MUST give no "
            "privilege."
        ),
        kind="isolating",
        profile="hardened",
        proof_needs=("root",),
        inside="runs such a file as another user",
        outside="effective ids in the status of the process",
        control="under the null driver the file changes the effective uid",
        references=("mount(2)", "execve(2)"),
    ),
    Guarantee(
        id="fs.proc-own",
        title="A container MUST have a procfs at /proc that lists its own processes and no others.",
        kind="isolating",
        profile="container",
        needs=("ns.mnt", "ns.pid"),
        inside="what is at /proc, whom it lists, and where /proc/self leads",
        outside="the listed numbers are the innermost NSpid of the container's processes",
        control="under the null driver the machine's processes are listed",
        references=("proc(5)", "pid_namespaces(7)"),
    ),
    Guarantee(
        id="fs.masked",
        title=(
            "Kernel files that tell about or steer the machine (kcore, keys, timer_list, "
            "sched_debug, acpi, scsi, firmware, powercap and their like) MUST be missing, empty "
            "or closed to the job."
        ),
        kind="isolating",
        profile="container",
        proof_needs=("root",),
        inside="opens each for reading, reads a few bytes, opens each for writing",
        outside="each that is there has a mount over it in the process's mountinfo",
        control="under the null driver the same files open",
        references=("proc(5)", "CVE-2017-16539", "CVE-2018-10892", "CVE-2020-8694"),
    ),
    Guarantee(
        id="fs.sys-ro",
        title="/proc/sys, /proc/sysrq-trigger and /sys MUST NOT be writable for the job.",
        kind="isolating",
        profile="container",
        proof_needs=("root",),
        inside="opens knobs for writing and asks access(2) of all others; nothing is written",
        outside="the knobs are unchanged; mount flags in mountinfo",
        control="under the null driver they open for writing",
        references=("proc_sys(5)", "sysfs(5)"),
    ),
    Guarantee(
        id="fs.no-host-names",
        title="The mount table that the job can read SHOULD reveal no path of the machine.",
        level="SHOULD",
        kind="isolating",
        profile="hardened",
        inside=(
            "searches every table of mounts for names of the machine's directories: with a bind, "
            "with a root that is not private, and with neither"
        ),
        outside="the same in the process's mountinfo",
        control="under the null driver the names are found",
        references=("proc_pid_mountinfo(5)",),
        parts=(
            ("binds", "a bind does not tell where its source lies"),
            ("root", "a root that is not private does not tell where it lies"),
            ("rest", "no other mount tells where something of the machine lies"),
        ),
    ),
    Guarantee(
        id="fs.owner",
        title=(
            "Files MUST have the owner that the spec says, seen from inside and from the machine."
        ),
        kind="functional",
        profile="fs",
        inside="stat of given and of new files",
        outside="stat of the same files",
        references=("stat(2)", "user_namespaces(7)"),
    ),
)
