"""A network for jobs to reach: loopback up, a veth pair with an address, listeners, a capture.

Listeners are asked by `look`; nothing runs in the background. Links are made by rtnetlink(7), a
few messages written by hand: the kit needs no library for them.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Any

from execdrv_conformance.canary import Place

#: Of TEST-NET-2 (RFC 5737): no real machine has it.
ADDRESS = "198.51.100.1"
PEER_ADDRESS = "198.51.100.2"

_RTM_NEWLINK, _RTM_DELLINK, _RTM_NEWADDR = 16, 17, 20
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_CREATE, _NLM_F_EXCL = 1, 4, 0x400, 0x200
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 3, 18, 1, 2, 1
_IFA_LOCAL, _IFA_ADDRESS = 2, 1
_IFF_UP = 1


def _attribute(kind: int, content: bytes) -> bytes:
    length = 4 + len(content)
    return struct.pack("HH", length, kind) + content + b"\0" * (-length % 4)


def _ask(kind: int, flags: int, body: bytes) -> None:
    """Send one rtnetlink request and wait for its answer."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as channel:
        length = 16 + len(body)
        flags |= _NLM_F_REQUEST | _NLM_F_ACK
        channel.send(struct.pack("IHHII", length, kind, flags, 1, 0) + body)
        answer = channel.recv(65536)
    number = -struct.unpack_from("i", answer, 16)[0]
    if number:
        raise OSError(number, os.strerror(number))


def make_veth(name: str, peer: str) -> None:
    """Make a pair of links."""
    link = struct.pack("BxHiII", 0, 0, 0, 0, 0)
    peer_data = _attribute(_VETH_INFO_PEER, link + _attribute(_IFLA_IFNAME, peer.encode() + b"\0"))
    info = _attribute(_IFLA_INFO_KIND, b"veth") + _attribute(_IFLA_INFO_DATA, peer_data)
    body = link + _attribute(_IFLA_IFNAME, name.encode() + b"\0")
    _ask(_RTM_NEWLINK, _NLM_F_CREATE | _NLM_F_EXCL, body + _attribute(_IFLA_LINKINFO, info))


def delete_link(name: str) -> None:
    """Remove a link, and its peer with it.

    Raises:
        OSError: there is none of that name, or it can't be removed.
    """
    index = socket.if_nametoindex(name)
    _ask(_RTM_DELLINK, 0, struct.pack("BxHiII", 0, 0, index, 0, 0))


def set_up(name: str) -> None:
    """Switch a link on."""
    index = socket.if_nametoindex(name)
    _ask(_RTM_NEWLINK, 0, struct.pack("BxHiII", 0, 0, index, _IFF_UP, _IFF_UP))


def add_address(name: str, address: str, *, bits: int) -> None:
    """Give a link an IPv4 address."""
    index, packed = socket.if_nametoindex(name), socket.inet_aton(address)
    body = struct.pack("BBBBi", socket.AF_INET, bits, 0, 0, index)
    body += _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)
    _ask(_RTM_NEWADDR, _NLM_F_CREATE | _NLM_F_EXCL, body)


class NetworkCanary:
    """Links and listeners of the stand-in host."""

    def __init__(self, place: Place) -> None:
        self.word = os.urandom(6).hex()
        set_up("lo")
        self.link = "xdcv0"
        self.has_veth = True
        try:
            make_veth(self.link, "xdcv1")
            set_up(self.link)
            set_up("xdcv1")
            add_address(self.link, ADDRESS, bits=24)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                raise
            self.has_veth = False
        self.loopback = self._listen(socket.AF_INET, ("127.0.0.1", 0))
        self.loopback6 = self._listen_v6()
        self.port = self.loopback.getsockname()[1]
        address = ADDRESS if self.has_veth else "127.0.0.1"
        self.outer = self._listen(socket.AF_INET, (address, 0))
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind((address, 0))
        self.abstract = self._listen(socket.AF_UNIX, f"\0{place.run}-{self.word}")
        self.capture: socket.socket | None = None

    @staticmethod
    def _listen(family: int, address: Any) -> socket.socket:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.bind(address)
        listener.listen(64)
        return listener

    @classmethod
    def _listen_v6(cls) -> socket.socket | None:
        try:
            return cls._listen(socket.AF_INET6, ("::1", 0))
        except OSError:
            # A machine without IPv6.
            return None

    def facts(self) -> dict[str, Any]:
        """Addresses, ports and names."""
        name = self.abstract.getsockname()
        return {
            "port": self.port,
            "port6": self.loopback6.getsockname()[1] if self.loopback6 else 0,
            "address": ADDRESS,
            "outer_port": self.outer.getsockname()[1],
            "datagram_port": self.datagrams.getsockname()[1],
            "abstract": (name if isinstance(name, bytes) else name.encode())[1:].decode(),
            "link": self.link,
            "veth": self.has_veth,
        }

    def look(self) -> dict[str, int]:
        """How many connections and datagrams have come since the last look."""
        seen = {}
        for name, listener in (
            ("loopback", self.loopback),
            ("loopback6", self.loopback6),
            ("outer", self.outer),
            ("abstract", self.abstract),
        ):
            seen[name] = _accept_all(listener) if listener is not None else 0
        seen["datagrams"] = _drain(self.datagrams)
        return seen


def _accept_all(listener: socket.socket) -> int:
    count = 0
    listener.setblocking(False)
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def _drain(datagrams: socket.socket) -> int:
    count = 0
    datagrams.setblocking(False)
    while True:
        try:
            datagrams.recv(65536)
        except BlockingIOError:
            return count
        count += 1
