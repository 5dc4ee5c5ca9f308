"""Which processes the job can see, signal and trace.

Data of the catalogue (see execdrv.guarantees.catalogue): sentences and observations, no code.
Loaded by the conformance kit, the documentation, `drivers` and `doctor`; never by a `run`. The
mutants that kill each guarantee stand in `mutant`.
"""

from execdrv.guarantees.types import Guarantee

GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        id="pid.ns",
        title=(
            "A container MUST have a pid namespace of its own, in which the parents of the job "
            "end at pid 1."
        ),
        kind="isolating",
        profile="container",
        needs=("ns.pid",),
        inside="getpid, and the chain of parents",
        outside="NSpid is one level deeper than the observer's",
        control="under the null driver the namespace is the machine's",
        references=("pid_namespaces(7)",),
    ),
    Guarantee(
        id="pid.hidden",
        title="The job MUST NOT see a process of the machine.",
        kind="isolating",
        profile="container",
        needs=("ns.pid",),
        inside="looks for the canary process in /proc and by signal 0",
        control="under the null driver the canary is seen",
        references=("pid_namespaces(7)",),
    ),
    Guarantee(
        id="pid.no-signal",
        title=(
            "The job MUST NOT be able to signal a process of the machine, one of its own uid "
            "included."
        ),
        kind="isolating",
        profile="container",
        inside="sends signal 0 to every number",
        control="under the null driver signal 0 reaches the canary",
        references=("kill(2)", "CVE-2021-3283"),
    ),
    Guarantee(
        id="pid.no-ptrace",
        title="The job MUST NOT be able to trace a process of the machine or to read its memory.",
        kind="isolating",
        profile="container",
        inside="tries PTRACE_ATTACH, PTRACE_SEIZE and process_vm_readv on the canary",
        outside="TracerPid of the canary stays 0",
        control="under the null driver the canary's memory is read",
        references=("ptrace(2)", "process_vm_readv(2)"),
    ),
    Guarantee(
        id="pid.ns-death",
        title="The end of pid 1 of a container MUST end everything in it.",
        kind="hygiene",
        profile="container",
        needs=("ns.pid",),
        outside="the tree is empty once pid 1 was killed",
        control="under the null driver the end of the first process leaves the others",
        references=("pid_namespaces(7)",),
        not_applicable_allowed=True,
    ),
)
