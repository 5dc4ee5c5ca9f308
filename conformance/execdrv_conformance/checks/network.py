"""Checks of `net`: what the job's network has, and what of the machine's it reaches or changes."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
from pathlib import Path
from typing import Any

from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.canary.network import ADDRESS, add_address, delete_link, make_veth, set_up
from execdrv_conformance.check import Case, Check, Gathered
from execdrv_conformance.checks.cases import PLAIN, ROOT
from execdrv_conformance.checks.sibling import meet_siblings
from execdrv_conformance.finding import Arm, Finding, expect, holds, unfinished, violated
from execdrv_conformance.observe import process
from execdrv_conformance.observe.credential import read_credentials

#: Nothing is isolated: a driver that takes it must say so.
HOST_NETWORK = Case(name="host-network", fields={"net": "host"})
#: With the right to change networks, what keeps the machine's is not the lack of it.
NETWORK_ADMIN = Case(name="network-admin", fields={"user": "0", "cap_add": ("NET_ADMIN",)})

#: A link of the machine for jobs to change, and one address in its network (RFC 5737).
SCRATCH, SCRATCH_PEER = "xdcs0", "xdcs1"
SCRATCH_ADDRESS = "192.0.2.1"
CAP_NET_RAW = 13
_SIOCGIFFLAGS, _SIOCGIFMTU = 0x8913, 0x8921
_IFF_RUNNING = 0x40
_ETH_P_ALL, _ETH_P_IP = 3, 0x0800


# --- net.ns, net.none, net.lo-up ---------------------------------------------------------------


def _own_namespace(look: Look) -> dict[str, Any]:
    listed = Path(f"/proc/{look.pid}/net/dev").read_text().splitlines()[2:]
    return {
        "link": process.read_namespaces(look.pid)["net"],
        "caller": process.read_namespaces("self")["net"],
        "names": sorted(line.partition(":")[0].strip() for line in listed),
    }


def _judge_own_namespace(arm: Arm) -> Finding:
    link, names = arm.inside.text("link"), arm.inside.listed("names")
    network = arm.canaries.table("network")
    if link:
        own = link != arm.canaries.table("namespaces")["net"]
        return expect(own, f"namespace {link}, interfaces {names}")
    # Without a /proc the machine's link tells.
    if not network["veth"]:
        return unfinished("neither a link of the namespace nor an interface of the machine")
    return expect(network["link"] not in names, f"no /proc; interfaces {names}")


def _judge_namespace(arm: Arm) -> Finding:
    own = arm.outside.text("link") != arm.outside.text("caller")
    return expect(own, f"{'its own' if own else 'the caller`s'} {arm.outside.text('link')}")


def _judge_interfaces(arm: Arm) -> Finding:
    names, listed = arm.inside.listed("names"), arm.inside["listed"]
    found = {*names, *(listed or [])}
    return expect(found == {"lo"}, f"interfaces {sorted(found)}")


def _judge_listed(arm: Arm) -> Finding:
    names = arm.outside.listed("names")
    return expect(names == ["lo"], f"its /proc/net/dev lists {names}")


def _judge_loopback(arm: Arm) -> Finding:
    answers = arm.inside.table("answers")
    wrong = {address: said for address, said in answers.items() if said != "ping"}
    if not answers:
        return unfinished("nothing was tried")
    return expect(not wrong, f"no connection: {wrong}" if wrong else f"connected by {[*answers]}")


# --- net.no-host-lo, net.no-abstract, net.no-egress --------------------------------------------


def _count_accepted(look: Look) -> dict[str, Any]:
    return look.canaries.network.look()


def _loopback_addresses(look: Look) -> dict[str, Any]:
    facts = look.canaries.network.facts()
    addresses = [["127.0.0.1", facts["port"]]]
    if facts["port6"]:
        addresses.append(["::1", facts["port6"]])
    return {"addresses": addresses}


def _judge_reached(arm: Arm) -> Finding:
    reached, errors = arm.inside.listed("reached"), arm.inside.table("errors")
    if not reached and not errors:
        return unfinished("nothing was tried")
    return expect(not reached, f"connected to {reached}; refused {errors}")


def _judge_accepted(arm: Arm, *names: str) -> Finding:
    accepted = {name: arm.outside.number(name) for name in names}
    return expect(not any(accepted.values()), f"the canaries accepted {accepted}")


def _judge_abstract(arm: Arm) -> Finding:
    if arm.inside.flag("reached"):
        return violated("connected to the canary's name")
    if arm.inside.flag("listed"):
        return violated("the canary's name is listed in /proc/net/unix")
    return holds(f"not listed, and refused: {arm.inside.text('error')}")


class _Capture:
    """Counts packets for the canary's address, on every link of the machine."""

    def __init__(self, _: Bench) -> None:
        self.socket: socket.socket | None = None

    def begin(self) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        self.socket.setblocking(False)

    def end(self) -> int:
        """How many have come since `begin`."""
        count = 0
        if self.socket is None:
            return count
        with self.socket, contextlib.suppress(BlockingIOError):
            while True:
                packet, (_, kind, *_) = self.socket.recvfrom(128)
                if kind == _ETH_P_IP and packet[16:20] == socket.inet_aton(ADDRESS):
                    count += 1
        return count


