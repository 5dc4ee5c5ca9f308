"""Descriptors beside frames: only who asked for them gets any, and none is lost on the way."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from execdrv import wire
from execdrv.errors import OperationError, SupervisorLostError
from execdrv.supervisor import launcher
from execdrv.supervisor.connection import Connection, FrameBuffer, Peer
from execdrv.supervisor.launch import Collect, Launch
from execdrv.supervisor.launcher import Launcher, start_server

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def open_fds() -> set[str]:
    """What this process has open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        # The listing's own descriptor is closed already.
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return found


def send_with_fds(sock: socket.socket, content: bytes, *, count: int = 2) -> None:
    """Bytes, be they a frame or not, with some descriptors of /dev/null beside them."""
    fds = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(count)]
    try:
        socket.send_fds(sock, [content], fds)
    finally:
        for fd in fds:
            os.close(fd)


def frame_of(text: bytes) -> bytes:
    return struct.pack("!I", len(text)) + text


# --- who takes none ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        frame_of(b'{"ok":true}'),
        frame_of(wire.dumps({"error": wire.encode_error(OperationError("cannot do it"))})),
        frame_of(b"no JSON"),
        struct.pack("!I", 1 << 31),
        frame_of(b'{"ok":true}')[:-3],
        b"\0",
    ],
    ids=["result", "error", "no JSON", "too long", "cut short", "no header"],
)
def test_a_caller_keeps_no_descriptor_that_comes_with_an_answer(pair: Pair, answer: bytes) -> None:
    ours, theirs = pair
    connection = Connection(ours)
    before = open_fds()
    send_with_fds(theirs, answer)
    theirs.shutdown(socket.SHUT_WR)
    if answer.endswith(b":true}"):
        assert connection.request("create", timeout_s=5) is True
    else:
        with pytest.raises((OperationError, wire.WireError, SupervisorLostError)):
            connection.request("create", timeout_s=5)
    # It is closed by a failure.
    assert open_fds() - before == set()


class _CollectorThatSendsFds(Launcher):
    def _start(self, launch: Launch, fds: dict[str, int], theirs: socket.socket) -> None: ...

    def _start_collector(self, request: Collect, theirs: socket.socket) -> None:
        send_with_fds(theirs, frame_of(b'{"ok":["a process"]}'))


def test_a_collectors_answer_brings_no_descriptor() -> None:
    request = Collect(root="/nowhere", id="one", plugins=False, deadline_s=1)
    collector = _CollectorThatSendsFds()
    before = open_fds()
    assert collector.collect(request) == ["a process"]
    assert open_fds() == before
    collector.close()


@pytest.mark.parametrize("text", [b"[]", b"no JSON"])
def test_a_supervisor_keeps_no_descriptor_that_comes_with_a_request(
    pair: Pair, text: bytes
) -> None:
    peer, theirs = Peer(pair[0]), pair[1]
    before = open_fds()
    send_with_fds(theirs, frame_of(b"[1]"))
    send_with_fds(theirs, frame_of(text))
    if text == b"[]":
        assert peer.receive() == [([1], []), ([], [])]
    else:
        with pytest.raises(wire.WireError):
            peer.receive()
    assert open_fds() == before


# --- who takes them ----------------------------------------------------------------------------


def test_a_taker_gets_each_frames_descriptors_and_no_child_does(pair: Pair) -> None:
    peer, theirs = Peer(pair[0], takes_fds=True), pair[1]
    before = open_fds()
    send_with_fds(theirs, frame_of(b"[1]"), count=2)
    send_with_fds(theirs, frame_of(b"[2]"), count=3)
    frames = peer.receive()
    assert [(data, len(fds)) for data, fds in frames] == [([1], 2), ([2], 3)]
    for _, fds in frames:
        for fd in fds:
            assert os.get_inheritable(fd) is False
            os.close(fd)
    assert open_fds() == before


@pytest.mark.parametrize(
    "second",
    [frame_of(b"no JSON"), struct.pack("!I", 1 << 31), frame_of(b"[2]")[:-1]],
    ids=["no JSON", "too long", "unfinished"],
)
def test_a_takers_end_closes_what_was_not_taken(pair: Pair, second: bytes) -> None:
    ours, theirs = pair
    before = open_fds()
    peer = Peer(ours.dup(), takes_fds=True)
    send_with_fds(theirs, frame_of(b"[1]"))
    send_with_fds(theirs, second)
    try:
        for _, fds in peer.receive():
            for fd in fds:
                os.close(fd)
    except wire.WireError:
        assert not second.endswith(b"[2")
    peer.close()
    assert open_fds() == before


def test_a_buffer_takes_none_unless_told(pair: Pair) -> None:
    ours, theirs = pair
    for buffer, expected in ((FrameBuffer(), 0), (FrameBuffer(takes_fds=True), 2)):
        send_with_fds(theirs, frame_of(b"1"))
        assert buffer.receive(ours)
        frame = buffer.next_frame()
        assert frame is not None
        assert (frame[0], len(frame[1])) == (1, expected)
        for fd in frame[1]:
            os.close(fd)


# --- the fork server's first words --------------------------------------------------------------


@pytest.mark.timeout(20)
@pytest.mark.parametrize("said", [b"", b"\0", frame_of(b"no JSON")])
def test_a_fork_server_that_dies_while_it_starts_is_an_error(
    monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    program = (
        "import os, socket, sys\n"
        f"socket.socket(fileno=int(sys.argv[1])).send({said!r})\n"
        "os.write(2, b'no memory')\n"
    )
    monkeypatch.setattr(launcher, "_SERVER_PROGRAM", program)
    before = open_fds()
    with pytest.raises(OperationError, match="cannot start the fork server: no memory"):
        start_server(())
    assert open_fds() == before
