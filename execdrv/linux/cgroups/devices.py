"""Which device nodes a group may use: one list of rules, over v1 and v2 alike.

v1 has files (admin-guide/cgroup-v1/devices.rst); cgroup2 has a program for the kernel to ask,
assembled here from the same rules. What no rule allows is refused, mknod too. Runs in the
supervisor.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

import attrs

from execdrv.errors import IsolationError, SpecError
from execdrv.limits import Limits
from execdrv.linux import bpf
from execdrv.linux.cgroups import v1
from execdrv.linux.cgroups.check import check_limits
from execdrv.linux.cgroups.group import Group
from execdrv.linux.cgroups.layout import Layout

#: BPF_DEVCG_DEV_* and BPF_DEVCG_ACC_* of include/uapi/linux/bpf.h.
_KINDS = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}


def _check_rule(self: DeviceRule, _attribute: object, _value: object) -> None:
    numbers = [self.major, 0 if self.minor is None else self.minor]
    in_range = numbers[0] in range(1 << 12) and numbers[1] in range(1 << 20)
    access = set(self.access)
    if self.kind not in _KINDS or not in_range or not access or not access <= set(_ACCESS):
        raise SpecError(
            f"cannot use device rule {str(self)!r}: it is not of the form 'c 1:3 rwm'",
            hint="kind c or b, major 0 to 4095, minor 0 to 1048575 or *, access of r, w, m",
            field="devices",
            value=str(self),
        )


@attrs.frozen(str=False)
class DeviceRule:
    """Leave to use some device nodes.

    Raises:
        SpecError: a part is outside its range.
    """

    kind: Literal["c", "b"]
    #: 0 to 4095.
    major: int
    #: 0 to 1048575; None is every minor.
    minor: int | None
    #: Of r (read), w (write) and m (mknod).
    access: str = attrs.field(default="rw", validator=_check_rule)

    def __str__(self) -> str:
        return f"{self.kind} {self.major}:{'*' if self.minor is None else self.minor} {self.access}"


#: What every job may use; none may be made anew.
DEFAULT_DEVICES = (
    DeviceRule("c", 1, 3),  # null
    DeviceRule("c", 1, 5),  # zero
    DeviceRule("c", 1, 7),  # full
    DeviceRule("c", 1, 8),  # random
    DeviceRule("c", 1, 9),  # urandom
    DeviceRule("c", 5, 0),  # tty
    DeviceRule("c", 5, 2),  # ptmx
    DeviceRule("c", 136, None),  # pts/*
)


def devices_supported(layout: Layout) -> bool:
    """Whether `allow_devices` can work here: v1 devices, or cgroup2 with device programs."""
    return not check_limits(layout, Limits(), devices=True)


def allow_devices(group: Group, rules: Sequence[DeviceRule] = DEFAULT_DEVICES) -> None:
    """Refuse every device to a group but those that a rule allows.

    May be repeated with other rules. Applies to processes inside at once, to open
    descriptors never.

    Args:
        group: a made group, planned with `devices=True`.

    Raises:
        IsolationError: the kernel refused; on v1 the group may be left with fewer devices than
            asked, never with more.
    """
    directory, unified = group.plan.dir_of("devices"), group.plan.unified
    try:
        if directory is not None:
            v1.replace_devices(directory.path, directory.job, [str(rule) for rule in rules])
        elif unified is not None:
            _allow_v2(unified.path, rules)
        else:
            raise IsolationError(
                f"cannot control devices of cgroup {group.plan.name!r}: it was made without",
                hint="mount the v1 controller 'devices' or cgroup2",
            )
    except OSError as error:
        raise IsolationError(
            f"cannot control devices of cgroup {group.plan.name!r}: {error.strerror}",
            hint="a cgroup above may allow fewer devices",
            errno=error.errno,
        ) from error


def _allow_v2(path: str, rules: Sequence[DeviceRule]) -> None:
    program_fd = bpf.load_device_program(assemble_program(rules))
    try:
        group_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            older = bpf.query_device_programs(group_fd)
            # Between the two both must allow: stricter, never laxer.
            bpf.attach_device_program(group_fd, program_fd)
            for program_id in older:
                bpf.detach_device_program(group_fd, program_id)
        finally:
            os.close(group_fd)
    finally:
        os.close(program_fd)


def assemble_program(rules: Sequence[DeviceRule]) -> bytes:
    """A device program: 1 if one rule allows all of the access that is asked, else 0.

    Its argument is struct bpf_cgroup_dev_ctx: access (high half) and kind (low half), major,
    minor, 32 bit each.
    """
    kind, access, major, minor, scratch = 2, 3, 4, 5, 6
    program = [
        bpf.encode(bpf.LOAD_WORD, dst=kind, src=1, offset=0),
        bpf.encode(bpf.MOVE_REGISTER, dst=access, src=kind),
        bpf.encode(bpf.AND, dst=kind, immediate=0xFFFF),
        bpf.encode(bpf.SHIFT_RIGHT, dst=access, immediate=16),
        bpf.encode(bpf.LOAD_WORD, dst=major, src=1, offset=4),
        bpf.encode(bpf.LOAD_WORD, dst=minor, src=1, offset=8),
    ]
    allow = [bpf.encode(bpf.MOVE, dst=0, immediate=1), bpf.encode(bpf.EXIT)]
    for rule in rules:
        granted = sum(_ACCESS[letter] for letter in set(rule.access))
        # Each test is one instruction that leaves the rule; where to, is known at the end.
        tests: list[tuple[int, int, list[bytes]]] = [(kind, _KINDS[rule.kind], [])]
        beyond = [
            bpf.encode(bpf.MOVE_REGISTER, dst=scratch, src=access),
            bpf.encode(bpf.AND, dst=scratch, immediate=~granted & 0xFFFF),
        ]
        tests.append((scratch, 0, beyond))
        tests.append((major, rule.major, []))
        if rule.minor is not None:
            tests.append((minor, rule.minor, []))
        length = sum(len(before) + 1 for _, _, before in tests) + len(allow)
        block: list[bytes] = []
        for register, value, before in tests:
            block += before
            offset = length - len(block) - 1
            block.append(
                bpf.encode(bpf.JUMP_NOT_EQUAL, dst=register, offset=offset, immediate=value)
            )
        program += [*block, *allow]
    program += [bpf.encode(bpf.MOVE, dst=0, immediate=0), bpf.encode(bpf.EXIT)]
    return b"".join(program)
