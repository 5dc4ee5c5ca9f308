"""A container before it is made: its box, its groups, its first record, what stands against it.

    box       the spec with every default resolved, and the machine's cgroup hierarchies
    refusals  everything for which it can't be made
    group     the groups it would get, by their paths
    record    what is written before anything is made

Looks at the machine and at the state directory, and changes nothing. Runs in the supervisor.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from execdrv import wire
from execdrv.driver import Box, Driver, Refusal
from execdrv.errors import ExecdrvError
from execdrv.linux import cgroups, procfs
from execdrv.linux.leases import LEASE_BASE
from execdrv.linux.procfs import ProcessId
from execdrv.registry import Registry
from execdrv.state import Record, Root, now, read_boot_id
from execdrv.supervisor import assemble, refusals
from execdrv.supervisor.launch import Launch


class Draft:
    """What would be made of a launch by a driver.

    Args:
        launch: what was asked.
        driver: the driver's one instance.
        fds: the caller's descriptors by name (execdrv.supervisor.launch.open_descriptors).
        registry: the state directory, for the supervisors that stand beside this one.
    """

    def __init__(
        self, launch: Launch, driver: Driver, fds: Mapping[str, int], registry: Registry
    ) -> None:
        self._launch = launch
        self._driver = driver
        self._fds = fds
        self._registry = registry

    @property
    def needs_lease(self) -> bool:
        """Whether the container gets a uid of its own."""
        return assemble.needs_lease(self._launch.spec, type(self._driver).defaults)

    def assemble_box(self, *, leased_id: int = LEASE_BASE) -> Box:
        """The box, without what must be made for it.

        Args:
            leased_id: the uid of its own, where it needs one; by default one that stands for any.
        Raises:
            SpecError, UnsupportedError: a value can't be resolved.
        """
        box = assemble.assemble_box(
            self._launch,
            type(self._driver),
            self._fds,
            leased_id=leased_id if self.needs_lease else None,
        )
        return attrs.evolve(box, layout=self._detect_layout())

    def _detect_layout(self) -> cgroups.Layout:
        """The cgroup hierarchies; on cgroup2, which processes beside us are execdrv's own.

        A group there may have controllers or processes, not both: our own processes can make way,
        other people's can't (execdrv.linux.cgroups.plan).
        """
        ours = {os.getpid(), os.getppid(), self._launch.caller_pid}
        layout = cgroups.detect_layout(ours=tuple(ours))
        if layout.unified_group is None or not layout.unified_group.foreign:
            return layout
        for entry in self._registry.entries():
            if entry.alive and entry.record is not None:
                ours.add(entry.record.supervisor.pid)
        return cgroups.detect_layout(ours=tuple(ours))

    def list_refusals(self, box: Box) -> list[Refusal]:
        """Everything that stands against it; runs the driver's `check`."""
        facts = refusals.spec_facts(box.spec, type(self._driver), uid=box.process.uid)
        return refusals.list_refusals(
            box, self._driver, facts=facts, shared_root=self._launch.shared_root
        )

    def plan_group(self, box: Box) -> cgroups.GroupPlan | None:
        """Its groups; None where neither the driver nor a limit needs one.

        Raises:
            UnsupportedError: the limits can't be kept in this machine's hierarchies.
        """
        uses_group = type(self._driver).uses_group
        if not uses_group and not box.spec.limits.names():
            return None
        return cgroups.plan_group(
            box.layout,
            box.kernel_name,
            parent=box.spec.cgroup_parent or None,
            limits=box.spec.limits,
            devices=uses_group and cgroups.devices_supported(box.layout),
            everywhere=uses_group,
        )

    def first_record(self, box: Box, group: cgroups.GroupPlan | None) -> Record:
        """The record that names everything before it is made; this process is the supervisor."""
        root = os.fstat(box.root)
        supervisor = procfs.detect_process(os.getpid())
        return Record(
            boot_id=read_boot_id(),
            id=box.id,
            state="creating",
            driver=self._launch.driver,
            spec=box.spec,
            created_at=now(),
            supervisor=supervisor or ProcessId(pid=os.getpid(), start_time=0),
            root=Root(path=self._launch.rootfs, device=root.st_dev, inode=root.st_ino),
            process=box.process,
            group=group,
        )

    def describe(self, box: Box, found: Sequence[Refusal]) -> dict[str, Any]:
        """A box, its groups and the refusals that were found for it, as plain data."""
        plan: dict[str, Any] = {
            "id": box.id,
            "driver": self._driver.name,
            "rootfs": wire.encode(self._launch.rootfs),
            "root_mode": box.root_mode,
            "net": box.net,
            "hostname": box.hostname,
            "process": wire.encode(box.process),
            "limits": wire.encode(box.spec.limits),
            "refusals": wire.encode(found),
        }
        with contextlib.suppress(ExecdrvError):
            plan["group"] = wire.encode(self.plan_group(box))
        return plan
