"""Beyond the first proposal: processes and the life cycle."""

from execdrv.guarantees.types import Mutant

MUTANTS: tuple[Mutant, ...] = (
    # --- process
    Mutant(
        name="exit-code-of-7-bits",
        fault="returns the low seven bits of an exit code",
        kills=(
            "proc.exit-code",
            "proc.exit-signal",
            "conc.many",
        ),
    ),
    Mutant(
        name="sigterm-ignored",
        fault="starts the job with SIGTERM ignored",
        kills=("proc.exit-signal", "proc.sig-default", "proc.pid1-term"),
    ),
    Mutant(
        name="signals-blocked",
        fault="starts the job with a signal blocked",
        kills=("proc.sig-default", "proc.sig-deliver"),
    ),
    Mutant(
        name="drops-signals",
        fault="answers a signal with success and does not send it",
        kills=(
            "life.states",
            "proc.sig-deliver",
            "proc.pid1-term",
            "bad.typed",
        ),
        liar=True,
    ),
    Mutant(
        name="wrong-cwd",
        fault="starts every job in the root directory",
        kills=("proc.cwd", "bad.fails-closed", "bad.typed"),
    ),
    Mutant(
        name="wrong-umask",
        fault="starts every job with its own umask",
        kills=("proc.umask",),
    ),
    Mutant(
        name="exec-error-as-exit-127",
        fault="reports a command that can't be executed as one that exited with 127",
        kills=("proc.exec-error", "proc.cwd", "bad.rootfs", "bad.typed"),
        liar=True,
    ),
    Mutant(
        name="no-stdin",
        fault="gives the job an empty standard input, whatever was asked",
        kills=(
            "proc.argv-exact",
            "io.stdin",
            "conc.crosstalk",
        ),
    ),
    Mutant(
        name="waits-for-streams",
        fault="reports the end only when nobody holds the job's output any more",
        kills=("io.eof-daemon",),
    ),
    Mutant(
        name="keeps-all-output",
        fault="keeps all output in memory, whatever was asked",
        kills=("io.big", "esc.flood"),
    ),
    # --- life cycle
    Mutant(
        name="starts-early",
        fault="runs the command before anybody asks",
        kills=("life.create-inert",),
    ),
    Mutant(
        name="takes-any-step",
        fault="takes every operation in every state",
        kills=("life.states", "life.start-once"),
    ),
    Mutant(
        name="takes-used-id",
        fault="makes a container of an id that is in use, in the place of the first",
        kills=("life.id-unique", "bad.typed"),
    ),
    Mutant(
        name="ignores-deadline",
        fault="lets the job run on when its time is up",
        kills=("life.deadline",),
    ),
    Mutant(
        name="deadline-unreported",
        fault="reports the end of a job whose time was up as asked for",
        kills=("life.deadline",),
        liar=True,
    ),
    Mutant(
        name="answers-waiters-apart",
        fault="tells the second who waits something else than the first",
        kills=("life.wait-many",),
        liar=True,
    ),
    Mutant(
        name="lists-the-dead",
        fault="leaves a container listed as running when its job has ended",
        kills=(
            "life.states",
            "life.list-truth",
            "stat.final",
        ),
        liar=True,
    ),
    Mutant(
        name="destroy-does-nothing",
        fault="answers destroy with success and does nothing",
        kills=(
            "life.list-truth",
            "life.kill-tree",
            "life.destroy-idem",
            "leak.proc",
            "leak.cgroup",
            "leak.files",
            "leak.failed",
            "conc.races",
            "bad.spec",
            "bad.id",
            "bad.rootfs",
            "bad.fails-closed",
            "bad.typed",
            "esc.teardown",
        ),
        liar=True,
    ),
    Mutant(
        name="final-numbers-lost",
        fault="has forgotten every number when the container has ended",
        kills=(
            "stat.cpu",
            "stat.final",
        ),
    ),
    Mutant(
        name="kills-by-bare-number",
        fault="takes a process for its own by the number alone",
        kills=("crash.stale",),
    ),
)
