"""Messages: every kind is read, and nothing else."""

from __future__ import annotations

import struct

import pytest

from execdrv.errors import StartError
from execdrv.init.message import Exited, Failed, Job, Ready, Started, parse_message

FAILED_BYTES = struct.pack("=i", 2) + b"exec\0/a\xff\0path\0"


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        (1, b"", Ready(77)),
        (2, struct.pack("=i", 5), Job(77)),
        (3, struct.pack("=i", 5), Started(5)),
        (4, FAILED_BYTES, Failed("exec", 2, b"/a\xff", b"path")),
        (5, struct.pack("=iIQQQ", 0x8B, 0, 1, 2**40, 3), Exited(0x8B, 1, 2**40, 3)),
    ],
)
def test_every_kind_is_read(kind: int, payload: bytes, expected: object) -> None:
    assert parse_message(kind, payload, sender_pid=77) == expected


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (0, b""),
        (6, b""),
        (1, b"x"),
        (2, b""),
        (3, b"12345"),
        (4, b""),
        (4, FAILED_BYTES[:-1]),
        (4, FAILED_BYTES + b"x"),
        (4, struct.pack("=i", 2) + b"\xff\0\0\0"),
        (5, b"1234"),
    ],
)
def test_anything_else_is_an_error(kind: int, payload: bytes) -> None:
    with pytest.raises(StartError, match=f"kind {kind} with {len(payload)} bytes is unknown"):
        parse_message(kind, payload, sender_pid=77)
