"""Users, groups and user namespaces.

Data of the catalogue (see execdrv.guarantees.catalogue): sentences and observations, no code.
Loaded by the conformance kit, the documentation, `drivers` and `doctor`; never by a `run`. The
mutants that kill each guarantee stand in `mutant`.
"""

from execdrv.guarantees.types import Guarantee

GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        id="user.uid",
        title="Real, effective, saved and file-system uid and gid MUST be exactly those asked for.",
        kind="functional",
        profile="base",
        inside="getresuid, getresgid, setfsuid and setfsgid of -1",
        outside="all four of each in the status of the process",
        references=("credentials(7)", "CVE-2024-40635"),
    ),
    Guarantee(
        id="user.groups",
        title=(
            "The supplementary groups MUST be exactly those asked for and the primary one, and "
            "none of the caller's."
        ),
        kind="isolating",
        profile="base",
        inside="getgroups, and opening a file of the caller's extra group",
        outside="Groups in the status of the process",
        control="under the null driver the caller's extra group is there",
        references=("credentials(7)", "CVE-2022-36109"),
    ),
    Guarantee(
        id="user.no-return",
        title="A job that is not uid 0 MUST NOT be able to become uid 0 again.",
        kind="isolating",
        profile="base",
        proof_needs=("root",),
        inside="sweeps setuid, setreuid, setresuid and setfsuid",
        outside="all four uids in the status of each process of the job",
        control="a process that kept saved uid 0 returns",
        references=("credentials(7)", "setresuid(2)"),
    ),
    Guarantee(
        id="user.map",
        title="Uid 0 inside MUST be an unprivileged uid on the machine.",
        kind="isolating",
        profile="hardened",
        needs=("ns.user",),
        inside="reads uid_map, and which number the caller's uid 0 has (SO_PEERCRED)",
        outside="Uid of the process, seen from the machine, is not 0; its namespace link differs",
        control="under the null driver uid 0 is the machine's",
        references=("user_namespaces(7)",),
    ),
    Guarantee(
        id="user.no-host-file",
        title=(
            "A job that is not root on the machine MUST NOT be able to read a root-owned file of "
            "mode 0600, in its own tree either."
        ),
        kind="isolating",
        profile="hardened",
        proof_needs=("root",),
        inside="opens the canary in its tree",
        outside="Uid and CapEff in the status of the process",
        control="under the null driver as uid 0 it opens",
        references=("credentials(7)", "capabilities(7)"),
    ),
    Guarantee(
        id="user.setgroups",
        title="A job in a user namespace MUST NOT be able to drop a group that denies it access.",
        kind="isolating",
        profile="hardened",
        needs=("ns.user",),
        inside="tries setgroups, then opens a file that denies the group",
        outside="Groups in the status of the process; setgroups is deny",
        control="with setgroups allowed the file opens",
        references=("user_namespaces(7)", "CVE-2014-8989", "CVE-2018-7169"),
    ),
    Guarantee(
        id="user.no-userns",
        title="New user namespaces MUST be refused to the job when that was asked for.",
        kind="isolating",
        profile="hardened",
        proof_needs=("ns.user",),
        inside="tries unshare and clone3 with CLONE_NEWUSER",
        outside="the processes' user namespace link stays the container's",
        control="without the refusal the namespace is made",
        references=("user_namespaces(7)", "CVE-2022-0185", "CVE-2021-3493"),
    ),
)
