"""Orders that are none: cut short, changed, claiming too much. Each ends in FAILED or an exit."""

from __future__ import annotations

import os
import random
import socket
import struct
from errno import E2BIG, EINVAL, EMSGSIZE, EPROTO
from typing import Any

import pytest

from execdrv.init import Exited, Failed, Order, encode_order


def sample_order() -> bytes:
    return encode_order(
        Order(
            uid=1000, gid=1000, groups=(1, 2, 3), keep_fds=(), umask=0o27,
            rlimits=((7, 64, 64), (4, 0, 0)), bounding=3,
            cwd=b"/tmp", argv=(b"/no/such/program", b"a", b""), env=(b"A=1", b"B=2"),
            seccomp_filter=struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000),
        )
    )  # fmt: skip


def broken_orders() -> list[bytes]:
    """300 of them: cut short, bits flipped, counts replaced; always the same ones."""
    chance = random.Random(7)
    whole = sample_order()
    length = len(whole) - 4
    cut = [whole[: 4 + keep] for keep in chance.sample(range(length), 60)]
    shorter = [struct.pack("=I", keep) + whole[4 : 4 + keep] for keep in range(0, length, 3)][:80]
    flipped = []
    for _ in range(100):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 8))):
            data[chance.randrange(4, len(data))] ^= 1 << chance.randrange(8)
        flipped.append(bytes(data))
    counts: list[bytes] = []
    while len(cut) + len(shorter) + len(flipped) + len(counts) < 300:
        data = bytearray(whole)
        value = chance.choice((0, 1, 63, 65, 4095, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1))
        struct.pack_into("=I", data, 4 + 4 * chance.randrange(12), value)
        counts.append(bytes(data))
    return cut + shorter + flipped + counts


def feed(run: Any, data: bytes) -> list[object]:
    """Everything the init says to these bytes and the end of file behind them."""
    peer = socket.socket(fileno=os.dup(run.gate.fileno()))
    peer.setblocking(True)
    try:
        peer.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass
    else:
        if len(data) < 4 + struct.unpack("=I", data[:4])[0]:
            peer.shutdown(socket.SHUT_WR)
    peer.close()
    return list(run.read_until(Failed, Exited))


def test_broken_orders_end_in_a_failure(launch_chroot: Any) -> None:
    _feed_broken_orders(launch_chroot)


def test_broken_orders_read_no_byte_beyond_their_buffer(
    launch_chroot: Any, sanitized_memfd: int
) -> None:
    _feed_broken_orders(
        launch_chroot,
        memfd=sanitized_memfd,
        root="/",
        env={"ASAN_OPTIONS": "exitcode=99:detect_leaks=0", "UBSAN_OPTIONS": "exitcode=99"},
    )


def _feed_broken_orders(launch: Any, **fields: Any) -> None:
    orders = broken_orders()
    assert len(orders) == 300
    seen = set()
    for data in orders:
        run = launch.ready(**fields)
        messages = feed(run, data)
        status = os.waitstatus_to_exitcode(run.reap())
        whole = len(data) >= 4 + struct.unpack("=I", data[:4])[0]
        if whole:
            assert isinstance(messages[-1], Failed) and status == 125, (data, run.output())
            seen.add(messages[-1].stage)
        else:
            assert (messages, status) == ([], 0), (data, run.output())
        run.end()
        launch.runs.remove(run)
    assert {"order", "exec"} <= seen


def test_order_that_claims_too_much_is_refused(launch: Any) -> None:
    run = launch.ready()
    (failed,) = feed(run, struct.pack("=I", (8 << 20) + 1))
    assert isinstance(failed, Failed) and (failed.stage, failed.errno) == ("order", EMSGSIZE)
    assert os.waitstatus_to_exitcode(run.reap()) == 125