def _begin_capture(look: Look) -> dict[str, Any]:
    look.canaries.network.look()
    look.bench.share(_Capture).begin()
    return {}


def _end_capture(look: Look) -> dict[str, Any]:
    return {"packets": look.bench.share(_Capture).end(), **look.canaries.network.look()}


def _outer_address(look: Look) -> dict[str, Any]:
    facts = look.canaries.network.facts()
    return {
        "address": facts["address"],
        "tcp_port": facts["outer_port"],
        "udp_port": facts["datagram_port"],
    }


def _judge_sent(arm: Arm) -> Finding:
    sent, errors = arm.inside.listed("sent"), arm.inside.table("errors")
    if not sent and not errors:
        return unfinished("nothing was tried")
    return expect(not sent, f"sent {sent}; refused {errors}")


# --- net.siblings ------------------------------------------------------------------------------


def _meet(bench: Bench) -> Gathered:
    met = bench.share(meet_siblings)
    return met["inside"], met["outside"]


def _judge_met(arm: Arm) -> Finding:
    reached = arm.inside.table("network")
    return expect(not any(reached.values()), f"connected to the other one: {reached}")


def _judge_sibling(arm: Arm) -> Finding:
    accepted, links = arm.outside.table("accepted"), arm.outside.table("net")
    apart = len(set(links.values())) == len(links)
    saw = f"the other one accepted {accepted}, namespaces {links}"
    return expect(apart and not any(accepted.values()), saw)


# --- net.no-raw, net.no-admin ------------------------------------------------------------------


def _read_rights(look: Look) -> dict[str, Any]:
    return read_credentials(look.pid)


def _judge_raw(arm: Arm) -> Finding:
    opened, errors = arm.inside.listed("opened"), arm.inside.table("errors")
    if not opened and not errors:
        return unfinished("nothing was tried")
    return expect(not opened, f"opened {opened}; refused {errors}")


def _judge_raw_right(arm: Arm) -> Finding:
    sets = {name: arm.outside.number(name) for name in ("CapEff", "CapPrm", "CapBnd")}
    having = [name for name, value in sets.items() if value >> CAP_NET_RAW & 1]
    return expect(not having, f"CAP_NET_RAW in {having}" if having else "CAP_NET_RAW nowhere")


def _dump_network() -> dict[str, Any]:
    """What of links, addresses and routes of this network namespace can change."""
    found: dict[str, Any] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        for _, name in socket.if_nameindex():
            request = struct.pack("16s24x", name.encode())
            flags = fcntl.ioctl(channel, _SIOCGIFFLAGS, request)
            mtu = fcntl.ioctl(channel, _SIOCGIFMTU, request)
            # That it runs, a link finds out by itself, a moment after it was switched on.
            number = struct.unpack_from("H", flags, 16)[0] & ~_IFF_RUNNING
            found[name] = [number, struct.unpack_from("i", mtu, 16)[0]]
    # IPv4 only: addresses of IPv6 come and change by themselves.
    for table in ("fib_trie", "route"):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/net/{table}").read_text()
            # Without counters of use.
            found[table] = sorted(" ".join(line.split()[:4]) for line in text.splitlines())
    return found


