"""What the job is given and held to: its process, its rights, its limits."""

from execdrv.guarantees.types import Mutant

MUTANTS: tuple[Mutant, ...] = (
    # --- process
    Mutant(
        name="exit-code-masked-to-1",
        fault="returns 1 for every exit code that is not 0",
        kills=(
            "life.wait-many",
            "proc.exit-code",
            "proc.exit-signal",
        ),
        liar=True,
    ),
    Mutant(
        name="signal-as-exit-0",
        fault="returns exit code 0 for a death by signal",
        kills=("proc.exit-signal", "proc.pid1-term"),
        liar=True,
    ),
    Mutant(
        name="shell=True",
        fault="passes the command through a shell",
        kills=(
            "proc.exec-error",
            "proc.argv-exact",
            "proc.env-exact",
            "io.split",
            "bad.typed",
        ),
    ),
    Mutant(
        name="inherits-env",
        fault="adds the caller's variables to the job's",
        kills=("proc.env-exact",),
    ),
    Mutant(
        name="leaks-fd",
        fault="leaves a directory descriptor of the machine open in the job",
        kills=("proc.fds-closed", "fs.root", "conc.threads", "esc.fd-cwd"),
    ),
    Mutant(
        name="SIGPIPE-ignored",
        fault="starts the job with SIGPIPE ignored",
        kills=(
            "proc.exit-signal",
            "proc.sig-default",
        ),
    ),
    Mutant(name="no-reaper", fault="its pid 1 never waits", kills=("proc.reap",)),
    Mutant(
        name="merges-stderr",
        fault="sends standard error to standard output",
        kills=("io.split",),
    ),
    Mutant(
        name="truncates-64K",
        fault="drops output after 64 KiB, and does not say so",
        kills=("io.big",),
        liar=True,
    ),
    Mutant(
        name="keeps-host-ctty",
        fault="leaves the job in the caller's session",
        kills=("tty.no-inject",),
        waits_for="a machine where TIOCSTI is open",
    ),
    # --- privilege
    Mutant(
        name="keeps-one-cap",
        fault="leaves one capability more in the bounding set",
        kills=("cap.bounding",),
    ),
    Mutant(
        name="no-nnp",
        fault="does not set no_new_privs",
        kills=("fs.nosuid", "cap.nnp", "cap.suid-inert"),
    ),
    Mutant(
        name="seccomp-x86_64-only",
        fault="lets every call of another architecture through its filter",
        kills=("sec.arch",),
    ),
    Mutant(
        name="seccomp-log-not-deny",
        fault="logs what its filter should deny",
        kills=("sec.deny", "sec.allow", "sec.arch", "sec.threads"),
    ),
    Mutant(
        name="keeps-supplementary-groups",
        fault="leaves the caller's supplementary groups",
        kills=("user.groups",),
    ),
    # --- limits
    Mutant(
        name="memory.high-only",
        fault="slows the job at its memory limit instead of stopping it",
        kills=(
            "mem.limit-oom",
            "mem.tree",
            "mem.tmpfs",
            "mem.kernel",
            "mem.oom-scope",
            "mem.floor",
            "upd.mem",
            "upd.atomic",
            "stat.oom",
            "conc.crosstalk",
            "bad.fails-closed",
        ),
        liar=True,
    ),
    Mutant(
        name="limits-first-process-only",
        fault="limits the memory of the first process, not of the tree",
        kills=(
            "mem.limit-oom",
            "mem.tree",
            "mem.tmpfs",
            "mem.kernel",
            "mem.oom-scope",
            "mem.floor",
            "upd.mem",
            "upd.atomic",
            "stat.oom",
            "conc.crosstalk",
            "bad.fails-closed",
        ),
        liar=True,
    ),
    Mutant(
        name="no-swap-limit",
        fault="limits memory and leaves swap free",
        kills=("mem.swap",),
        waits_for="a machine with swap",
    ),
    Mutant(
        name="pids-off-by-100",
        fault="sets the task limit 100 too high",
        kills=("pids.limit", "pids.threads", "pids.bomb", "bad.fails-closed"),
        liar=True,
    ),
    Mutant(
        name="cpu-weight-instead-of-quota",
        fault="sets a weight where a quota was asked for",
        kills=(
            "cpu.quota",
            "cpu.quota-sum",
            "bad.fails-closed",
        ),
        liar=True,
    ),
    Mutant(
        name="rlimit-soft-only",
        fault="sets the soft resource limits and leaves the hard ones",
        kills=("rlim.hard", "bad.fails-closed"),
    ),
    Mutant(
        name="kills-host-sibling",
        fault="ends a neighbour's process when its job runs out of memory",
        kills=("mem.oom-scope",),
    ),
    # --- control
    Mutant(
        name="kill-only-leader",
        fault="kills the first process and leaves the rest",
        kills=(
            "life.kill-tree",
            "life.destroy-idem",
            "io.eof-daemon",
            "leak.proc",
            "esc.teardown",
        ),
    ),
    Mutant(
        name="pause-only-leader",
        fault="stops the first process and lets the rest run",
        kills=("pause.tree",),
        waits_for="a driver that can pause",
    ),
    Mutant(
        name="update-noop",
        fault="answers an update with success and does nothing",
        kills=("upd.mem", "upd.cpu", "upd.atomic"),
        liar=True,
    ),
    Mutant(
        name="stats-constant",
        fault="reports the same numbers for ever",
        kills=(
            "mem.floor",
            "stat.cpu",
            "stat.mem-peak",
            "stat.oom",
            "stat.final",
        ),
        liar=True,
    ),
    Mutant(
        name="oom-unreported",
        fault="reports an end by lack of memory as a plain SIGKILL",
        kills=("mem.floor", "stat.oom"),
        liar=True,
    ),
)
