"""The job's network: interfaces, loopback, what of the machine it reaches, sends to or changes."""

import errno
import fcntl
import os
import socket
import struct

#: Seconds for one connection: what is not there must not cost much.
PATIENCE_S = 0.5
#: ioctl numbers of netdevice(7), and rtnetlink(7)'s.
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFMTU = 0x8914, 0x8916, 0x8922
RTM_NEWADDR, RTM_NEWROUTE, RTM_NEWQDISC = 20, 24, 36
REQUEST, ACK, EXCL, CREATE = 1, 4, 0x200, 0x400

#: Listeners of `listen`, until the end of the process.
LISTENING = {}


def _name(error):
    return errno.errorcode.get(error.errno, str(error))


def describe():
    """Its network namespace, and its interfaces by netlink and by /proc."""
    try:
        link = os.readlink("/proc/self/ns/net")
    except OSError:
        link = ""
    names = [name for _, name in socket.if_nameindex()]
    try:
        with open("/proc/net/dev") as file:
            listed = [line.partition(":")[0].strip() for line in file.readlines()[2:]]
    except OSError:
        listed = None
    return {"link": link, "names": sorted(names), "listed": listed}


def connect_self(with_v6):
    """What comes back from a listener of its own, by 127.0.0.1 and ::1."""
    answers = {}
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        if family == socket.AF_INET6 and not with_v6:
            continue
        try:
            with socket.socket(family) as listener:
                listener.bind((address, 0))
                listener.listen(1)
                with socket.create_connection(listener.getsockname()[:2], PATIENCE_S) as client:
                    client.sendall(b"ping")
                    listener.settimeout(PATIENCE_S)
                    answers[address] = listener.accept()[0].recv(16).decode()
        except OSError as error:
            answers[address] = _name(error)
    return {"answers": answers}


def reach(addresses):
    """Which of [host, port] take a connection."""
    reached, errors = [], {}
    for host, port in addresses:
        try:
            socket.create_connection((host, port), PATIENCE_S).close()
            reached.append(host)
        except OSError as error:
            errors[host] = _name(error)
    return {"reached": reached, "errors": errors}


def reach_abstract(name):
    """Whether an abstract socket takes a connection, and whether it is listed."""
    error = _connect_abstract(name)
    try:
        with open("/proc/net/unix", errors="replace") as file:
            listed = name in file.read()
    except OSError:
        listed = False
    return {"reached": not error, "error": error, "listed": listed}


def _connect_abstract(name):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE_S)
        try:
            client.connect("\0" + name)
        except OSError as error:
            return _name(error)
    return ""


def send_out(address, tcp_port, udp_port):
    """Which of a datagram, a connection and an echo request leave for an address."""
    sent, errors = [], {}
    for what, act in (
        ("udp", lambda: _send_datagram(address, udp_port)),
        ("tcp", lambda: socket.create_connection((address, tcp_port), PATIENCE_S).close()),
        ("icmp", lambda: _send_echo(address)),
    ):
        try:
            act()
            sent.append(what)
        except OSError as error:
            errors[what] = _name(error)
    return {"sent": sent, "errors": errors}


