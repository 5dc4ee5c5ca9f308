"""Mutants of somebody who had not read the checks: what a driver may well do, found by thinking."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

import attrs

from execdrv.driver import Box, Isolated
from execdrv.limits import Limits, Receipt
from execdrv.linux.cgroups import stats
from execdrv.linux.cgroups.control import Journal, read_keyed, write_control
from execdrv.linux.mounts import INERT, clone_tree
from execdrv.linux.procfs import ProcessId
from execdrv.linux.step import Attach, MakeNode, NewFs
from execdrv.linux.syscalls import (
    CLONE_NEWNET,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    setns,
)
from execdrv.spec import value_or
from execdrv.supervisor import owner
from execdrv_mutants.change import change, change_walls, with_order
from execdrv_mutants.leak import state_directory
from execdrv_native import child as native_child
from execdrv_native import driver as native
from execdrv_native.child import Walls
from execdrv_native.driver import NativeDriver


class BareSysfs(NativeDriver):
    """Mounts a read-only sysfs, and forgets that it needs masks as /proc does."""

    name = "bare-sysfs"

    def __init__(self) -> None:
        def add(walls: Walls, _box: Box, _opened: contextlib.ExitStack) -> Walls:
            sysfs = NewFs(target=b"/sys", fstype=b"sysfs", attributes=INERT | MOUNT_ATTR_RDONLY)
            return attrs.evolve(walls, steps=(*walls.steps[:-1], sysfs, walls.steps[-1]))

        change_walls(add)


class StagedBinds(NativeDriver):
    """Stages each bind's source below /.staged, and forgets to take that away."""

    name = "staged-binds"

    def __init__(self) -> None:
        change_walls(self._stage)

    @staticmethod
    def _stage(walls: Walls, box: Box, opened: contextlib.ExitStack) -> Walls:
        if not walls.private:
            return walls
        trees, steps = list(walls.bind_trees), []
        for number, source in enumerate(box.bind_sources):
            plain = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
            tree = clone_tree(source, attributes=plain, recursive=True)
            opened.callback(os.close, tree)
            steps.append(Attach(target=b"/.staged/%d" % number, tree=len(trees)))
            trees.append(tree)
        return attrs.evolve(
            walls, steps=(*walls.steps[:-1], *steps, walls.steps[-1]), bind_trees=tuple(trees)
        )


class StagedRoBinds(NativeDriver):
    """Stages only read-only binds (to make them read-only there), and leaves the stage writable."""

    name = "staged-ro-binds"

    def __init__(self) -> None:
        change_walls(self._stage)

    @staticmethod
    def _stage(walls: Walls, box: Box, opened: contextlib.ExitStack) -> Walls:
        binds = value_or(box.spec.binds, ())
        kept = tuple(s for b, s in zip(binds, box.bind_sources, strict=True) if b.read_only)
        return StagedBinds._stage(walls, attrs.evolve(box, bind_sources=kept), opened)


class NetOfSibling(NativeDriver):
    """Takes the network namespace of a container that runs already."""

    name = "net-of-sibling"

    def isolate(self, box: Box) -> Isolated:
        fd = _sibling_network() if box.net == "none" else None
        if fd is None:
            return super().isolate(box)
        build = native.build_walls

        def enter_and_build(walls: Walls) -> None:
            setns(fd, CLONE_NEWNET)
            build(walls)

        change(native, build_walls=enter_and_build, CLONE_NEWNET=0)
        try:
            return super().isolate(box)
        finally:
            change(native, build_walls=build, CLONE_NEWNET=CLONE_NEWNET)
            os.close(fd)


