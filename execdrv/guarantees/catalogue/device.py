"""The job's view of its groups, the clocks and /dev.

Data of the catalogue (see execdrv.guarantees.catalogue): sentences and observations, no code.
Loaded by the conformance kit, the documentation, `drivers` and `doctor`; never by a `run`. The
mutants that kill each guarantee stand in `mutant`.
"""

from execdrv.guarantees.types import Guarantee

GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        id="cg.placed",
        title=(
            "Every process of the job MUST be in the container's group from its first instruction "
            "on."
        ),
        kind="limit",
        profile="limits",
        needs=("cgroup",),
        inside="reads its own /proc/self/cgroup first of all",
        outside="the group's cgroup.procs holds every process that carries the nonce",
        control="under the null driver they are in the caller's group",
        references=("cgroups(7)",),
    ),
    Guarantee(
        id="cg.view",
        title="In a cgroup namespace the job MUST see its own group as `/`.",
        kind="isolating",
        profile="container",
        needs=("cgroup", "ns.cgroup"),
        inside="reads /proc/self/cgroup",
        outside="the process's link differs from the machine's",
        control="under the null driver the whole path is seen",
        references=("cgroup_namespaces(7)",),
    ),
    Guarantee(
        id="cg.ro",
        title="The job MUST NOT be able to raise or remove its own limits.",
        kind="limit",
        profile="limits",
        needs=("cgroup",),
        inside=(
            "writes every file of its limits that it can find, and those that it can mount in a "
            "user namespace"
        ),
        outside="values of the limits are unchanged",
        control="from outside the same file takes the value",
        references=("cgroups(7)", "CVE-2023-25809"),
    ),
    Guarantee(
        id="cg.no-leave",
        title="The job MUST NOT be able to move a process to the parent group or to a sibling.",
        kind="limit",
        profile="limits",
        needs=("cgroup",),
        inside="joins the parent of its groups and their siblings, as far as it can find them",
        outside="every process is still in the container's group",
        control="from outside the same move succeeds",
        references=("cgroups(7)", "CVE-2021-4197"),
    ),
    Guarantee(
        id="time.no-set",
        title="The job MUST NOT be able to set or steer the machine's clock.",
        kind="isolating",
        profile="hardened",
        proof_needs=("root",),
        # A bad pointer gives EFAULT to everybody: it is read before anybody is asked.
        inside="settimeofday, adjtimex and clock_adjtime with values out of range give EPERM",
        outside="CAP_SYS_TIME is missing from all sets; the clock stays steady",
        control="under the null driver the same calls give EINVAL: the door is open",
        references=("clock_settime(2)", "adjtimex(2)"),
    ),
    Guarantee(
        id="time.ns",
        title="The offsets of the monotonic and the boot-time clock MUST be as asked.",
        kind="functional",
        profile="container",
        needs=("ns.time",),
        inside="clock_gettime of both",
        outside="the process's time namespace link and timens_offsets",
        control="under the null driver there is no offset",
        references=("time_namespaces(7)",),
    ),
    Guarantee(
        id="dev.minimal",
        title="/dev MUST hold exactly the documented nodes, links and directories.",
        kind="isolating",
        profile="container",
        inside="lists /dev with type and numbers",
        outside="the same listing by the process's root",
        control="under the null driver the machine's nodes are listed",
        references=("null(4)", "random(4)"),
    ),
    Guarantee(
        id="dev.usable",
        title="/dev/null, zero, full, random, urandom and tty MUST do what their manual pages say.",
        kind="functional",
        profile="container",
        inside="reads and writes each",
        control="the same acts on a plain file of that name give other results",
        references=("null(4)", "full(4)", "random(4)", "tty(4)"),
    ),
    Guarantee(
        id="dev.no-mknod",
        title="The job MUST NOT be able to make a device node and open it.",
        kind="isolating",
        profile="hardened",
        proof_needs=("root",),
        inside=(
            "mknod of a loop device and of character devices, then open; without CAP_MKNOD and "
            "with it"
        ),
        outside="no process of the job holds a device open",
        control="under the null driver the made node opens",
        references=("mknod(2)", "capabilities(7)"),
    ),
    Guarantee(
        id="dev.no-disk",
        title=(
            "The job MUST NOT be able to open disks, memory, kernel log or fuse device of the "
            "machine."
        ),
        kind="isolating",
        profile="hardened",
        proof_needs=("root", "loop"),
        inside="opens the canary's loop device, mem, kmsg, fuse, kvm and tun by name and by number",
        outside="no process of the job holds one open",
        control="under the null driver the canary's loop device opens",
        references=("loop(4)", "mem(4)"),
    ),
)
