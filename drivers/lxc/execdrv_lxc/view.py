"""What an lxc container's file system view consists of, and who makes which part of it.

The view is that of every driver that mounts (execdrv.linux.view); but a procfs shows the pid
namespace of the process that mounts it, so here three make it in turn:

    monitor     everything but /proc and /dev/pts, before liblxc starts
    liblxc      binds that into the container's mount namespace, and mounts /proc
    companion   covers what tells of the machine there, mounts /dev/pts, releases what was held
                back

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from execdrv.linux.mounts import INERT, Cover, MountStep, NewFs, Protect
from execdrv.linux.syscalls import MOUNT_ATTR_NODEV, MOUNT_ATTR_RDONLY
from execdrv.linux.view import plan_mounts
from execdrv.spec import Bind, Tmpfs

#: Whose mounts come last. Until then something holds their place which the rootfs can't change,
#: and on which nobody may ask for a mount (not a tmpfs: execdrv.linux.mounts guards all others).
#: liblxc itself unmounts what is on /dev/pts where it makes no terminals.
_LATE: Final = (b"/proc", b"/dev/pts")

#: MOUNT_ATTR_* that keep liblxc from harm: it makes a file `.lxc_keep` in a root that it can write
#: to, and where it can open /dev/null, it sets the mode of the job's stdin, stdout and stderr to
#: 0700 (fix_stdio_permissions), whatever files or terminals of the caller's those are.
_HELD_BACK: Final = {b"/": MOUNT_ATTR_RDONLY, b"/dev": MOUNT_ATTR_NODEV}


@attrs.frozen(kw_only=True)
class View:
    """Who makes what, in this order."""

    #: The monitor's part, and what it then adds to the root's own mount: MOUNT_ATTR_*.
    steps: tuple[MountStep, ...]
    root_attributes: int = _HELD_BACK[b"/"]
    #: The companion's: covers over parts of /proc, the devpts, and what it takes away again:
    #: MOUNT_ATTR_* by mount point.
    guards: tuple[Cover | Protect, ...]
    terminals: NewFs
    released: dict[bytes, int]


def plan_view(*, tmpfs: Sequence[Tmpfs], binds: Sequence[Bind], root_mode: str) -> View:
    """The whole view.

    Args:
        tmpfs, binds: what was asked.
        root_mode: private, read-only or direct.
    """
    steps = plan_mounts(tmpfs=tmpfs, binds=binds)
    fixed = {step.target: step for step in steps if isinstance(step, NewFs) and not step.asked}
    released = dict(_HELD_BACK)
    if root_mode == "read-only":
        del released[b"/"]
    return View(
        steps=tuple(_hold_back(step) for step in steps if not isinstance(step, Cover | Protect)),
        guards=tuple(step for step in steps if isinstance(step, Cover | Protect)),
        terminals=fixed[b"/dev/pts"],
        released=released,
    )


def _hold_back(step: MountStep) -> MountStep:
    if not isinstance(step, NewFs) or step.asked:
        return step
    if step.target in _LATE:
        return NewFs(
            target=step.target, fstype=b"ramfs", options=((b"mode", b"555"),), attributes=INERT
        )
    return attrs.evolve(step, attributes=step.attributes | _HELD_BACK.get(step.target, 0))
