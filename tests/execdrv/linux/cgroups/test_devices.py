from __future__ import annotations

import os
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from execdrv.errors import IsolationError, SpecError
from execdrv.limits import Limits
from execdrv.linux import bpf
from execdrv.linux.cgroups import (
    DEFAULT_DEVICES,
    DeviceRule,
    Group,
    GroupPlan,
    Layout,
    allow_devices,
    devices_supported,
    v1,
)
from execdrv.linux.cgroups.devices import assemble_program


def _run(program: bytes, *, kind: int, access: int, major: int, minor: int) -> int:
    """What a device program answers: a machine for the seven instructions we use."""
    context = struct.pack("=III", access << 16 | kind, major, minor)
    code = [struct.unpack_from("<BBhi", program, at) for at in range(0, len(program), 8)]
    registers, at = [0] * 11, 0
    while True:
        opcode, pair, offset, immediate = code[at]
        dst, src, at = pair & 15, pair >> 4, at + 1
        if opcode == bpf.LOAD_WORD:
            (registers[dst],) = struct.unpack_from("=I", context, offset)
        elif opcode == bpf.MOVE_REGISTER:
            registers[dst] = registers[src]
        elif opcode == bpf.MOVE:
            registers[dst] = immediate
        elif opcode == bpf.AND:
            registers[dst] &= immediate & 0xFFFFFFFFFFFFFFFF
        elif opcode == bpf.SHIFT_RIGHT:
            registers[dst] >>= immediate
        elif opcode == bpf.JUMP_NOT_EQUAL:
            at += offset if registers[dst] != immediate else 0
        else:
            assert opcode == bpf.EXIT
            return registers[0]


def _rules_allow(
    rules: tuple[DeviceRule, ...], kind: str, access: str, major: int, minor: int
) -> bool:
    return any(
        rule.kind == kind
        and set(access) <= set(rule.access)
        and rule.major == major
        and rule.minor in (None, minor)
        for rule in rules
    )


@pytest.mark.parametrize(
    "rules",
    [
        (),
        DEFAULT_DEVICES,
        (DeviceRule("b", 7, None, "r"), DeviceRule("c", 1, 3, "rwm"), DeviceRule("c", 0, 0, "m")),
    ],
)
def test_the_program_says_what_the_rules_say(rules: tuple[DeviceRule, ...]) -> None:
    program = assemble_program(rules)
    asked = ["r", "w", "m", "rw", "rm", "wm", "rwm"]
    bits = {"m": 1, "r": 2, "w": 4}
    for kind, number in (("b", 1), ("c", 2)):
        for major in (0, 1, 5, 7, 136, 137):
            for minor in (0, 2, 3, 5, 11, 1048575):
                for access in asked:
                    answer = _run(
                        program,
                        kind=number,
                        access=sum(bits[letter] for letter in access),
                        major=major,
                        minor=minor,
                    )
                    assert answer == _rules_allow(rules, kind, access, major, minor)


@pytest.mark.parametrize(
    "rule", [("x", 1, 3), ("c", -1, 3), ("c", 4096, 3), ("c", 1, 1 << 20), ("c", 1, 3, ""),
             ("c", 1, 3, "rx")],
)  # fmt: skip
def test_a_rule_out_of_range_is_refused(rule: tuple[Any, ...]) -> None:
    with pytest.raises(SpecError):
        DeviceRule(*rule)


def test_a_rule_reads_as_the_kernels_file_takes_it() -> None:
    assert str(DeviceRule("c", 1, 3, "rwm")) == "c 1:3 rwm"
    assert str(DeviceRule("b", 136, None)) == "b 136:* rw"


#: Exits 0 only if the defaults hold: each line says what went wrong. mknod is tried in /dev/shm.
PROBE = """
import errno, os, stat
def opens(path, flags=os.O_RDONLY):
    try:
        os.close(os.open(path, flags))
    except OSError as error:
        return error.errno
    return 0
wrong = []
for name in ("null", "zero", "full", "random", "urandom"):
    if opens("/dev/" + name, os.O_RDWR if name in ("null", "zero", "full") else os.O_RDONLY):
        wrong.append(name + " does not open")
for name in ("kmsg", "mem", "loop-control", "loop0", "vda", "kvm", "fuse"):
    if os.path.exists("/dev/" + name) and opens("/dev/" + name) != errno.EPERM:
        wrong.append(name + " opens")
for kind, number in ((stat.S_IFCHR, (1, 3)), (stat.S_IFCHR, (1, 11)), (stat.S_IFBLK, (7, 0))):
    path = "/dev/shm/execdrv-test-%d" % os.getpid()
    try:
        os.mknod(path, kind | 0o600, os.makedev(*number))
        os.unlink(path)
        wrong.append("mknod %s:%s" % number)
    except PermissionError:
        pass
os.write(2, "; ".join(wrong).encode())
os._exit(1 if wrong else 0)
"""


