"""The monitor: the process below the supervisor in which liblxc runs, and the container's parent.

liblxc's start blocks for as long as the container lives. It is given a place where it finds
nothing of the machine: a small root of its own in a mount namespace of its own, without cgroups
(liblxc moves its caller into groups of its own choice, for good, and leaves them behind), without
/run (it leaves locks there), without configuration files. All that ends with this process.

    1. supervisor  opens what is needed, spawns the monitor
    2. monitor     arranges descriptors, starts the companion; builds the container's root and its
                   own, and enters its own
    3. monitor     configures liblxc, enters the cgroup namespace which the companion has made
    4. monitor     ends its report, so that the supervisor's spawn returns; starts liblxc
    5. liblxc      makes the container and executes the init, which tells the supervisor READY
    6. supervisor  places the init in the container's group and sends the companion its pid
    7. companion   takes from the monitor what only the job should have, finishes the mounts (see
                   companion.py), and ends; the supervisor's isolate returns

The monitor dies with the supervisor, the init with the monitor.
"""

from __future__ import annotations

import gc
import os
import signal
from typing import Any, Final, NoReturn

import attrs

from execdrv.driver import Box
from execdrv.linux.layer import enter_root, explained, make_layer, make_scratch
from execdrv.linux.mounts import apply_steps, clone_tree
from execdrv.linux.spawn import arrange_fds, end_report
from execdrv.linux.syscalls import (
    CLONE_NEWCGROUP,
    MS_PRIVATE,
    MS_REC,
    PR_SET_PDEATHSIG,
    mount,
    mount_setattr,
    move_mount,
    prctl,
    setns,
)
from execdrv_lxc import binding
from execdrv_lxc.companion import Task, receive_namespace, start_companion
from execdrv_lxc.config import MOUNT, ROOT, plan_items
from execdrv_lxc.view import View

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
    #: A copy of the root's mount (execdrv.linux.layer.clone_root), and of each bind's source.
    root_tree: int
    bind_trees: tuple[int, ...]
    #: Whether writes go to a layer that ends with the container, and the root stays as it is.
    private: bool
    #: MOUNT_ATTR_* of the private layer's mount.
    attributes: int
    view: View


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
    gc.disable()  # a collection would touch, and so copy, every page of the supervisor's heap
    _forget_handlers()
    os.setsid()  # or a signal of the terminal would reach liblxc, which passes it on to the init
    os.umask(0)
    walls = _arrange(walls)
    companion = start_companion(
        Task(
            procs_fds=walls.procs_fds,
            orders=walls.orders,
            reports=walls.reports,
            null=walls.null,
            taken=(0, 1, 2, *walls.passed, walls.gate, walls.memfd),
            view=walls.view,
        )
    )
    # Meanwhile: to join a group takes as long as the kernel's readers of it do.
    with explained("prepare the root for liblxc"):
        scratch = _build_roots(walls, box.directory, lxcpath)
        enter_root(scratch)
    container = binding.make_container(box.kernel_name, lxcpath, plan_items(box, log_fd=walls.log))
    cgroup_namespace = receive_namespace(companion)
    with explained("enter the container's cgroup namespace"):
        setns(cgroup_namespace, CLONE_NEWCGROUP)
    for number, fd in enumerate(walls.stdio):
        os.dup2(fd, number)
    for fd in (*walls.stdio, cgroup_namespace, *walls.procs_fds, scratch):
        os.close(fd)
    end_report()
    argv = (f"/proc/self/fd/{walls.memfd}", str(walls.gate))
    os._exit(0 if binding.run(container, argv) else 125)


def _forget_handlers() -> None:
    """Leave nothing of the supervisor's signal handling that does harm here.

    Its handlers write to a descriptor whose number is another's here; and where SIGCHLD is
    ignored, liblxc can't wait for its child.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _arrange(walls: Walls) -> Walls:
    """Only what is needed stays open, at numbers that the job does not want."""
    single = ("memfd", "gate", "null", "log", "orders", "reports", "root_tree")
    groups = ("stdio", "procs_fds", "bind_trees")
    keep = [getattr(walls, name) for name in single]
    for name in groups:
        keep += getattr(walls, name)
    # What liblxc writes to its own stderr is no output of the job; the job's come in the end.
    kept = iter(
        arrange_fds(stdio=(walls.null, walls.log, walls.log), passed=walls.passed, keep=keep)
    )
    moved: dict[str, Any] = {name: next(kept) for name in single}
    moved |= {name: tuple(next(kept) for _ in getattr(walls, name)) for name in groups}
    for name in ("null", "log", "orders", "reports"):
        os.set_inheritable(moved[name], False)
    for fd in (*moved["stdio"], *moved["procs_fds"], *moved["bind_trees"], moved["root_tree"]):
        os.set_inheritable(fd, False)
    return attrs.evolve(walls, **moved)


# --- the container's root, and the monitor's ---------------------------------------------------


def _build_roots(walls: Walls, directory: bytes, lxcpath: str) -> int:
    """Step 2, in a mount namespace that came with the clone.

    Returns:
        A descriptor of the monitor's root: a tmpfs on the container's own directory, in which the
        container's stands as ROOT.
    """
    # Before anything else: where the machine's root is shared, our mounts would show there.
    mount(None, b"/", flags=MS_REC | MS_PRIVATE)
    scratch = make_scratch(directory)
    for name in (*_PLACES, ROOT[1:].encode(), lxcpath[1:].encode()):
        os.mkdir(name, 0o755, dir_fd=scratch)
    proc = os.open(b"/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    proc_tree = clone_tree(proc, attributes=0, recursive=False)
    move_mount(proc_tree, scratch, b"proc")
    root = walls.root_tree
    if walls.private:
        root = make_layer(scratch, below=root, attributes=walls.attributes)
    move_mount(root, scratch, ROOT[1:].encode())
    apply_steps(
        walls.view.steps,
        root=root,
        trees=walls.bind_trees,
        covers=scratch,
        root_is_own=walls.private,
    )
    mount_setattr(root, attr_set=walls.view.root_attributes)
    for fd in {proc, proc_tree, root, walls.root_tree, *walls.bind_trees}:
        os.close(fd)
    return scratch
