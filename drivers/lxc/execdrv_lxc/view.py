"""What an lxc container's file system view consists of, and who makes which part of it.

The view is that of every driver with a mount namespace (execdrv.linux.view); but a procfs shows
the pid namespace of the process that mounts it, so here three do it in turn:

    monitor     everything but /proc, before liblxc starts (`plan_monitor_steps`)
    liblxc      binds that into the container's mount namespace, and mounts /proc
    companion   covers what tells of the machine there, and lifts what `HELD_BACK` says
                (`plan_companion_steps`)

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from execdrv.linux.mounts import INERT, Cover, MountStep, NewFs, Protect
from execdrv.linux.syscalls import MOUNT_ATTR_NODEV, MOUNT_ATTR_RDONLY
from execdrv_native import look, machine
from execdrv_native.plan import plan_mounts

#: A mount point for /proc which the rootfs can't change, and on which nobody may ask for a mount.
#: Not a tmpfs: execdrv.linux.mounts guards all others.
_PLACEHOLDER: Final = NewFs(
    target=b"/proc", fstype=b"ramfs", attributes=INERT, options=((b"mode", b"555"),)
)

#: What liblxc must not find, by mount: it changes the mode of the job's stdin, stdout and stderr
#: to 0700 where it can open /dev/null (fix_stdio_permissions), and makes a file `.lxc_keep` in a
#: root that it can write to.
HELD_BACK: Final = {b"/": MOUNT_ATTR_RDONLY, b"/dev": MOUNT_ATTR_NODEV}


def plan_monitor_steps(steps: Sequence[MountStep]) -> tuple[MountStep, ...]:
    """The part of a whole view's steps that is done before liblxc starts."""
    return tuple(_hold_back(step) for step in steps if not isinstance(step, Cover | Protect))


def plan_companion_steps(steps: Sequence[MountStep]) -> tuple[Cover | Protect, ...]:
    """The part that is done when liblxc has mounted /proc."""
    return tuple(step for step in steps if isinstance(step, Cover | Protect))


def plan_release(root_mode: str) -> dict[bytes, int]:
    """What is taken away again of `HELD_BACK` in the end: MOUNT_ATTR_* by mount point."""
    return {
        target: attributes
        for target, attributes in HELD_BACK.items()
        if not (target == b"/" and root_mode == "read-only")
    }


def _hold_back(step: MountStep) -> MountStep:
    if not isinstance(step, NewFs) or step.asked:
        return step
    if step.target == _PLACEHOLDER.target:
        return _PLACEHOLDER
    return attrs.evolve(step, attributes=step.attributes | HELD_BACK.get(step.target, 0))


__all__ = [
    "HELD_BACK",
    "look",
    "machine",
    "plan_companion_steps",
    "plan_monitor_steps",
    "plan_mounts",
    "plan_release",
]
