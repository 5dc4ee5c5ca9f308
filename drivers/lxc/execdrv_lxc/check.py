"""Why an lxc container can't be made: on this machine at all, or for this box.

Changes nothing. Runs in a supervisor, or for `detect_obstacle` in any process.
"""

from __future__ import annotations

from collections.abc import Iterable

from execdrv.driver import Box, Refusal
from execdrv.errors import ExecdrvError
from execdrv.linux import cgroups, obstacle
from execdrv.linux.capabilities import capability_mask, capability_names
from execdrv.linux.target import find_problems
from execdrv.linux.view import plan_mounts
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
        *_check_mounts(box),
        *_check_capabilities(box),
        *_check_groups(box),
    ]


def _check_modes(box: Box) -> Iterable[Refusal]:
    if box.root_mode not in ("private", "read-only", "direct"):
        message = f"cannot use root mode {box.root_mode!r}: the lxc driver has no such mode"
        yield Refusal(message=message, field="root_mode")
    if box.net not in ("none", "host"):
        message = f"cannot use network {box.net!r}: the lxc driver has none and host"
        yield Refusal(message=message, field="net")
    if box.root_mode == "private" and not obstacle.detect_overlay():
        yield Refusal(
            message="cannot keep the root private: this machine's kernel has no overlay",
            hint="load the module (modprobe overlay), or use --root-mode read-only",
            field="root_mode",
            guarantee="fs.write-private",
        )
    if not (box.hostname.isascii() and box.hostname.isprintable()):
        message = f"cannot use host name {box.hostname!r}: it is not plain text"
        yield Refusal(message=message, field="hostname", guarantee="uts.hostname")


def _check_mounts(box: Box) -> Iterable[Refusal]:
    problems = find_problems(
        plan_mounts(tmpfs=value_or(box.spec.tmpfs, ()), binds=value_or(box.spec.binds, ())),
        root=box.root,
        sources=box.bind_sources,
        root_is_own=box.root_mode == "private",
    )
    return [
        Refusal(message=problem.message, hint=problem.hint, field=problem.field)
        for problem in problems
    ]


def _check_capabilities(box: Box) -> Iterable[Refusal]:
    for name in capability_names(box.process.bounding & ~obstacle.detect_bounding()):
        yield Refusal(
            message=f"cannot give capability {name}: execdrv does not have it itself",
            hint=f"leave it out: --cap-drop {name}",
            field="cap_add",
            guarantee="cap.bounding",
        )
    if box.process.bounding & _REBOOT:
        yield Refusal(
            message="cannot give capability SYS_BOOT: liblxc would start the container anew when "
            "its job calls reboot",
            hint="leave it out: --cap-drop SYS_BOOT, or use the native driver",
            field="cap_add",
            guarantee="cap.bounding",
        )
    makes_nodes = box.process.bounding & capability_mask(["MKNOD"])
    if makes_nodes and not cgroups.devices_supported(cgroups.detect_layout()):
        yield Refusal(
            message="cannot give capability MKNOD: this machine has no device control, so the "
            "job could open its disks",
            field="cap_add",
            guarantee="dev.no-disk",
        )


def _check_groups(box: Box) -> Iterable[Refusal]:
    layout = cgroups.detect_layout()
    problems = cgroups.check_limits(
        layout,
        box.spec.limits,
        parent=None if box.spec.cgroup_parent is UNSET else box.spec.cgroup_parent,
        devices=cgroups.devices_supported(layout),
    )
    return [_refusal_of(problem) for problem in problems]


def _refusal_of(error: ExecdrvError) -> Refusal:
    fields = error.fields()
    return Refusal(
        message=error.message,
        hint=error.hint,
        field=fields.get("field", ""),
        guarantee=fields.get("guarantee", ""),
    )
