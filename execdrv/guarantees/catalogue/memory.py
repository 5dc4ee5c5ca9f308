"""Limits of memory.

Data of the catalogue (see execdrv.guarantees.catalogue): sentences and observations, no code.
Loaded by the conformance kit, the documentation, `drivers` and `doctor`; never by a `run`. The
mutants that kill each guarantee stand in `mutant`.
"""

from execdrv.guarantees.types import Guarantee

GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        id="mem.limit-oom",
        title=(
            "A job that goes over its memory limit MUST be stopped; one that stays just under it "
            "MUST NOT be."
        ),
        kind="limit",
        profile="limits",
        needs=("cgroup.memory",),
        inside="touches pages to just under and to just over the limit",
        outside=(
            "memory.events counts the kill and the peak is at most the limit (v1: "
            "memory.oom_control, max_usage_in_bytes)"
        ),
        control="without the limit the larger size fits",
        references=("cgroups(7)",),
    ),
    Guarantee(
        id="mem.tree",
        title="The memory limit MUST hold for all processes of the job together.",
        kind="limit",
        profile="limits",
        needs=("cgroup.memory",),
        inside="four children share the amount",
        outside="the group's peak is at most the limit",
        control="without the limit the four fit",
        references=("cgroups(7)",),
    ),
    Guarantee(
        id="mem.swap",
        title=(
            "Swap MUST NOT extend the memory limit by more than was asked; when nothing was said, "
            "not at all."
        ),
        kind="limit",
        profile="limits",
        needs=("cgroup.memory",),
        proof_needs=("swap",),
        inside="touches twice the limit",
        outside="memory.swap.current stays within what was asked (v1: memsw)",
        control="without the limit swap is used",
        references=("cgroups(7)",),
    ),
    Guarantee(
        id="mem.tmpfs",
        title=(
            "What the job writes to a tmpfs, to /dev/shm or to a memfd MUST count towards its "
            "memory limit."
        ),
        kind="limit",
        profile="limits",
        needs=("cgroup.memory",),
        inside="writes to each over the limit",
        outside="shmem in memory.stat of the group",
        control="without the limit the files fit",
        references=("tmpfs(5)", "memfd_create(2)"),
    ),
    Guarantee(
        id="mem.kernel",
        title=(
            "Kernel memory that the job takes by sockets, pipes and directory entries MUST count "
            "towards its memory limit."
        ),
        kind="limit",
        profile="limits",
        needs=("cgroup.memory",),
        inside="makes them in great number",
        outside=(
            "kernel memory in memory.stat of the group grows by as much (v1: "
            "memory.kmem.usage_in_bytes)"
        ),
        control="without the limit the same number is made and nothing is stopped",
        references=("cgroups(7)",),
    ),
    Guarantee(
        id="mem.oom-scope",
        title="Running out of memory inside MUST end processes of that container only.",
        kind="limit",
        profile="limits",
        needs=("cgroup.memory",),
        outside="after the kill the canary process and a sibling are alive",
        control="the kill did happen: the group counts it",
        references=("cgroups(7)",),
    ),
    Guarantee(
        id="mem.oom-group",
        title="Where it was declared, one kill for memory MUST end the whole container.",
        kind="limit",
        profile="limits",
        needs=("cgroup.memory",),
        inside="a child goes over the limit",
        outside="every process of the container is gone",
        control="without it the child's siblings live on",
        references=("cgroups(7)",),
    ),
    Guarantee(
        id="mem.floor",
        title=(
            "A memory limit too small to start in MUST be refused or reported by a typed error "
            "that says so, and MUST leave nothing."
        ),
        kind="functional",
        profile="limits",
        needs=("cgroup.memory",),
        outside=(
            "typed error or reason oom within five seconds, for several limits; nothing is left"
        ),
        control="a slightly larger limit starts",
        references=("cgroups(7)",),
    ),
)