def _send_datagram(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.sendto(b"xdc", (address, port))


def _send_echo(address):
    header = struct.pack("!BBHHH", 8, 0, 0, 1, 1)
    total = sum(struct.unpack("!4H", header))
    total = (total & 0xFFFF) + (total >> 16)
    packet = struct.pack("!BBHHH", 8, 0, ~total & 0xFFFF, 1, 1)
    try:
        echo = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    except PermissionError:
        echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    with echo:
        echo.sendto(packet, (address, 0))


def listen(name):
    """Listen on loopback and on an abstract name, until the end; returns the port."""
    for family, address in ((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, "\0" + name)):
        listener = socket.socket(family)
        listener.bind(address)
        listener.listen(8)
        listener.setblocking(False)
        LISTENING[family] = listener
    return {"port": LISTENING[socket.AF_INET].getsockname()[1]}


def count_accepted():
    """How many connections have come; the listeners are closed."""
    counts = {}
    for family, listener in LISTENING.items():
        count = 0
        try:
            while True:
                listener.accept()[0].close()
                count += 1
        except BlockingIOError:
            pass
        counts["unix" if family == socket.AF_UNIX else "inet"] = count
        listener.close()
    LISTENING.clear()
    return counts


def reach_sibling(port, name):
    """Whether what another container listens on takes a connection."""
    return {
        "inet": not reach([["127.0.0.1", port]])["errors"],
        "unix": not _connect_abstract(name),
    }


def open_raw():
    """Which kinds of raw and packet sockets open."""
    kinds = {
        "raw icmp": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "raw": (socket.AF_INET, socket.SOCK_RAW, 255),
        "raw ipv6": (socket.AF_INET6, socket.SOCK_RAW, 58),
        "packet": (socket.AF_PACKET, socket.SOCK_RAW, 0),
        "packet dgram": (socket.AF_PACKET, socket.SOCK_DGRAM, 0),
    }
    opened, errors = [], {}
    for name, kind in kinds.items():
        try:
            socket.socket(*kind).close()
            opened.append(name)
        except OSError as error:
            errors[name] = _name(error)
    return {"opened": opened, "errors": errors}


# --- changes of a link of the machine ----------------------------------------------------------


def change_link(name, index, address):
    """Which changes of a link go through: by its name, and by its number if it is no own one's.

    Args:
        address: IPv4, for the link and for a route over it.
    """
    changed, errors = [], {}
    own = dict(socket.if_nameindex())
    number = next((one for one, called in own.items() if called == name), None)
    if number is None and index not in own:
        number = index
    packed = socket.inet_aton(address)
    acts = {
        "mtu": lambda: _set_link(SIOCSIFMTU, name, struct.pack("i", 1400)),
        "flags": lambda: _set_link(SIOCSIFFLAGS, name, struct.pack("H", 1)),
        "address by ioctl": lambda: _set_link(
            SIOCSIFADDR, name, struct.pack("HH4s", socket.AF_INET, 0, packed)
        ),
    }
    if number is not None:
        link = struct.pack("BBBBi", socket.AF_INET, 24, 0, 0, number)
        acts["address"] = lambda: _ask(
            RTM_NEWADDR, link + _attribute(2, packed) + _attribute(1, packed)
        )
        route = struct.pack("BBBBBBBBI", socket.AF_INET, 32, 0, 0, 254, 4, 253, 1, 0)
        acts["route"] = lambda: _ask(
            RTM_NEWROUTE,
            route + _attribute(1, packed[:3] + b"\xfe") + _attribute(4, struct.pack("i", number)),
        )
        # Kept by the link, as filters are: pfifo_fast in place of what it has.
        queue = struct.pack("BxxxiIII", 0, number, 0, 0xFFFFFFFF, 0)
        acts["queue"] = lambda: _ask(RTM_NEWQDISC, queue + _attribute(1, b"pfifo\0"))
    for what, act in acts.items():
        try:
            act()
            changed.append(what)
        except OSError as error:
            errors[what] = _name(error)
    return {"changed": changed, "errors": errors, "number": number}


def _set_link(request, name, value):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        fcntl.ioctl(channel, request, struct.pack("16s24s", name.encode(), value))


def _attribute(kind, content):
    return struct.pack("HH", 4 + len(content), kind) + content + bytes(-len(content) % 4)


def _ask(kind, body):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as channel:
        flags = REQUEST | ACK | CREATE | EXCL
        channel.send(struct.pack("IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        channel.settimeout(PATIENCE_S)
        number = -struct.unpack_from("i", channel.recv(65536), 16)[0]
    if number:
        raise OSError(number, os.strerror(number))
