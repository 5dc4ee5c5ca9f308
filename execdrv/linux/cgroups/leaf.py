"""Room for controllers on cgroup2: our own processes in a leaf, and controllers switched on.

A cgroup2 group other than the root either holds processes or hands controllers down ("no
internal processes", cgroup-v2.rst). So where execdrv alone is in the caller's group, its
processes go to a leaf beside the containers; when the last container is gone they go back. A
lock on the caller's group keeps two supervisors from doing both at once. No process but our
own is moved, no limit of a group that is not ours is changed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator

from execdrv.errors import CreateError
from execdrv.linux.cgroups.control import read_control, write_control
from execdrv.linux.cgroups.plan import WAY_OUT, GroupPlan

#: A process of ours may fork while we move the rest; and one that is dying is not listed any
#: more, can't be moved, and counts until it is dead. Pauses grow from the first to the last.
_PATIENCE_S, _PAUSE_S, _LONGEST_PAUSE_S = 2.0, 0.0002, 0.02


@contextlib.contextmanager
def lock_base(plan: GroupPlan) -> Iterator[str]:
    """Hold the lock of the group in which the leaf stands; gives that group.

    Raises:
        CreateError: it can't be opened.
    """
    base = os.path.dirname(plan.leaf)
    try:
        descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise CreateError(
            f"cannot open cgroup {base!r}: {error.strerror}", errno=error.errno
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield base
    finally:
        os.close(descriptor)


def enter_leaf(plan: GroupPlan) -> None:
    """Make the leaf if it is not there, and move our own processes into it.

    Raises:
        CreateError: somebody else's process is there too, or the kernel refused; some of ours
            may be in the leaf, `leave_leaf` brings them back.
    """
    base = os.path.dirname(plan.leaf)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(plan.leaf, 0o755)
        pids = _read_pids(base)
        foreign = set(pids) - {os.getpid(), *plan.own_pids}
        if foreign:
            raise CreateError(
                f"cannot make room in cgroup {base!r}: process {min(foreign)} is not execdrv's",
                hint=WAY_OUT,
            )
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                write_control(plan.leaf + "/cgroup.procs", str(pid))
    except OSError as error:
        raise CreateError(
            f"cannot move own processes to cgroup {plan.leaf!r}: {error.strerror}",
            errno=error.errno,
        ) from error


def enable_controllers(plan: GroupPlan) -> None:
    """Switch the plan's cgroup2 controllers on in every group above its directory.

    Raises:
        CreateError: naming the group and the controllers.
    """
    unified = plan.unified
    if unified is None or not plan.enable:
        return
    wanted = unified.controllers
    if not _missing(plan.enable[-1], wanted):
        return
    for path in plan.enable:
        missing = _missing(path, wanted)
        if missing:
            _switch_on(plan, path, missing)


def _switch_on(plan: GroupPlan, path: str, controllers: list[str]) -> None:
    text = " ".join(f"+{name}" for name in controllers)
    in_base = bool(plan.leaf) and path == os.path.dirname(plan.leaf)
    try:
        for _ in _tries():
            try:
                write_control(path + "/cgroup.subtree_control", text)
                return
            except OSError as error:
                if error.errno != errno.EBUSY or not in_base:
                    raise
            enter_leaf(plan)
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
    except OSError as error:
        reasons = {
            errno.EBUSY: "it holds processes itself",
            errno.ENOENT: "it has not got them itself",
        }
        reason = reasons.get(error.errno or 0, error.strerror)
        raise CreateError(
            f"cannot switch {' '.join(controllers)!r} on in cgroup {path!r}: {reason}",
            hint=WAY_OUT,
            errno=error.errno,
        ) from error


def _tries() -> Iterator[None]:
    """One turn at once, and more with growing pauses while there is patience."""
    deadline = time.monotonic() + _PATIENCE_S
    pause_s = _PAUSE_S
    yield
    while time.monotonic() < deadline:
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        yield


def _missing(path: str, wanted: tuple[str, ...]) -> list[str]:
    try:
        enabled = read_control(path + "/cgroup.subtree_control").split()
    except OSError as error:
        raise CreateError(
            f"cannot read the controllers of cgroup {path!r}: {error.strerror}", errno=error.errno
        ) from error
    return [name for name in wanted if name not in enabled]


def leave_leaf(plan: GroupPlan) -> list[str]:
    """Give the room back: our processes return to their group, and the leaf goes.

    Nothing happens while another group stands beside the leaf. May be repeated.

    Returns:
        The leaf, if it should have gone and could not.
    """
    try:
        with lock_base(plan) as base:
            return _leave_locked(plan, base)
    except CreateError:
        return []


def _leave_locked(plan: GroupPlan, base: str) -> list[str]:
    with os.scandir(base) as entries:
        groups = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    if groups != [plan.leaf]:
        return []
    try:
        # Whatever is switched on here, we did: the group held processes before.
        enabled = read_control(base + "/cgroup.subtree_control").split()
        if enabled:
            text = " ".join(f"-{name}" for name in enabled)
            write_control(base + "/cgroup.subtree_control", text)
        for _ in _tries():
            for pid in _read_pids(plan.leaf):
                with contextlib.suppress(ProcessLookupError):
                    write_control(base + "/cgroup.procs", str(pid))
            try:
                os.rmdir(plan.leaf)
                return []
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
    except FileNotFoundError:
        return []
    except OSError:
        pass
    return [plan.leaf]


def _read_pids(path: str) -> list[int]:
    return [int(pid) for pid in read_control(path + "/cgroup.procs").split()]
