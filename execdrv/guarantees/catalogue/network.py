"""Interfaces, sockets and packets.

Data of the catalogue (see execdrv.guarantees.catalogue): sentences and observations, no code.
Loaded by the conformance kit, the documentation, `drivers` and `doctor`; never by a `run`. The
mutants that kill each guarantee stand in `mutant`.
"""

from execdrv.guarantees.types import Guarantee

GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        id="net.ns",
        title="A container MUST have a network namespace of its own.",
        kind="isolating",
        profile="container",
        needs=("ns.net",),
        inside="id of its network namespace",
        outside="the process's link differs from the machine's",
        control="under the null driver it is the machine's",
        references=("network_namespaces(7)",),
    ),
    Guarantee(
        id="net.none",
        title="With the network off, a container MUST have the loopback interface and no other.",
        kind="isolating",
        profile="container",
        needs=("ns.net",),
        proof_needs=("veth",),
        inside="lists its interfaces by netlink and in /proc/net/dev",
        outside="lists those of the process in its /proc/PID/net/dev",
        control="under the null driver the machine's interfaces are listed",
        references=("network_namespaces(7)",),
    ),
    Guarantee(
        id="net.lo-up",
        title="Loopback MUST work inside: a job can connect to itself by 127.0.0.1 and ::1.",
        kind="functional",
        profile="container",
        needs=("ns.net",),
        inside="connects to its own listener",
        control="with the interface down the connection fails",
        references=("netdevice(7)",),
        not_applicable_allowed=True,
    ),
    Guarantee(
        id="net.no-host-lo",
        title="The job MUST NOT reach a service on the machine's loopback address.",
        kind="isolating",
        profile="container",
        needs=("ns.net",),
        inside="connects to the canary's port by 127.0.0.1 and ::1",
        outside="the canary accepts nothing",
        control="under the null driver the canary accepts",
        references=("network_namespaces(7)",),
    ),
    Guarantee(
        id="net.no-abstract",
        title="The job MUST NOT reach or list an abstract unix socket of the machine.",
        kind="isolating",
        profile="container",
        needs=("ns.net",),
        inside="connects to the canary's name, reads /proc/net/unix",
        outside="the canary accepts nothing",
        control="under the null driver the canary accepts",
        references=("unix(7)", "CVE-2020-15257"),
    ),
    Guarantee(
        id="net.no-egress",
        title="With the network off, the job MUST NOT get a packet out of the container.",
        kind="isolating",
        profile="container",
        needs=("ns.net",),
        proof_needs=("veth",),
        inside="sends UDP, TCP and ICMP to an address of the machine",
        outside="the capture on that address is empty",
        control="under the null driver the packets are captured",
        references=("network_namespaces(7)",),
    ),
    Guarantee(
        id="net.siblings",
        title="Two containers with the network off MUST NOT reach each other.",
        kind="isolating",
        profile="container",
        needs=("ns.net",),
        inside="connects to the sibling's port and abstract socket",
        outside="the sibling accepts nothing, and the links of both namespaces differ",
        control="under the null driver the sibling accepts",
        references=("network_namespaces(7)",),
    ),
    Guarantee(
        id="net.no-raw",
        title="Raw and packet sockets MUST be refused to the job unless CAP_NET_RAW was asked for.",
        kind="isolating",
        profile="hardened",
        inside="socket() with SOCK_RAW and AF_PACKET gives EPERM",
        outside="CAP_NET_RAW is missing from CapEff, CapPrm and CapBnd",
        control="under the null driver both sockets open",
        references=("raw(7)", "packet(7)", "CVE-2020-14386"),
    ),
    Guarantee(
        id="net.no-admin",
        title=(
            "The job MUST NOT be able to change an interface, address, route or filter of the "
            "machine."
        ),
        kind="isolating",
        profile="hardened",
        proof_needs=("veth",),
        inside=(
            "tries to change size, flags, address, route and queue of a link of the machine by "
            "netlink and ioctl, without CAP_NET_ADMIN and with it"
        ),
        outside="the machine's dumps are equal before and after",
        control="under the null driver the change to a scratch interface succeeds",
        references=("rtnetlink(7)", "capabilities(7)"),
    ),
)
