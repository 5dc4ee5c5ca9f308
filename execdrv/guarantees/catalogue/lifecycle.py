"""What a container's life promises: states, start, end, waiting, listing.

Data of the catalogue (see execdrv.guarantees.catalogue): sentences and observations, no code.
Loaded by the conformance kit, the documentation, `drivers` and `doctor`; never by a `run`. The
mutants that kill each guarantee stand in `mutant`.
"""

from execdrv.guarantees.types import Guarantee

GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        id="life.create-inert",
        title=(
            "A container MUST NOT run a single instruction of the job before `start`: after "
            "create, isolate and limit the command is not yet there."
        ),
        kind="functional",
        profile="base",
        inside="the job's first act, writing to its output, has not happened after any step",
        outside="no process has the job's command; the canary, its output, is empty",
        control="after `start` the same job does touch the canary",
    ),
    Guarantee(
        id="life.states",
        title=(
            "A container MUST take only the legal transitions of the contract; an operation that "
            "is illegal in its state MUST raise StateError and change nothing."
        ),
        kind="functional",
        profile="base",
        outside=(
            "the state reported, and what is refused, are compared with a model: each operation in "
            "each state, and seeded sequences"
        ),
        control="the legal steps of the same sequence go through",
    ),
    Guarantee(
        id="life.start-once",
        title=(
            "A container MUST be started at most once: a second `start` is a typed error and "
            "makes no second process."
        ),
        kind="functional",
        profile="base",
        inside="the nonce is printed once, and a second start is refused",
        outside="one process carries the nonce in its environment, and none after its end",
    ),
    Guarantee(
        id="life.id-unique",
        title=(
            "A container MUST be alone under its id: a second one of the same id is refused, and "
            "the first goes on unharmed."
        ),
        kind="functional",
        profile="base",
        inside="the first job keeps answering during and after the attempt",
        outside="one record, one owner, and no new process or group",
        control="a second container under another id is made",
    ),
    Guarantee(
        id="life.stop-grace",
        title=(
            "Stopping a container MUST send SIGTERM, leave the job the whole grace time, and only "
            "then kill what is left."
        ),
        kind="functional",
        profile="base",
        inside="the handler logs SIGTERM and its time",
        outside=(
            "the tree is gone soon after the grace time and not before; a job that ends on "
            "SIGTERM is not waited for"
        ),
        control="a job that ignores nothing ends at once on the same call",
        references=("signal(7)",),
    ),
    Guarantee(
        id="life.kill-tree",
        title=(
            "Ending a container MUST end every process of the job, also those that called setsid, "
            "double-forked, became daemons, ignore signals or were left by their parents."
        ),
        kind="hygiene",
        profile="base",
        inside="one process of each of these five kinds beats, and falls silent with the end",
        outside=(
            "no process is left with the nonce in its environment, in the container's groups or "
            "below its root"
        ),
        control="before the end all five beat and are found",
        references=("setsid(2)", "cgroups(7)", "pid_namespaces(7)"),
    ),
    Guarantee(
        id="life.deadline",
        title=(
            "A wall-clock timeout MUST end the whole job within its window and MUST be reported "
            "as a timeout, never as an exit of the job."
        ),
        kind="functional",
        profile="base",
        inside="sleeps longer than the timeout and logs its heartbeat",
        outside="ended inside the window, reason timeout",
        control="the same job with a longer timeout ends by itself",
    ),
    Guarantee(
        id="life.wait-many",
        title=(
            "Every waiter of a container MUST get the same result, also several at once and one "
            "that comes after the end."
        ),
        kind="functional",
        profile="base",
        outside=(
            "results of early and late waiters, by one handle and by several, are equal, captured "
            "output included"
        ),
        control="a waiter of a second container gets that one's different result",
    ),
    Guarantee(
        id="life.destroy-idem",
        title=(
            "Destroying a container MUST be repeatable: a second destroy succeeds and changes "
            "nothing, and destroying a running container ends its job first."
        ),
        kind="functional",
        profile="base",
        outside=(
            "all objects of the container are gone after the first call; nothing changes at the "
            "second"
        ),
        control="before the first call the observer finds those objects",
    ),
    Guarantee(
        id="life.list-truth",
        title=(
            "The list of containers MUST tell the truth also after a job or a supervisor was "
            "killed from outside."
        ),
        kind="functional",
        profile="base",
        outside="the list is compared with the process table after kill -9 of either",
        control="the untouched sibling is still listed as running",
    ),
    Guarantee(
        id="life.exec-join",
        title=(
            "A process added to a running container MUST join all its namespaces, its groups, its "
            "root, its users and its capability sets."
        ),
        kind="functional",
        profile="container",
        inside="namespace ids, root and capability sets equal those of the job",
        outside="namespace links, groups, root and status of both processes are equal",
        control="a process beside the container differs in them",
        references=("setns(2)", "namespaces(7)"),
    ),
    Guarantee(
        id="life.parent-death",
        title=(
            "When the supervisor is killed, every process of the job MUST be gone within one "
            "second, and the container MUST then be reported as lost."
        ),
        kind="hygiene",
        profile="container",
        inside="the beats of processes of five kinds stop",
        outside="no process of the job is left; the state is lost; the next clean-up removes it",
        control="the beats of a sibling go on",
        parts=(
            ("supervisor", "when the supervisor is killed"),
            ("both", "when the supervisor and the process that started it are killed at once"),
        ),
        references=("PR_SET_PDEATHSIG(2const)", "PR_SET_CHILD_SUBREAPER(2const)"),
    ),
)
