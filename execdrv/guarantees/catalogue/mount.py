"""The mount namespace, binds and tmpfs.

Data of the catalogue (see execdrv.guarantees.catalogue): sentences and observations, no code.
Loaded by the conformance kit, the documentation, `drivers` and `doctor`; never by a `run`. The
mutants that kill each guarantee stand in `mutant`.
"""

from execdrv.guarantees.types import Guarantee

GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        id="mnt.ns",
        title="A container MUST have a mount namespace of its own.",
        kind="isolating",
        profile="container",
        needs=("ns.mnt",),
        inside="id of its mount namespace, and number of the mount at /",
        outside="the process's link differs from the machine's",
        control="under the null driver it is the machine's",
        references=("mount_namespaces(7)",),
    ),
    Guarantee(
        id="mnt.prop-out",
        title=(
            "A mount made inside MUST NOT show on the machine, although the machine's mounts are "
            "shared."
        ),
        kind="isolating",
        profile="container",
        needs=("ns.mnt",),
        inside=(
            "mounts a tmpfs in its root and in a bind; neither is a mount of the machine's, nor "
            "the peer of one"
        ),
        outside="the machine's mountinfo has no such mount",
        control="in a namespace with shared propagation the mount shows",
        references=("mount_namespaces(7)",),
    ),
    Guarantee(
        id="mnt.prop-in",
        title="A mount that the machine makes later MUST NOT show inside, unless it was asked for.",
        kind="isolating",
        profile="container",
        needs=("ns.mnt",),
        inside="looks for what the machine has mounted after the start in sources of root and bind",
        outside="no such mount in the process's mountinfo",
        control="in a namespace with shared propagation it shows",
        references=("mount_namespaces(7)",),
    ),
    Guarantee(
        id="mnt.bind",
        title="A bind MUST show its source at its target and nowhere else in the container.",
        kind="functional",
        profile="fs",
        needs=("ns.mnt",),
        inside="finds the source's nonce at the target only",
        outside="one mount in the process's mountinfo has that source, at that target",
        control="without the bind the nonce is not found",
        references=("mount(2)",),
        provisional_why="it is newer than the first proposal of 2026.1",
    ),
    Guarantee(
        id="mnt.tmpfs",
        title=(
            "A tmpfs MUST be at its target: empty, the container's own, and of mode 1777 unless "
            "another was asked for."
        ),
        kind="functional",
        profile="fs",
        needs=("ns.mnt",),
        inside="file system type, entries, mode, and a file written there, which no sibling sees",
        outside="type and options in the process's mountinfo",
        control="without it the target shows the root's own directory",
        references=("tmpfs(5)",),
        provisional_why="it is newer than the first proposal of 2026.1",
    ),
    Guarantee(
        id="mnt.bind-ro",
        title=(
            "A read-only bind MUST refuse writes, through every other path inside to the same "
            "files too."
        ),
        kind="isolating",
        profile="fs",
        needs=("ns.mnt",),
        inside="writes through each path",
        outside="hash of the source is unchanged; ro in the process's mountinfo",
        control="through a writable bind the same writes succeed",
        references=("mount_setattr(2)",),
    ),
    Guarantee(
        id="mnt.bind-ro-rec",
        title="A read-only bind MUST be read-only in all mounts below its source too.",
        kind="isolating",
        profile="fs",
        needs=("ns.mnt",),
        inside="writes below each submount, one with blank and tab in its name",
        outside="hash of the submounts is unchanged; ro in the process's mountinfo",
        control="under a plain read-only remount the submount takes the write",
        references=("mount_setattr(2)",),
    ),
    Guarantee(
        id="mnt.bind-flags",
        title="nosuid, nodev and noexec MUST act on a bind that has them.",
        kind="isolating",
        profile="fs",
        needs=("ns.mnt",),
        proof_needs=("root",),
        inside="runs a setuid file, opens a device, executes a file on a noexec mount",
        outside="flags in the process's mountinfo",
        control="without the flags each act succeeds",
        references=("mount(2)",),
    ),
    Guarantee(
        id="mnt.no-remount",
        title="The job MUST NOT be able to take read-only, nosuid, nodev or noexec from a mount.",
        kind="isolating",
        profile="hardened",
        needs=("ns.mnt",),
        inside="tries remount and mount_setattr, in a new user namespace too",
        outside="flags in the process's mountinfo are unchanged",
        control="under the null driver the remount succeeds",
        references=("mount(2)", "mount_namespaces(7)", "CVE-2014-5206", "CVE-2014-5207"),
    ),
    Guarantee(
        id="mnt.no-unmask",
        title="The job MUST NOT be able to unmount, move or cover the masks over kernel files.",
        kind="isolating",
        profile="hardened",
        needs=("ns.mnt",),
        inside="tries umount, move and bind on each mask, and in a user namespace a new procfs",
        outside="masks in the process's mountinfo are unchanged",
        control="with CAP_SYS_ADMIN in the same mount namespace the umount succeeds",
        references=("umount(2)", "CVE-2025-31133"),
    ),
    Guarantee(
        id="mnt.no-old-root",
        title=(
            "After the root was changed, the old one MUST NOT be reachable in the container's "
            "mount namespace."
        ),
        kind="isolating",
        profile="container",
        needs=("ns.mnt",),
        inside="searches all mounts for the canary, and the namespace's root by entering it anew",
        outside="no mount of the machine's root in the whole namespace",
        control="under the null driver both are found",
        references=("pivot_root(2)",),
        not_applicable_allowed=True,
    ),
    Guarantee(
        id="mnt.order",
        title=(
            "Binds and tmpfs with nested targets MUST be mounted in the documented order, so that "
            "what was asked for at the inner target shows there."
        ),
        kind="functional",
        profile="fs",
        needs=("ns.mnt",),
        inside="device and inode at each target",
        control="with the order reversed the other file shows",
    ),
)
