"""Capabilities, seccomp and security modules.

Data of the catalogue (see execdrv.guarantees.catalogue): sentences and observations, no code.
Loaded by the conformance kit, the documentation, `drivers` and `doctor`; never by a `run`. The
mutants that kill each guarantee stand in `mutant`.
"""

from execdrv.guarantees.types import Guarantee

GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        id="cap.bounding",
        title="The capability bounding set MUST be exactly as asked, for every process of the job.",
        kind="isolating",
        profile="hardened",
        inside="PR_CAPBSET_READ of every number",
        outside="CapBnd in the status of the process",
        control="under the null driver it is the caller's",
        references=("capabilities(7)",),
    ),
    Guarantee(
        id="cap.effective",
        title=(
            "The effective, permitted, inheritable and ambient capability sets MUST be exactly as "
            "asked."
        ),
        kind="isolating",
        profile="hardened",
        inside="capget, PR_CAP_AMBIENT",
        outside="CapEff, CapPrm, CapInh and CapAmb in the status of the process",
        control="under the null driver they are the caller's",
        references=("capabilities(7)", "CVE-2022-24769", "CVE-2022-29162", "CVE-2019-12618"),
    ),
    Guarantee(
        id="cap.nnp",
        title=(
            "no_new_privs MUST be set for every process of the job, unless the spec switches it "
            "off."
        ),
        kind="isolating",
        profile="hardened",
        inside="PR_GET_NO_NEW_PRIVS",
        outside="NoNewPrivs is 1 in the status of the process",
        control="under the null driver it is 0",
        references=("PR_SET_NO_NEW_PRIVS(2const)",),
    ),
    Guarantee(
        id="cap.suid-inert",
        title="Setuid programs and programs with file capabilities MUST gain nothing.",
        kind="isolating",
        profile="hardened",
        proof_needs=("root",),
        inside="runs one of each as another user",
        outside="Uid, Gid, CapPrm and CapEff in the status of both programs' processes",
        control="under the null driver both gain",
        references=("execve(2)", "capabilities(7)"),
    ),
    Guarantee(
        id="cap.securebits",
        title="Securebits and keep-caps MUST NOT bring a dropped capability back.",
        kind="isolating",
        profile="hardened",
        inside="sets both, changes its uid, reads its sets",
        control="a process with CAP_SETPCAP and a full set keeps its capabilities",
        references=("capabilities(7)",),
    ),
    Guarantee(
        id="sec.on",
        title="A seccomp filter MUST be active on every process of the job.",
        kind="isolating",
        profile="hardened",
        needs=("seccomp",),
        outside="Seccomp is 2 and Seccomp_filters above the caller's in the status of each task",
        control="under the null driver Seccomp is 0",
        references=("seccomp(2)", "proc_pid_status(5)"),
    ),
    Guarantee(
        id="sec.deny",
        title=(
            "Each system call that the filter is documented to deny MUST be denied by the filter, "
            "not only by a missing capability."
        ),
        kind="isolating",
        profile="hardened",
        needs=("seccomp",),
        inside="makes each call with arguments that do no harm",
        outside="Seccomp is 2 and Seccomp_filters above the caller's in the status of each task",
        control="without the filter the same call gives another answer",
        references=("seccomp(2)", "CVE-2022-0185"),
    ),
    Guarantee(
        id="sec.allow",
        title="Each system call that the filter is documented to allow MUST work.",
        kind="functional",
        profile="hardened",
        needs=("seccomp",),
        inside="makes each call and checks its effect",
        control="a denied call is refused in the same process",
        references=("seccomp(2)",),
    ),
    Guarantee(
        id="sec.arch",
        title="System calls by another entry (32-bit, x32) MUST NOT get round the filter.",
        kind="isolating",
        profile="hardened",
        needs=("seccomp",),
        proof_needs=("compat32",),
        inside=(
            "makes denied calls through the 32-bit entry and with x32 numbers, with high argument "
            "bits set too"
        ),
        control="without the filter the 32-bit call gives its own answer",
        references=("seccomp(2)", "CVE-2019-10063"),
    ),
    Guarantee(
        id="sec.threads",
        title="The filter MUST hold in every thread and after every exec of the job.",
        kind="isolating",
        profile="hardened",
        needs=("seccomp",),
        inside="makes a denied call in a new thread and after an exec",
        outside="Seccomp in the status of each task",
        control="without the filter each call gives another answer",
        references=("seccomp(2)",),
    ),
    Guarantee(
        id="lsm.profile",
        title="The security module's label of the job MUST be the one asked for.",
        kind="isolating",
        profile="hardened",
        needs=("lsm",),
        inside="reads its own attr/current",
        outside="attr/current of the process",
        control="under the null driver it is the caller's label",
        references=("proc_pid_attr(5)", "CVE-2019-16884"),
    ),
)
