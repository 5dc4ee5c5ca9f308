"""What the kernel's network of this process has beside its links: routes, and rules of filters.

Rules of nftables are only asked for where that loads no module: a look changes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
from pathlib import Path

#: Not the routes of IPv6: those of a link come and go by themselves.
_TABLES = ("route", "ip_tables_names", "ip6_tables_names")
_NETLINK_NETFILTER = 12
_NFT_MSG_GETRULE = (10 << 8) | 7
_NLM_F_REQUEST, _NLM_F_DUMP = 1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3


def list_rules() -> list[str]:
    """One line each; a rule of nftables is named by its hash."""
    found = []
    for name in _TABLES:
        with contextlib.suppress(OSError):
            text = Path("/proc/self/net", name).read_text()
            found += [f"{name}: {line.strip()}" for line in text.splitlines()]
    with contextlib.suppress(OSError):
        found += [f"nft: {hashlib.sha256(rule).hexdigest()[:16]}" for rule in _dump_rules()]
    return found


def _dump_rules() -> list[bytes]:
    """The rules of all nftables tables (nfnetlink); empty where there can be none."""
    if os.path.exists("/proc/modules") and not os.path.exists("/sys/module/nf_tables"):
        return []
    rules: list[bytes] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as channel:
        channel.settimeout(1.0)
        head = struct.pack("IHHII", 20, _NFT_MSG_GETRULE, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0)
        channel.send(head + struct.pack("BBH", 0, 0, 0))
        while True:
            data = channel.recv(1 << 16)
            while data:
                length, kind = struct.unpack_from("IH", data)
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    return rules
                rules.append(data[16:length])
                data = data[(length + 3) & ~3 :]
