"""The spec: what each field takes, what it asks for, and that nothing can be asked in vain."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from execdrv.errors import SpecError
from execdrv.guarantees.ids import IDS
from execdrv.limits import Limits
from execdrv.spec import UNSET, Bind, ContainerSpec, Rlimit, Tmpfs


def spec(**fields: Any) -> ContainerSpec:
    return ContainerSpec(argv=["true"], **fields)


#: A value for each field that asks for something.
ASKING: dict[str, Any] = {
    "name": "a",
    "env": {"A": "1"},
    "workdir": "/",
    "user": "1",
    "group": "1",
    "groups": ["1"],
    "cap_add": ["CHOWN"],
    "cap_drop": ["CHOWN"],
    "rlimits": [Rlimit(name="core", soft=0, hard=0)],
    "rootfs": "/",
    "root_mode": "private",
    "binds": [Bind(source="/a", target="/b")],
    "tmpfs": [Tmpfs(target="/b")],
    "hostname": "h",
    "net": "none",
    "memory": "64M",
    "cpus": 1,
    "pids": 1,
    "timeout": 1,
    "pass_fds": [3],
    "cgroup_parent": "a",
    "require": ["pid.hidden"],
}


def test_no_field_can_be_asked_in_vain() -> None:
    """Each field names a guarantee; driver options are refused by name, swap goes with memory."""
    for field in attrs.fields(ContainerSpec):
        if field.name in ("argv", "driver_options", "memory_swap"):
            continue
        asked = spec(**{field.name: ASKING[field.name]}).asked()
        assert asked[field.name], field.name


def test_every_id_that_is_asked_is_in_the_catalogue() -> None:
    for name, value in {**ASKING, "root_mode": "read-only"}.items():
        for guarantee in spec(**{name: value}).asked()[name]:
            assert guarantee in IDS, (name, guarantee)
    assert spec(memory="1M", memory_swap=0).asked()["memory_swap"] == ("mem.swap",)


def test_nothing_is_asked_by_default() -> None:
    assert spec().asked() == {"argv": ("proc.argv-exact",)}
    assert spec(memory=None, net=None).asked() == {"argv": ("proc.argv-exact",)}


def test_a_value_equal_to_a_default_is_asked_all_the_same() -> None:
    assert "net.none" in spec(net="none").asked()["net"]
    assert spec(net="host").asked()["net"] == ()


def test_a_read_only_bind_asks_for_more() -> None:
    writable = spec(binds=[Bind(source="/a", target="/b")]).asked()["binds"]
    read_only = spec(binds=[Bind(source="/a", target="/b", read_only=True)]).asked()["binds"]
    assert set(read_only) - set(writable) == {"mnt.bind-ro", "mnt.bind-ro-rec"}


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        # B37, E26: names
        *(("name", name, "must match") for name in ("a/b", "..", ".x", "", "a b", "a ", "a\n")),
        *(("name", name, "must match") for name in ("\u00e9", "a" * 65, "a" * 300, 5, "-x")),
        # B39: host names
        ("hostname", "h" * 65, "longer than 64"),
        *(("hostname", name, "letters") for name in ("a b", "", "-x", "a\n", "h\nlxc.x = y", 5)),
        # E35: users
        *(("user", user, "") for user in ("4294967296", "-1", "4294967295", "0x0", " 1000")),
        *(("user", user, "") for user in ("1000 ", "1:", ":1", "+1", "", "a b", "1:2:3", 2**32)),
        ("user", True, ""),
        ("group", "4294967295", ""),
        ("groups", ["-1"], ""),
        ("groups", "27", "must be a list"),
        # B71 to B73: limits
        *(("memory", size, "") for size in (0, -1, "1e3", "64 MiB ", 2**63, "x")),
        *(("cpus", cpus, "") for cpus in (0, -1, float("nan"), float("inf"), "0,5", 0.0001)),
        *(("pids", pids, "") for pids in (0, -1, "x", 2**22 + 1, 1.5)),
        ("memory_swap", 5, "needs a memory limit"),
        ("timeout", 0, ""),
        # paths
        ("workdir", "rel", "absolute"),
        ("workdir", "", "empty"),
        ("workdir", "/a\0b", "NUL"),
        ("rootfs", "", "empty"),
        ("rootfs", 5, ""),
        *(("cgroup_parent", path, "plain names") for path in ("../x", "a//b", "", "/", "a\nb", 5)),
        # the rest
        ("env", ["A"], "NAME=VALUE"),
        ("env", {"": "x"}, "empty"),
        ("env", {"A=B": "x"}, "'='"),
        ("env", {"A": "x\0"}, "NUL"),
        ("env", {"A": 5}, ""),
        ("root_mode", "rw", "one of"),
        ("net", "bridge", "one of"),
        ("cap_add", ["CAP_EVERYTHING"], "no such capability"),
        ("cap_drop", "CHOWN", "must be a list"),
        ("pass_fds", [2], "from 3"),
        ("pass_fds", [-1], ""),
        ("require", ["Pid"], "not a guarantee"),
        ("driver_options", {"A B": "x"}, "must match"),
        ("driver_options", {"a": 1}, "must be text"),
        ("binds", [("/a", "/b")], "Bind"),
        ("rlimits", ["nofile=1"], "Rlimit"),
    ],
)
def test_a_wrong_value_is_refused_by_name(field: str, value: Any, reason: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec(**{field: value})
    assert caught.value.field == field
    assert field in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["r.busybox", "A_1-x", "lock", "tmp", "a" * 64])
def test_a_harmless_name_is_taken(name: str) -> None:
    assert spec(name=name).name == name


@pytest.mark.parametrize("argv", [[], (), "true", b"true", None, 5, ["a\0b"], [5]])
def test_a_wrong_command_is_refused(argv: Any) -> None:
    with pytest.raises(SpecError, match="argv"):
        ContainerSpec(argv=argv)


def test_texts_become_bytes_as_the_file_system_encodes_them() -> None:
    found = ContainerSpec(argv=["\udcff", b"\xfe", ""], env={"A": "\udcfe"}, workdir="/\udcff")
    assert found.argv == (b"\xff", b"\xfe", b"")
    assert found.env == (b"A=\xfe",)
    assert found.workdir == b"/\xff"


def test_the_last_of_a_variable_counts() -> None:
    assert spec(env=["A=1", "B=2", "A=3"]).env == (b"A=3", b"B=2")


def test_digits_are_a_number_with_leading_zeros_gone() -> None:
    assert spec(user="007").user == "7"
    assert spec(user=0).user == "0"
    assert spec(user="2147483648").user == "2147483648"
    assert spec(user="build:5").user == "build:5"


def test_a_group_cannot_be_named_twice() -> None:
    with pytest.raises(SpecError, match="group"):
        spec(user="1:2", group="3")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Rlimit(name="nofiles", soft=1, hard=1), "no such rlimit"),
        (lambda: Rlimit(name="nofile", soft=2, hard=1), "exceeds"),
        (lambda: Rlimit(name="nofile", soft=None, hard=1), "exceeds"),
        (lambda: Rlimit(name="nofile", soft=-1, hard=1), "from 0"),
        (lambda: Bind(source="", target="/b"), "empty"),
        (lambda: Bind(source="/a", target="b"), "absolute"),
        (lambda: Tmpfs(target="/a", size=10), "smaller"),
        (lambda: Tmpfs(target="/a", mode=0o10000), "mode"),
    ],
)
def test_a_wrong_part_is_refused(make: Any, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        make()


def test_limits_are_those_that_were_asked() -> None:
    assert spec().limits == Limits()
    found = spec(memory="1M", memory_swap=0, cpus="0.5", pids="3").limits
    assert found == Limits(memory_bytes=1 << 20, memory_swap_bytes=0, cpus=0.5, pids=3)
    assert spec(memory="1M").limits.memory_swap_bytes is None


def test_unset_is_false_and_prints_as_itself() -> None:
    assert not UNSET
    assert repr(spec().memory) == "UNSET"
