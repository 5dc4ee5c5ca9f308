"""Orders: what is refused before anything is sent, and the bytes of what is not."""

from __future__ import annotations

import struct
from typing import Any

import attrs
import pytest

from execdrv.errors import SpecError
from execdrv.init.order import ORDER_BYTES_MAX, Order, encode_order

PLAIN = Order(uid=1, gid=2, argv=(b"true",))


def changed(**values: Any) -> Order:
    return attrs.evolve(PLAIN, **values)


def test_order_is_laid_out_as_the_init_reads_it() -> None:
    order = Order(
        uid=1, gid=2, groups=(9, 3, 9), umask=0o27, no_new_privs=True, drop_init_caps=False,
        bounding=1, permitted=2, effective=3, inheritable=4, ambient=5,
        rlimits=((7, 8, 2**64 - 1),), keep_fds=(12, 4), cwd=b"/w", argv=(b"a", b""), env=(b"E=1",),
        seccomp_filter=b"12345678",
    )  # fmt: skip
    data = encode_order(order)
    head = struct.pack("=12I5Q", 1, 1, 1, 2, 0o27, 1, 1, 2, 2, 2, 1, 0, 1, 2, 3, 4, 5)
    rest = struct.pack("=IIQQ", 7, 0, 8, 2**64 - 1) + b"12345678" + struct.pack("=4I", 3, 9, 4, 12)
    expected = head + rest + b"/w\0a\0\0E=1\0"
    assert data == struct.pack("=I", len(expected)) + expected


def test_flags_stand_for_themselves() -> None:
    flags = [
        struct.unpack_from("=I", encode_order(changed(**values)), 8)[0]
        for values in (
            {"no_new_privs": False, "drop_init_caps": False},
            {"no_new_privs": True, "drop_init_caps": False},
            {"no_new_privs": False, "drop_init_caps": True},
        )
    ]
    assert flags == [0, 1, 2]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("uid", -1),
        ("uid", 2**32 - 1),
        ("uid", 2**32),
        ("gid", 2**32 - 1),
        ("groups", (0, 2**32 - 1)),
        ("groups", (-1,)),
        ("groups", tuple(range(65537))),
        ("umask", 0o1000),
        ("umask", -1),
        ("bounding", 2**64),
        ("permitted", -1),
        ("effective", 2**64),
        ("inheritable", 2**64),
        ("ambient", 2**64),
        ("rlimits", ((-1, 0, 0),)),
        ("rlimits", ((0, 0, 2**64),)),
        ("rlimits", ((0, -1, 0),)),
        ("rlimits", ((0, 0, 0),) * 65),
        ("keep_fds", (2,)),
        ("keep_fds", (-1,)),
        ("keep_fds", (2**31,)),
        ("keep_fds", tuple(range(3, 4100))),
        ("cwd", b""),
        ("cwd", b"rel"),
        ("cwd", b"/a\0b"),
        ("argv", ()),
        ("argv", (b"a", b"b\0c")),
        ("env", (b"A=\0",)),
        ("seccomp_filter", b"1234567"),
        ("seccomp_filter", b"12345678" * 4097),
    ],
)
def test_value_the_init_could_not_keep_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(SpecError) as caught:
        encode_order(changed(**{field: value}))
    assert caught.value.field == field
    assert field in str(caught.value)
    assert "\n" not in str(caught.value)


def test_order_of_the_largest_size_is_encoded_and_no_larger_one() -> None:
    room = ORDER_BYTES_MAX - 88 - len(b"/\0true\0\0")
    largest = attrs.evolve(PLAIN, argv=(b"true", b"x" * room))
    assert len(encode_order(largest)) == ORDER_BYTES_MAX + 4
    with pytest.raises(SpecError, match=r"8388609 bytes, over 8388608"):
        encode_order(attrs.evolve(PLAIN, argv=(b"true", b"x" * (room + 1))))