def raw_order(**changes: int | bytes) -> bytes:
    """A small order that is right but for what is changed, unchecked by Python."""
    names = ("version", "flags", "uid", "gid", "umask", "limits", "filters", "groups", "keep")
    head = dict.fromkeys((*names, "argc", "envc", "reserved"), 0) | {"version": 1, "argc": 1}
    arrays = changes.pop("arrays", b"")
    strings = changes.pop("strings", b"/\0/nosuch\0")
    assert isinstance(arrays, bytes) and isinstance(strings, bytes)
    body = struct.pack("=12I5Q", *(head | changes).values(), *[0] * 5) + arrays + strings
    return struct.pack("=I", len(body)) + body


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"version": 0}, EPROTO),
        ({"version": 2}, EPROTO),
        ({"flags": 4}, EINVAL),
        ({"uid": 2**32 - 1}, EINVAL),
        ({"gid": 2**32 - 1}, EINVAL),
        ({"umask": 0o1000}, EINVAL),
        ({"limits": 65, "arrays": bytes(65 * 24)}, EINVAL),
        ({"filters": 4097, "arrays": bytes(4097 * 8)}, EINVAL),
        ({"groups": 65537, "arrays": struct.pack("=65537I", *range(65537))}, EINVAL),
        ({"keep": 4097, "arrays": struct.pack("=4097I", *range(3, 4100))}, EINVAL),
        ({"groups": 2, "arrays": struct.pack("=2I", 5, 4)}, EINVAL),
        ({"groups": 2, "arrays": struct.pack("=2I", 5, 5)}, EINVAL),
        ({"groups": 1, "arrays": struct.pack("=I", 2**32 - 1)}, EINVAL),
        ({"keep": 2, "arrays": struct.pack("=2I", 5, 4)}, EINVAL),
        ({"keep": 1, "arrays": struct.pack("=I", 0)}, EINVAL),
        ({"keep": 1, "arrays": struct.pack("=I", 2)}, EINVAL),
        ({"keep": 1, "arrays": struct.pack("=I", 2**31)}, EINVAL),
        ({"groups": 4}, EPROTO),
        ({"argc": 0}, EINVAL),
        ({"argc": 2**31 - 1}, EPROTO),
        ({"argc": 2**32 - 1, "envc": 2**32 - 1}, EPROTO),
        ({"argc": 2}, EPROTO),
        ({"envc": 1}, EPROTO),
        ({"strings": b""}, EPROTO),
        ({"strings": b"/\0/nosuch"}, EPROTO),
        ({"strings": b"/\0/nosuch\0\0"}, EPROTO),
        ({"strings": b"\0/nosuch\0"}, EINVAL),
        ({"strings": b"bin\0/nosuch\0"}, EINVAL),
    ],
)
def test_order_with_one_fault_is_refused(
    launch_chroot: Any, changes: dict[str, Any], number: int
) -> None:
    run = launch_chroot.ready()
    (failed,) = feed(run, raw_order(**changes))
    assert isinstance(failed, Failed) and (failed.stage, failed.errno) == ("order", number)
    assert os.waitstatus_to_exitcode(run.reap()) == 125


def test_order_without_the_fault_is_taken(launch_chroot: Any) -> None:
    run = launch_chroot.ready()
    failed = feed(run, raw_order())[-1]
    assert isinstance(failed, Failed) and failed.stage == "exec"


def test_gate_may_not_be_kept(launch: Any) -> None:
    run = launch()
    run.gate.receive(5)
    links = {
        os.readlink(f"/proc/{run.pid}/fd/{fd}"): int(fd) for fd in os.listdir(f"/proc/{run.pid}/fd")
    }
    gate_fd = next(fd for link, fd in links.items() if link.startswith("socket:"))
    failed = run.failed("/bin/true", keep_fds=(gate_fd,))
    assert failed.stage == "order"


def test_whole_order_of_eight_mebibytes_is_read(launch: Any) -> None:
    padding = b"x" * ((8 << 20) - 88 - 2 - 10)
    failed = launch.ready().failed("/bin/true", padding[:-1])
    assert (failed.stage, failed.errno) == ("exec", E2BIG)  # too long for the kernel, not for us


def test_init_without_a_gate_ends(memfd: int) -> None:
    for argv in ([b"execdrv-init"], [b"i", b"x"], [b"i", b"2"], [b"i", b"5000"], [b"i", b"3x"]):
        pid = os.fork()
        if pid == 0:
            try:
                os.execve(memfd, argv, {})
            finally:
                os._exit(99)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 125
