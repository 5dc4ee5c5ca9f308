"""System V and POSIX IPC, keys, and the host name.

Data of the catalogue (see execdrv.guarantees.catalogue): sentences and observations, no code.
Loaded by the conformance kit, the documentation, `drivers` and `doctor`; never by a `run`. The
mutants that kill each guarantee stand in `mutant`.
"""

from execdrv.guarantees.types import Guarantee

GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        id="ipc.sysv",
        title=(
            "The job MUST NOT see or attach shared memory, semaphores or message queues (System "
            "V) of the machine."
        ),
        kind="isolating",
        profile="container",
        needs=("ns.ipc",),
        inside="lists them, and shmat, semop and msgrcv by the canary's key",
        outside="attach count and content of the canary segment are unchanged",
        control="under the null driver the segment is attached",
        references=("ipc_namespaces(7)", "sysvipc(7)", "CVE-2021-3283"),
    ),
    Guarantee(
        id="ipc.mqueue",
        title="POSIX message queues MUST be the container's own.",
        kind="isolating",
        profile="container",
        needs=("ns.ipc",),
        proof_needs=("mqueue",),
        inside="mq_open of the canary's name, and creates its own",
        outside="the process's ipc namespace link differs from the machine's",
        control="under the null driver the canary queue opens",
        references=("ipc_namespaces(7)", "mq_overview(7)"),
    ),
    Guarantee(
        id="ipc.siblings",
        title="Two containers MUST NOT share a System V or POSIX IPC object.",
        kind="isolating",
        profile="container",
        needs=("ns.ipc",),
        inside="opens the sibling's key and queue name",
        outside="the ipc namespace links of both differ, and from the machine's",
        control="under the null driver the sibling's segment is attached",
        references=("ipc_namespaces(7)",),
    ),
    Guarantee(
        id="ipc.keyring",
        title="The job MUST NOT be able to read a key in the caller's session or user keyring.",
        kind="isolating",
        profile="hardened",
        proof_needs=("keyring",),
        inside=(
            "searches and reads both keyrings, by a keyring of its own too, and lists /proc/keys"
        ),
        control="under the null driver the canary key is read",
        parts=(
            ("session", "a key in the caller's session keyring is out of reach"),
            ("user", "a key in the caller's user keyring is out of reach"),
        ),
        references=("keyrings(7)", "keyctl(2)"),
    ),
    Guarantee(
        id="uts.hostname",
        title=(
            "The host name inside MUST be the one asked for, and the machine's own MUST stay as "
            "it is."
        ),
        kind="functional",
        profile="container",
        needs=("ns.uts",),
        inside="uname and gethostname",
        outside="the name in the process's uts namespace; the machine's is unchanged",
        references=("uts_namespaces(7)",),
    ),
    Guarantee(
        id="uts.no-host-set",
        title="The job MUST NOT be able to change the machine's host name or domain name.",
        kind="isolating",
        profile="container",
        inside="tries sethostname and setdomainname",
        outside="both names of the machine are unchanged",
        control="under the null driver the name changes (in the stand-in host)",
        references=("sethostname(2)", "uts_namespaces(7)"),
    ),
)