def _made(make: Any, layout: Layout) -> Group:
    if not devices_supported(layout):
        pytest.skip("needs v1 devices, or cgroup2 and CAP_BPF")
    group: Group = make(Limits(), devices=True)
    return group


def test_without_control_the_probe_finds_open_devices(make: Any, kit: SimpleNamespace) -> None:
    # The positive control: the probe must be able to fail.
    assert kit.wait_status(kit.spawn_python(make(Limits()), PROBE)) == 1


def test_the_default_devices_open_and_no_other_and_none_is_made(
    make: Any, layout: Layout, kit: SimpleNamespace
) -> None:
    group = _made(make, layout)
    allow_devices(group)
    assert kit.wait_status(kit.spawn_python(group, PROBE)) == 0


def _only_v2(layout: Layout) -> Layout:
    """The layout without v1: device programs, also on a hybrid machine."""
    if layout.unified is None or not bpf.detect_device_programs():
        pytest.skip("needs cgroup2 and CAP_BPF")
    return Layout(hierarchies=(layout.unified,), unified_group=layout.unified_group)


@pytest.mark.parametrize("by_program", [False, True])
def test_rules_can_be_replaced(
    make: Any, layout: Layout, kit: SimpleNamespace, by_program: bool
) -> None:
    if by_program:
        layout = _only_v2(layout)
    elif not devices_supported(layout):
        pytest.skip("needs v1 devices, or cgroup2 and CAP_BPF")
    group = make(Limits(), devices=True, layout=layout)

    def opens(name: str) -> bool:
        code = f"import os; os.open({name!r}, os.O_RDONLY)"
        return bool(kit.wait_status(kit.spawn_python(group, code)) == 0)

    allow_devices(group, [DeviceRule("c", 1, 3)])
    assert opens("/dev/null") and not opens("/dev/full")
    allow_devices(group, [DeviceRule("c", 1, 7), DeviceRule("c", 1, 3)])
    assert opens("/dev/null") and opens("/dev/full")
    allow_devices(group, [])
    assert not opens("/dev/null")


def test_the_group_above_still_decides(make: Any, layout: Layout, kit: SimpleNamespace) -> None:
    group = make(Limits(), devices=True, layout=_only_v2(layout))
    allow_devices(group)
    assert kit.wait_status(kit.spawn_python(group, PROBE)) == 0
    below = open_below(group, "inner")
    allow_devices(below, [DeviceRule("c", 1, 11), DeviceRule("c", 1, 3)])
    code = "import os; os.open('/dev/null', 0)"
    assert kit.wait_status(kit.spawn_python(below, code)) == 0
    assert kit.wait_status(kit.spawn_python(below, code.replace("null", "kmsg"))) == 1


def open_below(group: Group, name: str) -> Group:
    """A group below the cgroup2 directory of another."""
    (directory,) = group.plan.dirs
    path = f"{directory.path}/{name}"
    os.makedirs(f"{path}/job")
    return Group(plan=GroupPlan(name=name, dirs=(attrs.evolve(directory, path=path),)))


def test_a_group_without_any_device_control_is_an_error() -> None:
    with pytest.raises(IsolationError):
        allow_devices(Group(plan=GroupPlan(name="g")))


def test_devices_of_a_group_that_is_gone_are_an_error(make: Any, layout: Layout) -> None:
    group = _made(make, layout)
    group.remove()
    with pytest.raises(IsolationError):
        allow_devices(group)


def test_a_list_that_can_not_be_read_is_an_error_and_nothing_is_allowed(tmp_path: Path) -> None:
    # A FAKE group: without its list nobody knows what to take away first.
    (tmp_path / "job").mkdir()
    for name in ("devices.deny", "devices.allow", "job/devices.allow"):
        (tmp_path / name).write_text("")
    with pytest.raises(OSError, match=r"devices\.list"):
        v1.replace_devices(str(tmp_path), str(tmp_path / "job"), ["c 1:3 rw"])
    with pytest.raises(OSError, match=r"devices\.list"):
        v1.list_devices(str(tmp_path))
    assert (tmp_path / "devices.allow").read_text() == ""
