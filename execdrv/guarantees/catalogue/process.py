"""What the job gets at its start, and how its end is reported.

Data of the catalogue (see execdrv.guarantees.catalogue): sentences and observations, no code.
Loaded by the conformance kit, the documentation, `drivers` and `doctor`; never by a `run`. The
mutants that kill each guarantee stand in `mutant`.
"""

from execdrv.guarantees.types import Guarantee

GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        id="proc.exit-code",
        title="Every exit code from 0 to 255 MUST be returned exactly as the job gave it.",
        kind="functional",
        profile="base",
        outside="of a job that exits with n: code is n, reason exited, signal unset",
        control="the codes of one run differ: no fixed answer is right for all",
        references=("exit(3)", "wait(2)"),
    ),
    Guarantee(
        id="proc.exit-signal",
        title=(
            "The death of a job by a signal MUST be reported as that signal and be told apart "
            "from an exit with code 128+n."
        ),
        kind="functional",
        profile="base",
        outside=(
            "of a job that raises n: signal is n and code unset; of one that exits with 128+n: the "
            "other way round"
        ),
        control="an exit with 128+n is told apart from the death by signal n",
        references=("wait(2)", "signal(7)"),
    ),
    Guarantee(
        id="proc.exec-error",
        title=(
            "A command that is missing, may not be executed or has no known format MUST be a "
            "typed start error that names it, never an exit code of the job."
        ),
        kind="functional",
        profile="base",
        outside="a typed error for ENOENT, EACCES and ENOEXEC; no result, no process",
        control="a good program under the same path starts",
        references=("execve(2)",),
    ),
    Guarantee(
        id="proc.argv-exact",
        title=(
            "The job MUST get its arguments byte for byte (empty ones, newlines, quotes, bytes "
            "that are no UTF-8), with no shell in between."
        ),
        kind="functional",
        profile="base",
        inside="prints its arguments in hex",
        outside="the kernel's command line of the process equals what was sent",
        references=("execve(2)",),
    ),
    Guarantee(
        id="proc.env-exact",
        title=(
            "The job MUST see exactly the variables that were declared, and none of the caller's."
        ),
        kind="isolating",
        profile="base",
        inside="prints its environment",
        outside="the process's environment in the kernel holds no canary variable of the caller",
        control="a plain child of the caller has the canary variable",
        references=("environ(7)",),
    ),
    Guarantee(
        id="proc.cwd",
        title=(
            "The job MUST start in the working directory that was asked for; one that is missing "
            "or can't be entered MUST be an error."
        ),
        kind="functional",
        profile="base",
        inside="getcwd, device and inode of the directory; never runs where it can't be entered",
        outside="device and inode of the process's directory; an error where it can't be entered",
        control="a directory that is there is entered",
        references=("chdir(2)", "CVE-2024-21626"),
    ),
    Guarantee(
        id="proc.umask",
        title="The job MUST start with the umask asked for, whatever the caller's is.",
        kind="functional",
        profile="base",
        inside="creates a file and a directory with every bit, and reads their modes",
        outside="modes of both; umask in the status of the process",
        references=("umask(2)",),
    ),
    Guarantee(
        id="proc.sig-default",
        title=(
            "The job MUST start with every signal at its default action and none blocked, "
            "whatever the caller ignores or blocks."
        ),
        kind="functional",
        profile="base",
        inside="each signal that ends a process does; the blocked mask is empty",
        outside="ignored and blocked masks in the status of the process are zero",
        control="a plain child of the same caller inherits what it ignores and blocks",
        references=("signal(7)", "execve(2)"),
    ),
    Guarantee(
        id="proc.sig-deliver",
        title="Every signal that a caller may send MUST reach the job.",
        kind="functional",
        profile="base",
        inside="a handler logs each signal with its number",
        control="a signal that was not sent is not logged",
        references=("signal(7)", "kill(2)"),
    ),
    Guarantee(
        id="proc.pid1-term",
        title=(
            "SIGTERM MUST end a job without handlers at once, although it is alone in its pid "
            "namespace: the job is never pid 1."
        ),
        kind="functional",
        profile="container",
        needs=("ns.pid",),
        outside="ended within one second, by SIGTERM",
        control="the same command as pid 1 of a pid namespace survives the signal",
        references=("pid_namespaces(7)",),
        not_applicable_allowed=True,
    ),
    Guarantee(
        id="proc.reap",
        title="A container MUST reap the orphans of the job, so that no zombies pile up.",
        kind="hygiene",
        profile="container",
        inside="leaves 200 orphans that end; none of their numbers still takes signal 0",
        outside="no process of the tree stays in state Z",
        control="under a pid 1 that never waits the zombies stay",
        references=("wait(2)", "pid_namespaces(7)"),
    ),
    Guarantee(
        id="proc.fds-closed",
        title=(
            "The job MUST have exactly the descriptors 0, 1 and 2 open, and those that were "
            "passed by number."
        ),
        kind="isolating",
        profile="base",
        inside="tries every number and lists its own descriptors",
        outside="descriptor directory of the process",
        control="a plain child of the caller inherits the canary descriptors",
        references=("close_range(2)", "CVE-2024-21626"),
    ),
    Guarantee(
        id="proc.oom-adj",
        title="The job's oom_score_adj MUST be as asked, and the job MUST NOT be able to lower it.",
        kind="isolating",
        profile="hardened",
        outside="the value in /proc/PID/oom_score_adj, before and after the job tries a lower one",
        control="under the null driver it is the caller's",
        references=("proc_pid_oom_score_adj(5)",),
    ),
)