def _make_scratch(look: Look) -> dict[str, Any]:
    """A link for this check alone, and the machine's network with it."""
    with contextlib.suppress(OSError):
        delete_link(SCRATCH)
    make_veth(SCRATCH, SCRATCH_PEER)
    for name in (SCRATCH, SCRATCH_PEER):
        set_up(name)
    add_address(SCRATCH, "192.0.2.254", bits=32)
    return _dump_network()


def _name_scratch(look: Look) -> dict[str, Any]:
    # The arguments come before `before`.
    _make_scratch(look)
    return {
        "name": SCRATCH,
        "index": socket.if_nametoindex(SCRATCH),
        "address": SCRATCH_ADDRESS,
    }


def _compare_network(look: Look) -> dict[str, Any]:
    """The machine's network after the probe; the scratch link goes, and its addresses with it."""
    try:
        return {"now": _dump_network()}
    finally:
        with contextlib.suppress(OSError):
            delete_link(SCRATCH)


def _judge_changed(arm: Arm) -> Finding:
    changed, errors = arm.inside.listed("changed"), arm.inside.table("errors")
    if not changed and not errors:
        return unfinished("nothing was tried")
    return expect(not changed, f"changed {changed} of {SCRATCH}; refused {errors}")


def _judge_network(arm: Arm) -> Finding:
    before, now = arm.outside.table("before"), arm.outside.table("now")
    if SCRATCH not in before:
        return unfinished("there was no link to change")
    changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    return expect(not changed, f"changed: {changed}" if changed else "the dumps are equal")


CHECKS: tuple[Check, ...] = (
    Check(
        id="net.ns",
        cases=(PLAIN, HOST_NETWORK),
        probe="network:describe",
        observe=_own_namespace,
        inside=_judge_own_namespace,
        outside=_judge_namespace,
        request={"net": "none"},
        likely="no network namespace is made (CLONE_NEWNET)",
    ),
    Check(
        id="net.none",
        cases=(PLAIN,),
        probe="network:describe",
        observe=_own_namespace,
        inside=_judge_interfaces,
        outside=_judge_listed,
        request={"net": "none"},
        likely="the job sees the machine's interfaces, or one that nobody asked for",
    ),
    Check(
        id="net.lo-up",
        cases=(PLAIN,),
        probe="network:connect_self",
        arguments=lambda look: {"with_v6": bool(look.canaries.network.facts()["port6"])},
        inside=_judge_loopback,
        # A connection inside leaves nothing outside.
        outside=None,
        likely="loopback of the new namespace was not switched on",
    ),
    Check(
        id="net.no-host-lo",
        cases=(PLAIN,),
        probe="network:reach",
        arguments=_loopback_addresses,
        before=_count_accepted,
        observe=_count_accepted,
        inside=_judge_reached,
        outside=lambda arm: _judge_accepted(arm, "loopback", "loopback6"),
        likely="the job shares the machine's network namespace",
    ),
    Check(
        id="net.no-abstract",
        cases=(PLAIN,),
        probe="network:reach_abstract",
        arguments=lambda look: {"name": look.canaries.network.facts()["abstract"]},
        before=_count_accepted,
        observe=_count_accepted,
        inside=_judge_abstract,
        outside=lambda arm: _judge_accepted(arm, "abstract"),
        likely="the job shares the machine's network namespace",
    ),
    Check(
        id="net.no-egress",
        cases=(PLAIN,),
        probe="network:send_out",
        arguments=_outer_address,
        before=_begin_capture,
        observe=_end_capture,
        inside=_judge_sent,
        outside=lambda arm: _judge_accepted(arm, "packets", "outer", "datagrams"),
        likely="the job has a route out of its network namespace",
    ),
    Check(
        id="net.siblings",
        cases=(PLAIN,),
        scenario=_meet,
        inside=_judge_met,
        outside=_judge_sibling,
        likely="two containers share one network namespace",
    ),
    Check(
        id="net.no-raw",
        cases=(ROOT,),
        probe="network:open_raw",
        observe=_read_rights,
        inside=_judge_raw,
        outside=_judge_raw_right,
        likely="the job has CAP_NET_RAW",
    ),
    Check(
        id="net.no-admin",
        cases=(ROOT, NETWORK_ADMIN),
        probe="network:change_link",
        arguments=_name_scratch,
        before=lambda look: _dump_network(),
        observe=_compare_network,
        inside=_judge_changed,
        outside=_judge_network,
        likely="the job has CAP_NET_ADMIN over the machine's network namespace",
    ),
)