def _sibling_network() -> int | None:
    own = os.stat("/proc/self/ns/net").st_ino
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/cmdline", "rb") as file:
                if not file.read().startswith(b"execdrv-init"):
                    continue
            fd = os.open(f"/proc/{name}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            if os.fstat(fd).st_ino != own:
                return fd
            os.close(fd)
    return None


class InheritableCaps(NativeDriver):
    """Leaves the bounding set in the inheritable one, too (CVE-2022-24769)."""

    name = "inheritable-caps"

    def start(self, box: Box) -> ProcessId:
        order = box.process
        # For another user than root: to be inheritable it must be permitted until the exec.
        permitted = order.permitted | order.bounding
        return super().start(with_order(box, inheritable=order.bounding, permitted=permitted))


class Headroom(NativeDriver):
    """Gives a tenth of memory more than asked, "for our init", and says nothing of it."""

    name = "headroom"

    def limit(self, box: Box, limits: Limits) -> Sequence[Receipt]:
        if limits.memory_bytes is None:
            return super().limit(box, limits)
        more = attrs.evolve(limits, memory_bytes=limits.memory_bytes * 11 // 10)
        asked = str(limits.memory_bytes)
        return [
            attrs.evolve(one, asked=asked, value=asked, status="applied")
            if one.name == "memory"
            else one
            for one in super().limit(box, more)
        ]


class UserTimeOnly(NativeDriver):
    """Reports user time as cpu time."""

    name = "user-time-only"

    def __init__(self) -> None:
        read = stats._read_cpu_usage

        def read_user(plan: object) -> int | None:
            if plan.unified is not None:
                user = read_keyed(plan.unified.path + "/cpu.stat").get("user_usec")
                if user is not None:
                    return user
            return read(plan)

        change(stats, _read_cpu_usage=read_user)


class NoRollback(NativeDriver):
    """Applies limits one after the other; when one fails, those before it stay changed."""

    name = "no-rollback"

    def __init__(self) -> None:
        change(Journal, roll_back=lambda _self: [])


class NoRollbackReverse(NativeDriver):
    """As NoRollback, in the other order: the number of tasks first, memory last."""

    name = "no-rollback-reverse"

    def limit(self, box: Box, limits: Limits) -> Sequence[Receipt]:
        none = attrs.evolve(limits, memory_bytes=None, memory_swap_bytes=None, cpus=None, pids=None)
        pieces = (
            attrs.evolve(none, pids=limits.pids),
            attrs.evolve(none, cpus=limits.cpus),
            attrs.evolve(
                none, memory_bytes=limits.memory_bytes, memory_swap_bytes=limits.memory_swap_bytes
            ),
        )
        return [one for piece in pieces for one in super(NoRollbackReverse, self).limit(box, piece)]


class LeaksWhenRunning(NativeDriver):
    """Removes its scratch file only if the job had ended by itself."""

    name = "leaks-when-running"
    _started = False

    @staticmethod
    def _scratch(box: Box) -> str:
        return os.path.join(state_directory(box), f"scratch-{box.kernel_name}")

    def create(self, box: Box) -> None:
        super().create(box)
        with open(self._scratch(box), "w") as file:
            file.write("scratch\n")

    def start(self, box: Box) -> ProcessId:
        process = super().start(box)
        self._started = True
        return process

    def destroy(self, box: Box) -> None:
        super().destroy(box)
        if self._started and box.init is not None and box.init.exited is None:
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._scratch(box))


class UpdateForgets(NativeDriver):
    """An update of one limit frees those that it does not name (memory)."""

    name = "update-forgets"
    _limited = False

    def limit(self, box: Box, limits: Limits) -> Sequence[Receipt]:
        receipts = super().limit(box, limits)
        if self._limited and limits.memory_bytes is None and box.group is not None:
            directory = box.group.plan.dir_of("memory")
            if directory is not None:
                names = ("memory.memsw.limit_in_bytes", "memory.limit_in_bytes", "memory.max")
                for name in names:
                    text = "max" if name == "memory.max" else "-1"
                    with contextlib.suppress(OSError):
                        write_control(f"{directory.path}/{name}", text)
        self._limited = True
        return receipts


class ShortHostname(NativeDriver):
    """Cuts the host name at its first dot."""

    name = "short-hostname"

    def __init__(self) -> None:
        change_walls(
            lambda walls, _box, _opened: attrs.evolve(
                walls, hostname=walls.hostname.partition(b".")[0]
            )
        )


class DropsRealtime(NativeDriver):
    """Does not send signals above 31, and says nothing of it."""

    name = "drops-realtime"

    def __init__(self) -> None:
        send = owner.Owner.signal
        change(
            owner.Owner,
            signal=lambda self, signum: send(self, signum) if signum < 32 else None,
        )


class NoIpv6Lo(NativeDriver):
    """Leaves the container without ::1."""

    name = "no-ipv6-lo"

    def __init__(self) -> None:
        up = native_child._set_loopback_up

        def up_without_ipv6() -> None:
            up()
            # of the network namespace of whoever opens it
            with open("/proc/sys/net/ipv6/conf/all/disable_ipv6", "w") as file:
                file.write("1")

        change(native_child, _set_loopback_up=up_without_ipv6)


class DropsEmptyEnv(NativeDriver):
    """Drops variables that are set to nothing."""

    name = "drops-empty-env"

    def start(self, box: Box) -> ProcessId:
        env = tuple(word for word in box.process.env if word.partition(b"=")[2])
        return super().start(with_order(box, env=env))


class LosesGroups(NativeDriver):
    """Drops the supplementary groups that were asked."""

    name = "loses-groups"

    def start(self, box: Box) -> ProcessId:
        return super().start(with_order(box, groups=(box.process.gid,)))


class NodesOwnerOnly(NativeDriver):
    """Makes the device nodes under the umask: 0644, so only root may write /dev/null."""

    name = "nodes-owner-only"

    def __init__(self) -> None:
        from execdrv.linux import mounts

        apply = mounts._View.apply

        def apply_under_umask(self: object, step: object) -> None:
            old = os.umask(0o022 if isinstance(step, MakeNode) else 0)
            try:
                apply(self, step)
            finally:
                os.umask(old)

        change(mounts._View, apply=apply_under_umask)
