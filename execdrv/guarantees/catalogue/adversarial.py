"""Known escapes, tried by a hostile job or a hostile root file system.

Data of the catalogue (see execdrv.guarantees.catalogue): sentences and observations, no code.
Loaded by the conformance kit, the documentation, `drivers` and `doctor`; never by a `run`. The
mutants that kill each guarantee stand in `mutant`.
"""

from execdrv.guarantees.types import Guarantee

GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        id="esc.fd-cwd",
        title=(
            "The job MUST NOT reach the machine's files through an inherited directory "
            "descriptor, /proc/self/fd, or a working directory that names one."
        ),
        kind="isolating",
        profile="hostile",
        inside="opens `..` of every descriptor and of every working directory asked for",
        outside="no mark beside the canary; the job holds no descriptor of its directory",
        control="with a directory descriptor passed on purpose the canary opens",
        references=("CVE-2024-21626", "CVE-2016-9962"),
    ),
    Guarantee(
        id="esc.self-exe",
        title=(
            "The job MUST NOT be able to overwrite a program of the machine through /proc/PID/exe."
        ),
        kind="isolating",
        profile="hostile",
        inside="opens every exe link for writing, without writing; runs /proc/self/exe by a script",
        outside="the job has no program of the machine open; hash of interpreter and drivers",
        control=(
            "a program that runs from a writable file of the machine can be opened once it has "
            "ended"
        ),
        references=("CVE-2019-5736",),
    ),
    Guarantee(
        id="esc.release-agent",
        title="The job MUST NOT be able to mount a cgroup hierarchy and set its release_agent.",
        kind="isolating",
        profile="hostile",
        proof_needs=("root",),
        inside="mounts a v1 hierarchy, in new namespaces too; opens release_agent for writing",
        outside="the job has no release_agent open for writing; the agents are unchanged",
        control="under the null driver as root the file opens",
        references=("CVE-2022-0492", "cgroups(7)"),
    ),
    Guarantee(
        id="esc.core-pattern",
        title=(
            "core_pattern, modprobe, uevent_helper, binfmt_misc and their like MUST NOT be "
            "writable for the job."
        ),
        kind="isolating",
        profile="hostile",
        proof_needs=("root",),
        inside="opens each for writing, without writing",
        outside="the job has none of them open for writing; the values are unchanged",
        control="under the null driver as root they open",
        references=("core(5)", "proc_sys_kernel(5)"),
    ),
    Guarantee(
        id="esc.handle",
        title="The job MUST NOT be able to open a file of the machine by open_by_handle_at.",
        kind="isolating",
        profile="hostile",
        proof_needs=("root", "file-handles"),
        inside="opens the handle of a file of its own, and the canary's, which the kit gives it",
        outside="the job does not have the canary open",
        control="with CAP_DAC_READ_SEARCH the handles open",
        references=("open_by_handle_at(2)", "capabilities(7)"),
    ),
    Guarantee(
        id="esc.setns",
        title=(
            "The job MUST NOT enter a namespace of the machine by any descriptor or path that it "
            "can reach."
        ),
        kind="isolating",
        profile="hostile",
        inside="tries setns on every namespace link, file, pidfd and descriptor",
        outside="no process of the job is in a namespace of the machine's neighbour",
        control="under the null driver as root setns succeeds",
        references=("setns(2)", "namespaces(7)"),
    ),
    Guarantee(
        id="esc.symlink-mount",
        title=(
            "A symbolic link or a swapped directory at a mount target MUST NOT lead a mount, or "
            "the making of its target, out of the root."
        ),
        kind="isolating",
        profile="hostile",
        needs=("ns.mnt",),
        inside="the bind stands where it was asked, or the start is refused, also in a swap loop",
        outside="mountinfo of machine and job; the canary directory is unchanged",
        control="a mount by plain path goes astray",
        references=(
            "openat2(2)",
            "CVE-2021-30465",
            "CVE-2024-45310",
            "CVE-2015-1335",
            "CVE-2019-18837",
        ),
    ),
    Guarantee(
        id="esc.rootfs-links",
        title=(
            "A hostile root whose /dev, /proc, /dev/null, /dev/pts or /sys is a symbolic link "
            "MUST NOT make the driver write or mount outside it, or leave a mask off."
        ),
        kind="isolating",
        profile="hostile",
        outside="canary directory and knobs are unchanged; masks are all there, or a typed refusal",
        control="a setup by plain paths follows the link",
        references=(
            "CVE-2025-31133",
            "CVE-2025-52565",
            "CVE-2026-41579",
            "CVE-2023-27561",
            "CVE-2019-19921",
        ),
    ),
    Guarantee(
        id="esc.exec-ptrace",
        title=(
            "The job MUST NOT be able to get hold of a process that joins the container, before "
            "that one is confined."
        ),
        kind="isolating",
        profile="hostile",
        inside="traces and opens whatever appears, in a loop",
        outside="TracerPid and descriptors of the joining process",
        control="a process that is already confined can be traced by its own uid",
        references=("ptrace(2)", "CVE-2016-9962", "CVE-2016-8649"),
    ),
    Guarantee(
        id="esc.teardown",
        title=(
            "Deep trees, directories of mode 0, immutable files, odd names, busy mounts and "
            "nested groups MUST NOT block the clean-up, and the clean-up MUST NOT cross a mount "
            "or a link."
        ),
        kind="hygiene",
        profile="hostile",
        outside="the job builds them all: all leak observations; the canary tree is unchanged",
        control="while the container runs they are there",
    ),
    Guarantee(
        id="esc.flood",
        title=(
            "A flood of output, a storm of signals and huge arguments MUST NOT hurt the supervisor."
        ),
        kind="functional",
        profile="hostile",
        outside="resident memory and latency of the supervisor while the job floods",
        control="the flood did happen: bytes and signals are counted",
    ),
    Guarantee(
        id="esc.state",
        title="The job MUST NOT reach state, socket, lock or log of execdrv.",
        kind="isolating",
        profile="hostile",
        inside="searches, connects and writes",
        outside="these files are unchanged, and the job has none of them open",
        control="under the null driver as root they are reached",
        references=("CVE-2015-1331", "CVE-2021-41103"),
    ),
)
