"""Limits of cpu, tasks, block input and output, and the rlimits.

Data of the catalogue (see execdrv.guarantees.catalogue): sentences and observations, no code.
Loaded by the conformance kit, the documentation, `drivers` and `doctor`; never by a `run`. The
mutants that kill each guarantee stand in `mutant`.
"""

from execdrv.guarantees.types import Guarantee

GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        id="cpu.quota",
        title=(
            "A quota of half a cpu MUST give 0.5 of a cpu, within 10 %, over two seconds or more."
        ),
        kind="limit",
        profile="limits",
        needs=("cgroup.cpu",),
        inside="counts its own cpu time while it spins",
        outside="the cpu time that the kernel counts for its processes meanwhile",
        control="without the quota it gets about one cpu",
        references=("sched(7)", "cgroups(7)"),
    ),
    Guarantee(
        id="cpu.quota-sum",
        title="The cpu quota MUST hold for all threads and processes of the job together.",
        kind="limit",
        profile="limits",
        needs=("cgroup.cpu",),
        proof_needs=("smp",),
        inside="spins in more threads and processes than there are cpus",
        outside="the cpu time that the kernel counts for its processes meanwhile",
        control="without the quota they get more than one cpu's worth",
        references=("cgroups(7)",),
    ),
    Guarantee(
        id="cpu.weight",
        title="Two containers that contend for one cpu MUST share it by their weights.",
        kind="limit",
        profile="limits",
        needs=("cgroup.cpu",),
        inside="both count what they get at 1 to 4",
        outside="the cpu time that the kernel counts for the processes of both",
        control="with equal weights they share it in halves",
        references=("cgroups(7)", "sched(7)"),
    ),
    Guarantee(
        id="cpu.set",
        title="The job MUST run on the cpus asked for and MUST NOT be able to widen that set.",
        kind="limit",
        profile="limits",
        needs=("cgroup.cpuset",),
        proof_needs=("smp",),
        inside="sched_setaffinity to all cpus, then reads the cpu that it runs on",
        outside="the cpus that the kernel lets it run on",
        control="without the set the job reaches every cpu",
        references=("cpuset(7)", "sched_setaffinity(2)"),
    ),
    Guarantee(
        id="cpu.seconds",
        title=(
            "A budget of cpu seconds MUST end the job once it is used up, and the result MUST "
            "give that reason."
        ),
        kind="limit",
        profile="limits",
        inside="spins",
        outside="the cpu time that the kernel counts for it, and whether it lives",
        control="without the budget it spins until it is told to stop",
        references=("getrlimit(2)",),
    ),
    Guarantee(
        id="pids.limit",
        title=(
            "A limit of n MUST allow the job exactly n tasks, and the next fork MUST fail with "
            "EAGAIN; processes of execdrv do not count."
        ),
        kind="limit",
        profile="limits",
        needs=("cgroup.pids",),
        inside="forks until it is refused",
        outside="limit and refusals of the group, and who else is in it",
        control="without the limit more forks succeed",
        references=("cgroups(7)", "fork(2)"),
    ),
    Guarantee(
        id="pids.threads",
        title="Threads MUST count towards the task limit as processes do.",
        kind="limit",
        profile="limits",
        needs=("cgroup.pids",),
        inside="makes threads until it is refused",
        outside="limit and refusals of the group, and who else is in it",
        control="without the limit more threads are made",
        references=("cgroups(7)", "clone(2)"),
    ),
    Guarantee(
        id="pids.bomb",
        title=(
            "A bounded fork bomb MUST leave the machine responsive, and the container MUST be "
            "ended cleanly afterwards."
        ),
        kind="limit",
        profile="hostile",
        needs=("cgroup.pids",),
        inside="forks as fast as it can, up to the kit's own bound",
        outside="how many there are at once, how quickly a process starts; none is left",
        control="without the limit the bomb reaches the kit's bound",
        references=("cgroups(7)",),
    ),
    Guarantee(
        id="io.bps",
        title="Reading and writing of a block device MUST stay within the bandwidth asked for.",
        kind="limit",
        profile="limits",
        needs=("cgroup.blkio",),
        inside="writes blocks down to the disk and measures",
        outside="the bytes that the kernel has written for it, and the time",
        control="without the limit the same copy takes a fraction of the time",
        references=("cgroups(7)",),
    ),
    Guarantee(
        id="io.iops",
        title="Operations on a block device MUST stay within the rate asked for.",
        kind="limit",
        profile="limits",
        needs=("cgroup.blkio",),
        inside="writes blocks down to the disk one by one and counts",
        outside="the blocks that the kernel has written for it, and the time",
        control="without the limit the rate is higher",
        references=("cgroups(7)",),
    ),
    Guarantee(
        id="rlim.soft",
        title="Every resource limit that was asked for MUST be set.",
        kind="limit",
        profile="limits",
        inside="getrlimit of each",
        outside="the process's limits file",
        control="under the null driver they are the caller's",
        references=("getrlimit(2)",),
    ),
    Guarantee(
        id="rlim.hard",
        title=(
            "The hard resource limits MUST be as asked, and the job MUST NOT be able to raise them."
        ),
        kind="limit",
        profile="limits",
        inside="setrlimit to one more than the hard limit",
        outside="the process's limits file, before and after",
        control="under the null driver they are the caller's",
        references=("getrlimit(2)", "capabilities(7)"),
    ),
    Guarantee(
        id="rlim.effect",
        title=(
            "NOFILE, FSIZE, CORE, NPROC and STACK MUST act: the job is stopped at each as "
            "getrlimit(2) says."
        ),
        kind="limit",
        profile="limits",
        inside="goes up to and over each: the last descriptor, signals, refusals, no core file",
        control="under the null driver each goes through",
        references=("getrlimit(2)", "core(5)"),
    ),
)
