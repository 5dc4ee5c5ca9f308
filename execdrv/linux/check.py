"""What this machine, or execdrv's own process, lacks for a container with walls.

Looks only, and the same looks for every driver that makes mounts, namespaces and groups; what one
driver alone can't do, it says itself. Nothing here knows boxes or refusals: values come in, and
problems go out, in words that a user can act on. Runs in a supervisor, before `create`.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from execdrv.limits import Limits
from execdrv.linux import cgroups, obstacle
from execdrv.linux.capabilities import capability_mask, capability_names
from execdrv.linux.target import find_problems
from execdrv.linux.view import plan_mounts
from execdrv.spec import Bind, Tmpfs


@attrs.frozen(kw_only=True)
class Problem:
    """Something that can't be had; its fields are those of execdrv.driver.Refusal."""

    #: One line: what can't be done and why.
    message: str
    #: What to do instead, one line.
    hint: str = ""
    #: The spec's field at fault, and the guarantee that can't be kept, where there is one.
    field: str = ""
    guarantee: str = ""


def check_overlay(root_mode: str) -> list[Problem]:
    """Whether the kernel has what a private root takes (execdrv.linux.layer.make_layer).

    Args:
        root_mode: private, read-only or direct.
    """
    if root_mode != "private" or obstacle.detect_overlay():
        return []
    return [
        Problem(
            message="cannot keep the root private: this machine's kernel has no overlay",
            hint="load the module (modprobe overlay), or use --root-mode read-only",
            field="root_mode",
            guarantee="fs.write-private",
        )
    ]


def check_mounts(
    *,
    tmpfs: Sequence[Tmpfs],
    binds: Sequence[Bind],
    root: int,
    sources: Sequence[int],
    root_is_own: bool,
) -> list[Problem]:
    """Every mount of the view (execdrv.linux.view) that would find no place in this root.

    Args:
        tmpfs, binds: what was asked.
        root, sources: descriptors of the root and of each bind's source.
        root_is_own: whether missing mount points may be created in the root.
    """
    problems = find_problems(
        plan_mounts(tmpfs=tmpfs, binds=binds), root=root, sources=sources, root_is_own=root_is_own
    )
    return [
        Problem(message=problem.message, hint=problem.hint, field=problem.field)
        for problem in problems
    ]


def check_bounding(bounding: int) -> list[Problem]:
    """Every capability of a job that this process can't give (capabilities(7), bounding set).

    Args:
        bounding: bit mask of what the job may have.
    """
    return [
        Problem(
            message=f"cannot give capability {name}: execdrv does not have it itself",
            hint=f"leave it out: --cap-drop {name}",
            field="cap_add",
            guarantee="cap.bounding",
        )
        for name in capability_names(bounding & ~obstacle.detect_bounding())
    ]


def check_node_making(bounding: int, *, layout: cgroups.Layout) -> list[Problem]:
    """Whether a job that may make device nodes (mknod(2)) can be kept from those of the machine.

    Args:
        bounding: bit mask of the capabilities that the job may have.
        layout: what `detect_layout` saw.
    """
    if not bounding & capability_mask(["MKNOD"]) or cgroups.devices_supported(layout):
        return []
    return [
        Problem(
            message="cannot give capability MKNOD: this machine has no device control, so the "
            "job could open its disks",
            field="cap_add",
            guarantee="dev.no-disk",
        )
    ]


def check_groups(layout: cgroups.Layout, limits: Limits, *, parent: str | None) -> list[Problem]:
    """Everything that is missing for a group with these limits, and device control where it works.

    Args:
        layout: what `detect_layout` saw.
        limits: what was asked.
        parent: the group that was asked to make it in; None: execdrv's own.
    """
    errors = cgroups.check_limits(
        layout, limits, parent=parent, devices=cgroups.devices_supported(layout)
    )
    return [
        Problem(
            message=error.message,
            hint=error.hint,
            field=error.fields().get("field", ""),
            guarantee=error.fields().get("guarantee", ""),
        )
        for error in errors
    ]
