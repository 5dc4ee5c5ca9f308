"""The monitor: the process below the supervisor in which liblxc runs, and the container's parent.

liblxc's start blocks for as long as the container lives. It is given a place where it finds
nothing of the machine: a small root of its own in a mount namespace of its own, without cgroups
(liblxc moves its caller into groups of its own choice, for good, and leaves them behind), without
/run (it leaves locks there), without configuration files. All that ends with this process.

    1. supervisor  opens what is needed, spawns the monitor
    2. monitor     arranges descriptors, builds the container's root and its own, enters its own
    3. monitor     starts the companion, and enters the cgroup namespace which that has made
    4. monitor     configures liblxc; the supervisor's spawn returns; starts liblxc
    5. liblxc      makes the container and executes the init, which tells the supervisor READY
    6. supervisor  places the init in the container's group and sends the companion its pid
    7. companion   takes from the monitor what only the job should have, finishes the mounts (see
                   companion.py), and ends; the supervisor's isolate returns

The monitor dies with the supervisor, the init with the monitor.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from collections.abc import Iterator, Sequence
from typing import Any, Final, NoReturn

import attrs

from execdrv.driver import Box
from execdrv.errors import IsolationError
from execdrv.linux.mounts import MountStep, apply_steps, clone_tree, explain, make_fs
from execdrv.linux.spawn import arrange_fds, end_report
from execdrv.linux.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWNS,
    MNT_DETACH,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    MS_REC,
    PR_SET_PDEATHSIG,
    mount,
    mount_id,
    mount_setattr,
    move_mount,
    pivot_root,
    prctl,
    setns,
    umount2,
    unshare,
)
from execdrv_lxc import binding, companion
from execdrv_lxc.config import MOUNT, ROOT, plan_items

#: What liblxc looks for in the monitor's root.
_PLACES: Final = (b"proc", b"run", b"sys", b"sys/fs", b"sys/fs/cgroup", MOUNT[1:].encode())


@attrs.frozen(kw_only=True)
class Walls:
    """All that the monitor needs; every descriptor is open already."""

    #: execdrv-init and its end of the gate.
    memfd: int
    gate: int
    #: The job's descriptors.
    stdio: tuple[int, int, int]
    passed: dict[int, int]
    #: /dev/null, and what liblxc's errors are written to.
    null: int
    log: int
    #: Where the companion hears and speaks (see companion.py).
    orders: int
    reports: int
    #: A cgroup.procs of each hierarchy.
    procs_fds: tuple[int, ...]
    #: A copy of the root's mount (execdrv.linux.mounts.clone_tree), and of each bind's source.
    root_tree: int
    bind_trees: tuple[int, ...]
    #: Whether writes go to a layer that ends with the container, and the root stays as it is.
    private: bool
    #: MOUNT_ATTR_* of the private layer's mount.
    attributes: int
    steps: tuple[MountStep, ...]
    companion_steps: tuple[MountStep, ...]


def run_monitor(walls: Walls, box: Box, *, supervisor: int, lxcpath: str) -> NoReturn:
    """Steps 2 to 5, in a child of the supervisor.

    Args:
        supervisor: its pid.
        lxcpath: a name in the monitor's root that no other container has.
    Raises:
        IsolationError, OSError: the child must end; nothing was started.
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(125)
    os.setsid()  # or a signal of the terminal would reach liblxc, which passes it on to the init
    os.umask(0)
    walls = _arrange(walls)
    with _doing("prepare the root for liblxc"):
        scratch = _build_roots(walls, box.directory, lxcpath)
        _enter_root(scratch)
    cgroup_namespace = companion.start(
        procs_fds=walls.procs_fds,
        orders=walls.orders,
        reports=walls.reports,
        null=walls.null,
        # The job's, which the monitor must not keep: who reads from a pipe waits for its end.
        taken=(0, 1, 2, *walls.passed, walls.gate, walls.memfd),
        steps=walls.companion_steps,
        writable=not box.root_mode == "read-only",
    )
    with _doing("enter the container's cgroup namespace"):
        setns(cgroup_namespace, CLONE_NEWCGROUP)
    container = binding.make_container(
        box.kernel_name, lxcpath, plan_items(box, log_fd=walls.log)
    )
    for number, fd in enumerate(walls.stdio):
        os.dup2(fd, number)
    for fd in (*walls.stdio, cgroup_namespace, *walls.procs_fds, scratch):
        os.close(fd)
    end_report()
    argv = (f"/proc/self/fd/{walls.memfd}", str(walls.gate))
    os._exit(0 if binding.run(container, argv) else 125)


def _arrange(walls: Walls) -> Walls:
    """Only what is needed stays open, at numbers that the job does not want."""
    single = ("memfd", "gate", "null", "log", "orders", "reports", "root_tree")
    groups = ("stdio", "procs_fds", "bind_trees")
    keep = [getattr(walls, name) for name in single]
    for name in groups:
        keep += getattr(walls, name)
    # What liblxc writes to its own stderr is no output of the job; the job's come in the end.
    kept = iter(arrange_fds(stdio=(walls.null, walls.log, walls.log), passed=walls.passed, keep=keep))
    moved: dict[str, Any] = {name: next(kept) for name in single}
    moved |= {name: tuple(next(kept) for _ in getattr(walls, name)) for name in groups}
    for name in ("null", "log", "orders", "reports"):
        os.set_inheritable(moved[name], False)
    for fd in (*moved["stdio"], *moved["procs_fds"], *moved["bind_trees"], moved["root_tree"]):
        os.set_inheritable(fd, False)
    return attrs.evolve(walls, **moved)


@contextlib.contextmanager
def _doing(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise IsolationError(f"cannot {what}: {explain(error)}", errno=error.errno) from error
