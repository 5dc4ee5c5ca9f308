"""Changing limits, pausing, and the numbers reported.

Data of the catalogue (see execdrv.guarantees.catalogue): sentences and observations, no code.
Loaded by the conformance kit, the documentation, `drivers` and `doctor`; never by a `run`. The
mutants that kill each guarantee stand in `mutant`.
"""

from execdrv.guarantees.types import Guarantee

GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        id="upd.mem",
        title=(
            "A raised or lowered memory limit MUST act on the running job, and leave its other "
            "limits as they were."
        ),
        kind="limit",
        profile="limits",
        needs=("cgroup.memory",),
        inside="allocates after each change",
        outside="memory.max of the group (v1: memory.limit_in_bytes), and its other limits",
        control="before the change the same size is stopped, or fits",
        references=("cgroups(7)",),
    ),
    Guarantee(
        id="upd.cpu",
        title=(
            "A changed cpu quota MUST act on the running job within one second, and leave its "
            "other limits as they were."
        ),
        kind="limit",
        profile="limits",
        needs=("cgroup.cpu",),
        inside="its rate of work changes",
        outside="cpu.max and usage of the group, and its other limits",
        control="without a change the rate stays",
        references=("cgroups(7)",),
    ),
    Guarantee(
        id="upd.atomic",
        title=(
            "An update with one invalid value MUST be refused by a typed error and MUST change "
            "nothing."
        ),
        kind="functional",
        profile="limits",
        needs=("cgroup",),
        outside="all limit files are equal before and after",
        control="the same update without the invalid value changes them",
    ),
    Guarantee(
        id="pause.tree",
        title=(
            "While a container is paused, its processes MUST all stand still, also those that "
            "were just being made."
        ),
        kind="functional",
        profile="container",
        needs=("cgroup.freezer",),
        inside="the counters of parent and children stop",
        outside="the group is frozen and no process's cpu time grows",
        control="before the pause the counters advance",
        references=("cgroups(7)",),
    ),
    Guarantee(
        id="pause.resume",
        title="After resume the job MUST go on where it stood, with its timers sane.",
        kind="functional",
        profile="container",
        needs=("cgroup.freezer",),
        inside="the counter goes on without a gap; timers fire once",
        control="during the pause the counter stood still",
        references=("cgroups(7)",),
    ),
    Guarantee(
        id="pause.kill",
        title="Killing and destroying MUST work on a paused container.",
        kind="functional",
        profile="container",
        needs=("cgroup.freezer",),
        outside="the tree is empty within two seconds",
        control="without either the paused tree stays",
        references=("cgroups(7)",),
    ),
    Guarantee(
        id="stat.cpu",
        title="The cpu time reported MUST be what an observer reads, within 5 %.",
        kind="functional",
        profile="base",
        inside="spins for one second",
        outside="cpu.stat of the group, or the usage of the ended processes",
        control="a job that sleeps reports next to none",
        references=("getrusage(2)", "cgroups(7)"),
    ),
    Guarantee(
        id="stat.mem-peak",
        title="The memory peak reported MUST be what an observer reads, within 5 %.",
        kind="functional",
        profile="limits",
        needs=("cgroup.memory",),
        inside="touches 64 MiB",
        outside="memory.peak of the group (v1: max_usage_in_bytes)",
        control="a job that touches nothing reports less",
        references=("cgroups(7)",),
    ),
    Guarantee(
        id="stat.oom",
        title=(
            "An end by lack of memory MUST be reported as such, not as an exit with 137 or a "
            "plain SIGKILL."
        ),
        kind="functional",
        profile="limits",
        needs=("cgroup.memory",),
        inside="goes over its memory limit",
        outside="reason oom, and oom_kill in memory.events",
        control="a job killed by SIGKILL is not reported as oom",
        references=("cgroups(7)",),
    ),
    Guarantee(
        id="stat.final",
        title="The final numbers MUST be there after exit and after destroy.",
        kind="functional",
        profile="base",
        outside="they equal what the observer read last",
        control="during the run the numbers are smaller",
    ),
    Guarantee(
        id="stat.monotone",
        title="Reported counters MUST grow with what the job uses and MUST NOT go back.",
        kind="functional",
        profile="base",
        outside="sampled while the job works and at its end",
        control="an idle job's counters do not grow likewise",
    ),
)
