"""The codec: what goes in comes out, and what does not fit is refused with the path to it."""

from __future__ import annotations

import math
from typing import Any, Literal

import attrs
import pytest

from execdrv import wire
from execdrv.driver import DriverRef, Exit
from execdrv.limits import Limits, Receipt
from execdrv.linux.procfs import ProcessId
from execdrv.spec import UNSET, Bind, ContainerSpec, Rlimit, Tmpfs

FULL_SPEC = ContainerSpec(
    argv=[b"printf", b"%s", b"\xff\n"],
    name="job",
    env={"A": "x\x1b[0m\x01", b"B": b"\xfe"},
    workdir=b"/w/a\nb\xff",
    user="12:34",
    groups=[27, 1000],
    cap_drop=["ALL"],
    cap_add=["cap_net_raw"],
    rlimits=[Rlimit(name="nofile", soft=3, hard=None)],
    rootfs=b"/r\xff",
    root_mode="read-only",
    binds=[Bind(source="s", target="/t", read_only=True)],
    tmpfs=[Tmpfs(target="/x", size="1M", mode=0o700)],
    hostname="h",
    net="none",
    memory="64M",
    memory_swap=0,
    cpus=0.5,
    pids=3,
    timeout="250ms",
    pass_fds=[5, 4],
    cgroup_parent="a/b",
    require=["pid.hidden"],
    driver_options={"k": "v"},
)


@attrs.frozen
class Sample:
    number: int
    fraction: float = 0.0
    flag: bool = False
    text: str | None = None
    data: bytes = b""
    pair: tuple[int, str] = (0, "")
    many: tuple[int, ...] = ()
    table: dict[str, int] = attrs.field(factory=dict)
    by_number: dict[int, str] = attrs.field(factory=dict)
    choice: Literal["a", "b"] = "a"
    inner: Receipt | None = None


@pytest.mark.parametrize(
    "value",
    [
        FULL_SPEC,
        ContainerSpec(argv=["true"]),
        Exit(code=None, signal=9, reason="oom", started=True, stdout=b"\xff", duration_s=1.5),
        Limits(memory_bytes=1, cpus=0.5),
        ProcessId(pid=1, start_time=2),
        DriverRef(target="m:C", options={"a": "b"}),
        Sample(1, 0.5, True, "t", b"\x00\xff", (1, "x"), (1, 2), {"a": 1}, {3: "c"}, "b"),
        Sample(1, inner=Receipt("pids", "applied", "1", "2")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_survives(value: Any) -> None:
    text = wire.dumps(wire.encode(value))
    assert wire.decode(type(value), wire.loads(text)) == value


def test_every_field_of_a_spec_survives() -> None:
    """A field added to the spec must be added to FULL_SPEC."""
    exempt = {"group"}  # a user with a group excludes it
    for field in attrs.fields(ContainerSpec):
        assert getattr(FULL_SPEC, field.name) is not UNSET or field.name in exempt


def test_unset_fields_are_left_out() -> None:
    assert wire.encode(ContainerSpec(argv=["true"])) == {"argv": ["true"]}


def test_bytes_are_text_where_they_are_utf8() -> None:
    assert wire.encode(b"\xc3\xa9") == "\xe9"
    assert wire.encode(b"\xff") == {"base64": "/w=="}


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({}, "'number' is missing"),
        ({"number": 1, "extra": 1}, "unknown field 'extra'"),
        ({"number": "1"}, "Sample.number"),
        ({"number": 1.0}, "Sample.number"),
        ({"number": True}, "Sample.number"),
        ({"number": 1, "flag": 1}, "Sample.flag"),
        ({"number": 1, "text": 5}, "Sample.text"),
        ({"number": 1, "data": {"base64": "?"}}, "Sample.data"),
        ({"number": 1, "data": {"base64": "/w==", "x": 1}}, "Sample.data"),
        ({"number": 1, "pair": [1]}, "Sample.pair"),
        ({"number": 1, "many": [1, "2"]}, r"Sample.many\[1\]"),
        ({"number": 1, "many": "12"}, "Sample.many"),
        ({"number": 1, "table": {"a": "b"}}, "Sample.table.a"),
        ({"number": 1, "by_number": {"a": "b"}}, "Sample.by_number"),
        ({"number": 1, "choice": "c"}, "Sample.choice"),
        ({"number": 1, "inner": {"name": "x"}}, "Sample.inner"),
        ({"number": 1, "fraction": math.nan}, "Sample.fraction"),
        ([], "Sample"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_path(data: Any, path: str) -> None:
    with pytest.raises(wire.WireError, match=path):
        wire.decode(Sample, data)


@pytest.mark.parametrize("text", ["", "{", "NaN", "[Infinity]", '{"a":1,"a":2}', "[" * 100_000])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(wire.WireError):
        wire.loads(text)


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {1.5: 1}, {True: 1}])
def test_what_has_no_plain_form_is_refused(value: object) -> None:
    with pytest.raises(wire.WireError):
        wire.encode(value)
