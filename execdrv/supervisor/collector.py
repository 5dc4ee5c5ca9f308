"""Destroying a lost container from its record alone, in a fresh process.

    1. take the container's lock: whoever holds it lives, and is asked instead
    2. end its init and job, if they are the very ones of the record and of this boot
    3. the driver's `destroy`
    4. remove the group, which ends what is in it
    5. end strays, where the driver has neither a group nor a pid namespace to hold them
    6. remove the directory with the record

A record that can't be read still names the container: its group has a name derived from the id.
"""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
from typing import NoReturn

from execdrv import wire
from execdrv.driver import Box, Driver
from execdrv.errors import CleanupError, ExecdrvError, RecordError, StateError
from execdrv.linux import cgroups, procfs
from execdrv.linux.leases import LEASE_BASE, LEASE_COUNT, remove_lease
from execdrv.linux.strays import Mark, end_strays, find_strays
from execdrv.plugins import load_driver
from execdrv.registry import Registry
from execdrv.spec import value_or
from execdrv.state import Record, kernel_name, read_boot_id
from execdrv.supervisor.connection import Peer
from execdrv.supervisor.guard import call_destroy
from execdrv.supervisor.launch import Collect
from execdrv.supervisor.loop import FAREWELL_S, leave_surroundings


def run_collector(request: Collect, *, starter: Peer) -> NoReturn:
    """Be the collector of one container, answer the starter, and exit; in a fresh child process."""
    try:
        leave_surroundings({starter.fileno()})
        try:
            answer = {"ok": collect(request)}
        except Exception as error:
            answer = {"error": wire.encode_error(error)}
        starter.send(answer)
        starter.finish(FAREWELL_S)
    except BaseException:
        with contextlib.suppress(OSError):
            os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(0)


def collect(request: Collect) -> list[str]:
    """Destroy one lost container.

    Returns:
        What was found and ended or removed, in words.
    Raises:
        ContainerNotFoundError: there is none of that id.
        StateError: its supervisor lives.
        CleanupError: something is left; the record is kept.
    """
    registry = Registry(request.root)
    directory = registry.adopt(request.id)
    if directory is None:
        raise StateError(
            f"cannot collect container {request.id!r}: its supervisor lives",
            container=request.id,
            operation="destroy",
        )
    try:
        try:
            record = directory.read()
        except RecordError as error:
            leftovers = _remove_group_by_name(registry.root, request.id)
            done = [str(error)]
        else:
            done, leftovers = _collect_record(registry, record, request)
        leftovers += [] if leftovers else directory.remove()
    finally:
        directory.close()
    if leftovers:
        raise CleanupError(
            f"cannot remove container {request.id!r} wholly: left is {leftovers[0]}",
            container=request.id,
            operation="destroy",
            leftovers=leftovers,
        )
    return done


def _collect_record(
    registry: Registry, record: Record, request: Collect
) -> tuple[list[str], list[str]]:
    """Steps 2 to 5: what was done, and what is left."""
    done: list[str] = []
    this_boot = record.boot_id == read_boot_id()
    if this_boot:
        for process in (record.init, record.job):
            if process is not None and procfs.send_signal(process, signal.SIGKILL):
                done.append(f"process {process.pid}")
    leftovers: list[str] = []
    group = cgroups.open_group(record.group) if record.group is not None else None
    driver: Driver | None = None
    try:
        driver = load_driver(record.driver, plugins=request.plugins)()
    except ExecdrvError as error:
        # Its own traces stay, but nothing that runs.
        leftovers.append(str(error))
    if driver is not None:
        box = _box_of(record, registry.root, group)
        leftovers += call_destroy(driver, box, deadline_s=request.deadline_s)
    if group is not None:
        leftovers += group.remove()
    if this_boot and (group is None or not group.plan.dirs):
        leftovers += _end_strays(registry, record)
    return done, leftovers


def _box_of(record: Record, root: str, group: cgroups.Group | None) -> Box:
    """The box for a `destroy`: no descriptors, no init."""
    return Box(
        id=record.id,
        kernel_name=kernel_name(root, record.id),
        spec=record.spec,
        process=record.process,
        root_mode=value_or(record.spec.root_mode, ""),
        net=value_or(record.spec.net, ""),
        hostname=value_or(record.spec.hostname, record.id),
        root=-1,
        group=group,
        directory=os.fsencode(os.path.join(root, "containers", record.id, "driver")),
        options={**record.driver.options, **value_or(record.spec.driver_options, {})},
        facts=dict(record.facts),
    )


def _remove_group_by_name(root: str, container: str) -> list[str]:
    """The group of a container whose record is unreadable: at its default places."""
    layout = cgroups.detect_layout()
    name = kernel_name(root, container)
    leftovers: list[str] = []
    for hierarchy in layout.hierarchies:
        if hierarchy.own is None:
            continue
        own = hierarchy.own.rstrip("/")
        # On cgroup2 it may stand beside our group, or beside the leaf we moved to.
        for base in dict.fromkeys((own, os.path.dirname(own))):
            if not f"{base}/".startswith(f"{hierarchy.mountpoint.rstrip('/')}/"):
                continue
            directory = cgroups.GroupDir(path=f"{base}/{name}", version=hierarchy.version)
            plan = cgroups.GroupPlan(name=name, dirs=(directory,))
            leftovers += cgroups.open_group(plan).remove()
    return leftovers


def _end_strays(registry: Registry, record: Record) -> list[str]:
    """Step 5: ended only where nobody else can be meant; else named."""
    since = record.init.start_time if record.init is not None else 0
    mark = Mark(
        device=record.root.device,
        inode=record.root.inode,
        uid=record.process.uid,
        since=since or record.supervisor.start_time,
    )
    leased = LEASE_BASE <= record.process.uid < LEASE_BASE + LEASE_COUNT
    machine_root = os.stat("/")
    is_machine_root = (mark.device, mark.inode) == (machine_root.st_dev, machine_root.st_ino)
    if not leased and (is_machine_root or _is_shared_mark(registry, record)):
        found = find_strays(mark)
        return [f"process {stray.pid} (perhaps of another container)" for stray in found]
    left = [f"process {stray.pid}" for stray in end_strays(mark, leased=leased)]
    if leased and not left:
        remove_lease(registry.leases_path, mark.uid)
    return left


def _is_shared_mark(registry: Registry, record: Record) -> bool:
    """Whether another container's processes have the same root and user."""
    for entry in registry.entries():
        other = entry.record
        if other is None or other.id == record.id:
            continue
        if other.root == record.root and other.process.uid == record.process.uid:
            return True
    return False
