"""Beyond the first proposal: limits, leaks, ends, filters, and many at once."""

from execdrv.guarantees.types import Mutant

MUTANTS: tuple[Mutant, ...] = (
    # --- limits
    Mutant(
        name="rlimits-ignored",
        fault="leaves the resource limits of a process as they were",
        kills=(
            "rlim.soft",
            "rlim.hard",
            "rlim.effect",
            "conc.crosstalk",
            "bad.fails-closed",
        ),
    ),
    Mutant(
        name="placed-late",
        fault="moves the job into its group when it already runs",
        kills=("cg.placed",),
    ),
    Mutant(
        name="cgroups-writable",
        fault="shows the job the machine's control groups, writable",
        kills=(
            "fs.sys-ro",
            "cg.no-leave",
            "esc.release-agent",
        ),
    ),
    Mutant(
        name="takes-any-floor",
        fault="takes a limit too small to start anything, and does not limit",
        kills=("mem.floor",),
        liar=True,
    ),
    # --- leaks and ends
    Mutant(
        name="says-unmounted",
        fault="fails to unmount what it mounted, and answers destroy with success",
        kills=(
            "leak.mount",
            "leak.failed",
            "conc.races",
            "bad.spec",
            "bad.id",
            "bad.rootfs",
            "bad.fails-closed",
        ),
        liar=True,
    ),
    Mutant(
        name="leaks-netns-name",
        fault="says that the name of its network namespace is gone, and leaves it",
        kills=(
            "leak.net",
            "leak.failed",
            "crash.mid-create",
            "conc.races",
            "bad.spec",
            "bad.id",
            "bad.rootfs",
            "bad.fails-closed",
        ),
        liar=True,
    ),
    Mutant(
        name="says-cleaned-after-failure",
        fault="says after a failed start that nothing is left, and leaves a group",
        kills=("leak.failed", "bad.rootfs"),
        liar=True,
    ),
    Mutant(
        name="crashes-in-start",
        fault="its supervisor ends in the middle of start",
        verdict="UNTESTABLE",
    ),
    Mutant(
        name="hangs-deaf",
        fault="never returns, and does not hear the host's deadline",
        verdict="UNTESTABLE",
    ),
    Mutant(
        name="limits-in-view",
        fault="puts the job into the very group that has the limits",
        kills=("cg.ro",),
    ),
    Mutant(
        name="says-closed",
        fault="says that a container's handle is closed, and keeps its connection in the caller",
        kills=("leak.fd",),
        liar=True,
    ),
    # --- filters, many at once, what is passed on and said
    Mutant(
        name="seccomp-denies-too-much",
        fault="its filter denies a call that every job may make",
        kills=("sec.allow",),
    ),
    Mutant(
        name="seccomp-not-for-root",
        fault="sets its filter for no job of root's",
        kills=("sec.on", "sec.deny", "sec.allow", "sec.arch", "sec.threads"),
    ),
    Mutant(
        name="seccomp-not-set",
        fault="says that it sets a filter, and sets none",
        kills=("sec.on", "sec.deny", "sec.allow", "sec.arch", "sec.threads"),
        liar=True,
    ),
    Mutant(
        name="declares-fewer-capabilities",
        fault="declares fewer capabilities as its default than it gives",
        kills=("cap.bounding", "cap.effective", "cap.securebits"),
        liar=True,
    ),
    Mutant(
        name="few-places",
        fault="has places for five containers, and fails when they are taken",
        kills=("conc.many", "conc.threads"),
    ),
    Mutant(
        name="says-run-without-place",
        fault="runs nothing when its five places are taken, and reports a good end",
        kills=("conc.many", "conc.threads"),
        liar=True,
    ),
    Mutant(
        name="cuts-arguments",
        fault="passes on the first MiB of a command line, and does not say so",
        kills=("esc.flood",),
        liar=True,
    ),
    Mutant(
        name="cuts-stdin",
        fault="passes on the first 64 KiB of standard input, and does not say so",
        kills=("io.stdin",),
        liar=True,
    ),
    Mutant(
        name="forgets-stderr",
        fault="reports that nothing was written to standard error",
        kills=("io.split",),
        liar=True,
    ),
    Mutant(
        name="tells-first-only",
        fault="gives the result to the first who waits, and keeps it for nobody else",
        kills=("life.wait-many",),
    ),
    Mutant(
        name="forgets-scratch-in-crash",
        fault="keeps in memory alone which scratch file it made",
        kills=(
            "leak.files",
            "leak.failed",
            "crash.mid-create",
        ),
    ),
    Mutant(
        name="says-collected",
        fault="says that a lost container is collected, and leaves its record",
        kills=(
            "life.list-truth",
            "leak.files",
            "leak.failed",
            "crash.mid-create",
            "crash.stale",
        ),
        liar=True,
    ),
    Mutant(
        name="outlives-supervisor",
        fault="ties the job to its supervisor's life by nothing of its own",
        kills=("life.parent-death",),
    ),
    Mutant(
        name="holds-read-end",
        fault="holds the read end of the job's output",
        kills=("io.closed-reader",),
    ),
    Mutant(
        name="seccomp-forgets-clone3",
        fault="its filter denies new user namespaces by unshare, and forgets clone3",
        kills=("user.no-userns",),
    ),
    Mutant(
        name="keeps-keyrings",
        fault="says that the caller's keyrings are out of reach, and leaves them",
        kills=("ipc.keyring",),
        liar=True,
    ),
    Mutant(
        name="forgets-user-keyring",
        fault="gives the job a session keyring of its own, and forgets the user's keyring",
        kills=("ipc.keyring",),
    ),
)
