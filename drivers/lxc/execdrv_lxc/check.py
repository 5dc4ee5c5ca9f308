"""Why an lxc container can't be made: on this machine at all, or for this box.

Changes nothing. Runs in a supervisor, or for `detect_obstacle` in any process.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from execdrv.driver import Box, Refusal
from execdrv.linux import check, obstacle
from execdrv.linux.capabilities import capability_mask
from execdrv.spec import UNSET, value_or
from execdrv_lxc import binding

#: liblxc takes a reboot(2) of the job for the wish to have its init started once more.
_REBOOT = capability_mask(["SYS_BOOT"])


def detect_obstacle() -> str | None:
    """Why no lxc container can be made here, in one line with the way out; or None."""
    return (
        binding.detect_obstacle() or obstacle.detect_obstacle() or obstacle.detect_root_obstacle()
    )


def list_refusals(box: Box) -> list[Refusal]:
    """Everything that stands against a box."""
    found = detect_obstacle()
    if found is not None:
        return [Refusal(message=f"cannot run an lxc container: {found}")]
    return [
        *_check_modes(box),
        *_refusals_of(check.check_overlay(box.root_mode)),
        *_check_hostname(box),
        *_refusals_of(
            check.check_mounts(
                tmpfs=value_or(box.spec.tmpfs, ()),
                binds=value_or(box.spec.binds, ()),
                root=box.root,
                sources=box.bind_sources,
                root_is_own=box.root_mode == "private",
            )
        ),
        *_refusals_of(check.check_bounding(box.process.bounding)),
        *_check_reboot(box),
        *_refusals_of(check.check_node_making(box.process.bounding, layout=box.layout)),
        *_refusals_of(
            check.check_groups(
                box.layout,
                box.spec.limits,
                parent=None if box.spec.cgroup_parent is UNSET else box.spec.cgroup_parent,
            )
        ),
    ]


def _refusals_of(problems: Iterable[check.Problem]) -> Iterable[Refusal]:
    return (Refusal(**attrs.asdict(problem)) for problem in problems)


def _check_modes(box: Box) -> Iterable[Refusal]:
    if box.root_mode not in ("private", "read-only", "direct"):
        message = f"cannot use root mode {box.root_mode!r}: the lxc driver has no such mode"
        yield Refusal(message=message, field="root_mode")
    if box.net not in ("none", "host"):
        message = f"cannot use network {box.net!r}: the lxc driver has none and host"
        yield Refusal(message=message, field="net")


def _check_hostname(box: Box) -> Iterable[Refusal]:
    if not (box.hostname.isascii() and box.hostname.isprintable()):
        message = f"cannot use host name {box.hostname!r}: it is not plain text"
        yield Refusal(message=message, field="hostname", guarantee="uts.hostname")


def _check_reboot(box: Box) -> Iterable[Refusal]:
    if box.process.bounding & _REBOOT:
        yield Refusal(
            message="cannot give capability SYS_BOOT: liblxc would start the container anew when "
            "its job calls reboot",
            hint="leave it out: --cap-drop SYS_BOOT, or use the native driver",
            field="cap_add",
            guarantee="cap.bounding",
        )
