"""Mutants that leave the job a right."""

from __future__ import annotations

import os

from execdrv.driver import Box, Isolated
from execdrv.linux.capabilities import capability_mask
from execdrv.linux.procfs import ProcessId
from execdrv.linux.syscalls import capget
from execdrv_mutants.change import with_order
from execdrv_native.driver import NativeDriver

#: A capability that no other guarantee looks at.
_ONE = capability_mask(["WAKE_ALARM"])


class KeepsOneCap(NativeDriver):
    """Leaves one capability more in the bounding set."""

    name = "keeps-one-cap"

    def start(self, box: Box) -> ProcessId:
        return super().start(with_order(box, bounding=box.process.bounding | _ONE))


class NoNnp(NativeDriver):
    """Does not set no_new_privs."""

    name = "no-nnp"

    def start(self, box: Box) -> ProcessId:
        return super().start(with_order(box, no_new_privs=False))


class KeepsGroups(NativeDriver):
    """Leaves the caller's supplementary groups."""

    name = "keeps-supplementary-groups"

    def start(self, box: Box) -> ProcessId:
        groups = tuple(sorted({*box.process.groups, *os.getgroups()}))
        return super().start(with_order(box, groups=groups))


class DropsNoCapability(NativeDriver):
    """Leaves root of the container every capability of the machine's root."""

    name = "drops-no-capability"

    def start(self, box: Box) -> ProcessId:
        return super().start(with_capabilities(box, capget()[1]))


class KeepsSysAdmin(NativeDriver):
    """Leaves root of the container CAP_SYS_ADMIN."""

    name = "keeps-sys-admin"

    def start(self, box: Box) -> ProcessId:
        return super().start(with_capabilities(box, capability_mask(["SYS_ADMIN"])))


def with_capabilities(box: Box, mask: int) -> Box:
    """A box whose job, if it is root's, has more capabilities; if not, more in its bounding set."""
    order = box.process
    bounding = order.bounding | mask
    if order.uid != 0:
        return with_order(box, bounding=bounding)
    permitted, effective = order.permitted | mask, order.effective | mask
    return with_order(box, bounding=bounding, permitted=permitted, effective=effective)


class LeavesWayBack(NativeDriver):
    """Leaves root of the container a descriptor of the machine's mounts, and the right to go."""

    name = "leaves-way-back"

    def isolate(self, box: Box) -> Isolated:
        box.passed[9] = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        return super().isolate(box)

    def start(self, box: Box) -> ProcessId:
        mask = capability_mask(["SYS_ADMIN", "SYS_CHROOT"])
        kept = with_order(box, keep_fds=(*box.process.keep_fds, 9))
        return super().start(with_capabilities(kept, mask))


class LeavesAmbient(NativeDriver):
    """Leaves a job that is not root the capabilities to become root, and to read every file."""

    name = "leaves-ambient"

    def start(self, box: Box) -> ProcessId:
        order = box.process
        if order.uid == 0:
            return super().start(box)
        mask = capability_mask(["SETUID", "DAC_READ_SEARCH"])
        return super().start(
            with_order(
                box,
                bounding=order.bounding | mask,
                permitted=order.permitted | mask,
                effective=order.effective | mask,
                inheritable=order.inheritable | mask,
                ambient=order.ambient | mask,
            )
        )


class WrongUser(NativeDriver):
    """Runs the job as the next user and group."""

    name = "wrong-user"

    def start(self, box: Box) -> ProcessId:
        order = box.process
        return super().start(with_order(box, uid=order.uid + 1, gid=order.gid + 1))
