"""What is left after the end, after a failure and after a crash.

Data of the catalogue (see execdrv.guarantees.catalogue): sentences and observations, no code.
Loaded by the conformance kit, the documentation, `drivers` and `doctor`; never by a `run`. The
mutants that kill each guarantee stand in `mutant`.
"""

from execdrv.guarantees.types import Guarantee

GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        id="leak.proc",
        title="After each way of ending, every process of the container MUST be gone.",
        kind="hygiene",
        profile="base",
        outside=(
            "process table before and after five ways of ending; scan for the nonce after a destroy"
        ),
        control="while the container runs, the same look finds its processes",
    ),
    Guarantee(
        id="leak.mount",
        title=(
            "After the end, every mount of the container MUST be gone, also when something inside "
            "was busy."
        ),
        kind="hygiene",
        profile="fs",
        outside="mountinfo before and after is equal",
        control="the same look finds a mount that the kit makes",
    ),
    Guarantee(
        id="leak.cgroup",
        title="After the end, every group of the container MUST be gone from every hierarchy.",
        kind="hygiene",
        profile="limits",
        needs=("cgroup",),
        outside="trees of all hierarchies before and after are equal",
        control="the same look finds the container's groups while it runs, and one of the kit's",
        references=("cgroups(7)",),
    ),
    Guarantee(
        id="leak.net",
        title=(
            "After the end, every interface, namespace name and filter rule of the container MUST "
            "be gone."
        ),
        kind="hygiene",
        profile="container",
        needs=("ns.net",),
        outside=("links, names of namespaces, routes and filter rules before and after are equal"),
        control="the same look finds a link and a name that the kit makes",
        not_applicable_allowed=True,
    ),
    Guarantee(
        id="leak.fd",
        title=(
            "Descriptors and threads of a supervisor and of the calling process MUST stay "
            "constant over 200 containers."
        ),
        kind="hygiene",
        profile="base",
        outside="counts of caller and fork server are the same before and after many lives",
        control="a descriptor held open on purpose shows as a step",
    ),
    Guarantee(
        id="leak.files",
        title=(
            "After the end, every scratch file, socket, lock and state file of the container MUST "
            "be gone."
        ),
        kind="hygiene",
        profile="base",
        outside=(
            "names in the state directory, in /run and in the root, and IPC objects, before and "
            "after are equal"
        ),
        control="while the container runs, the same look finds its record and socket",
    ),
    Guarantee(
        id="leak.failed",
        title=(
            "After a create or start that failed at any stage, everything that was made MUST be "
            "gone."
        ),
        kind="hygiene",
        profile="base",
        outside="all of the leak observations, with a failure injected at each stage",
        control="the same looks find things that the kit makes",
    ),
    Guarantee(
        id="crash.recover",
        title=(
            "After caller and fork server were killed, a new process MUST be able to list a "
            "detached container, wait for it, control it and destroy it."
        ),
        kind="functional",
        profile="container",
        inside="keeps running, the same heartbeat",
        outside="same pid, same state",
        control="a container that is not detached is gone",
    ),
    Guarantee(
        id="crash.mid-create",
        title=(
            "When everything is killed in the middle of create, what was made MUST be found and "
            "removed by the next clean-up."
        ),
        kind="hygiene",
        profile="container",
        outside="all of the leak observations after a kill at each stage",
        control="before the clean-up they find something",
    ),
    Guarantee(
        id="crash.stale",
        title="A stale record whose pid now belongs to another process MUST NOT be taken for ours.",
        kind="functional",
        profile="base",
        outside="decoy processes with its pids are unharmed, and the record is dropped",
        control="a live record is honoured: its container runs on",
    ),
)
