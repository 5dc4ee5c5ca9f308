"""The gate: messages whole or in parts, whose they are, and the time a caller waits."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from execdrv.errors import DeadlineError, StartError
from execdrv.init.protocol import Exited, Failed, Gate, Job, Order, Ready, Started, encode_order

READY = struct.pack("=II", 1, 0)
JOB = struct.pack("=IIi", 2, 4, 1)
STARTED = struct.pack("=IIi", 3, 4, 12)
FAILED = struct.pack("=IIi", 4, 13, 2) + b"exec\0/x\0\0"
EXITED = struct.pack("=IIiIQQQ", 5, 32, 256, 0, 1, 2, 3)


@pytest.fixture
def pair() -> Iterator[tuple[Gate, socket.socket]]:
    """A gate, and the socket that an init would have."""
    gate, fd = Gate.pair()
    peer = socket.socket(fileno=fd)
    yield gate, peer
    gate.close()
    peer.close()


def send_from_child(peer: socket.socket, data: bytes) -> int:
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            peer.sendall(data)
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def test_child_end_is_not_inherited_by_accident(pair: tuple[Gate, socket.socket]) -> None:
    gate, peer = pair
    assert not os.get_inheritable(peer.fileno()) and not os.get_inheritable(gate.fileno())
    assert os.get_blocking(peer.fileno()) and not os.get_blocking(gate.fileno())


def test_messages_arrive_in_order(pair: tuple[Gate, socket.socket]) -> None:
    gate, peer = pair
    peer.sendall(READY + STARTED + EXITED)
    assert gate.receive(1) == Ready(os.getpid())
    assert gate.receive_available() == [Started(12), Exited(256, 1, 2, 3)]
    assert gate.receive_available() == []
    assert not gate.eof


def test_pid_is_the_senders_whatever_it_claims(pair: tuple[Gate, socket.socket]) -> None:
    gate, peer = pair
    peer.sendall(READY)
    child = send_from_child(peer, JOB)
    peer.sendall(STARTED)
    assert gate.receive_available() == [Ready(os.getpid()), Job(child), Started(12)]


def test_message_in_parts_is_read_once_it_is_whole(pair: tuple[Gate, socket.socket]) -> None:
    gate, peer = pair
    for byte in FAILED[:-1]:
        peer.sendall(bytes([byte]))
        assert gate.receive_available() == []
    peer.sendall(FAILED[-1:] + STARTED)
    assert gate.receive_available() == [Failed("exec", 2, b"/x", b""), Started(12)]


def test_two_senders_of_one_message_are_an_error(pair: tuple[Gate, socket.socket]) -> None:
    gate, peer = pair
    peer.sendall(FAILED[:10])
    send_from_child(peer, FAILED[10:])
    with pytest.raises(StartError, match="two processes"):
        gate.receive_available()


def test_end_of_file_comes_after_the_last_message(pair: tuple[Gate, socket.socket]) -> None:
    gate, peer = pair
    peer.sendall(EXITED)
    peer.close()
    assert gate.receive_available() == [Exited(256, 1, 2, 3)]
    assert gate.eof
    assert gate.receive(0) is None
    assert gate.receive_available() == []


def test_end_of_file_in_a_message_is_an_error(pair: tuple[Gate, socket.socket]) -> None:
    gate, peer = pair
    peer.sendall(EXITED[:-1])
    peer.close()
    with pytest.raises(StartError, match="ends after 39 bytes"):
        gate.receive(1)


def test_end_with_bytes_of_ours_unread_is_an_end_of_file(
    pair: tuple[Gate, socket.socket],
) -> None:
    gate, peer = pair
    gate.release_pid()
    peer.sendall(FAILED)
    peer.close()
    assert gate.receive(1) == Failed("exec", 2, b"/x", b"")
    assert gate.receive(1) is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (struct.pack("=II", 9, 0), "kind 9 with 0 bytes is unknown"),
        (struct.pack("=II", 4, 40_000), "it claims 40000 bytes"),
        (struct.pack("=II", 3, 1) + b"x", "kind 3 with 1 bytes is unknown"),
    ],
)
def test_bytes_that_are_no_message_are_an_error(
    pair: tuple[Gate, socket.socket], data: bytes, reason: str
) -> None:
    gate, peer = pair
    peer.sendall(data)
    with pytest.raises(StartError, match=reason) as caught:
        gate.receive(1)
    assert "install execdrv again" in caught.value.hint


def test_silence_ends_with_the_time(pair: tuple[Gate, socket.socket]) -> None:
    gate, peer = pair
    peer.sendall(READY[:3])
    began = time.monotonic()
    with pytest.raises(DeadlineError, match=r"silent for 0\.05 s"):
        gate.receive(0.05)
    assert 0.04 < time.monotonic() - began < 1
    peer.sendall(READY[3:])
    assert gate.receive(1) == Ready(os.getpid())


def test_gate_is_readable_exactly_when_there_is_something(
    pair: tuple[Gate, socket.socket],
) -> None:
    def readable() -> bool:
        return bool(select.select([gate], [], [], 0)[0])

    gate, peer = pair
    assert not readable()
    peer.sendall(READY)
    assert readable()
    gate.receive_available()
    assert not readable()
    peer.close()
    assert readable()


def test_descriptors_are_never_taken(pair: tuple[Gate, socket.socket]) -> None:
    gate, peer = pair
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(peer, [READY], [0, 1, 2])
    assert gate.receive(1) == Ready(os.getpid())
    assert len(os.listdir("/proc/self/fd")) == before


def test_whole_order_of_eight_mebibytes_is_sent(pair: tuple[Gate, socket.socket]) -> None:
    gate, peer = pair
    order = Order(uid=0, gid=0, argv=(b"x" * ((8 << 20) - 91),))
    expected = encode_order(order)
    assert len(expected) == (8 << 20) + 4
    pid = os.fork()
    if pid == 0:
        rest = len(expected)
        while rest > 0:
            rest -= len(peer.recv(1 << 20)) or os._exit(1)
        os._exit(0)
    gate.send_order(order, timeout_s=10)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_init_that_does_not_read_its_order_is_told_of(pair: tuple[Gate, socket.socket]) -> None:
    gate, _ = pair
    order = Order(uid=0, gid=0, argv=(b"x" * (4 << 20),))
    with pytest.raises(DeadlineError, match=r"did not take its order in 0\.05 s"):
        gate.send_order(order, timeout_s=0.05)


@pytest.mark.parametrize("end", [socket.socket.close, lambda peer: (peer.recv(1), peer.close())])
def test_init_that_has_ended_is_told_of(
    pair: tuple[Gate, socket.socket], end: Callable[[socket.socket], object]
) -> None:
    gate, peer = pair
    gate.release_pid()
    peer.sendall(FAILED)
    end(peer)
    with pytest.raises(StartError, match="has ended before it had the whole order") as caught:
        gate.send_order(Order(uid=0, gid=0, argv=(b"x",)))
    assert caught.value.fields()["errno"]
    assert gate.receive(1) == Failed("exec", 2, b"/x", b"")


def test_release_and_close_may_come_at_any_time(pair: tuple[Gate, socket.socket]) -> None:
    gate, peer = pair
    for _ in range(3):
        gate.release_pid()
    peer.close()
    gate.release_pid()
    gate.close()
    gate.close()
