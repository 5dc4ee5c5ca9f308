"""What liblxc is told of a container, as data.

Pure. liblxc makes the namespaces, the loopback, /proc, the pivot into the root and the bounding
set; all paths are those of the monitor's own small root (monitor.py), so that no name of the
machine, and nothing that a user gave but the host name, ever reaches liblxc.

Left to others: cgroups (liblxc sees none in the monitor's root; the supervisor places the init,
the cgroup namespace comes from the companion), the job's user, rlimits and environment (the
init's work), and every mount but /proc.
"""

from __future__ import annotations

from typing import Final

import attrs

from execdrv.driver import Box
from execdrv.errors import IsolationError
from execdrv.linux.capabilities import capability_mask, capability_names

#: Where the prepared root is mounted in the monitor's root, and where liblxc mounts it again.
ROOT: Final = "/root"
MOUNT: Final = "/mount"

#: What the init does to become the job takes these, whatever the job itself may keep: it lowers
#: the bounding set (SETPCAP) and changes groups and user (SETGID, SETUID).
INIT_CAPABILITIES: Final = frozenset({"SETPCAP", "SETGID", "SETUID"})

#: The namespaces liblxc makes; the cgroup namespace is the monitor's by then.
_NAMESPACES: Final = ("mnt", "pid", "uts", "ipc")


def _check_text(item: Item, _attribute: object, value: str) -> None:
    # A newline would begin another item wherever liblxc writes or reads this as text.
    if not value.isprintable() or not value.isascii():
        raise IsolationError(f"cannot set {item.key!r} of lxc to {value!r}: it is not plain text")


@attrs.frozen
class Item:
    """One configuration item (lxc.container.conf(5)).

    Raises:
        IsolationError: the value is not one line of printable ASCII.
    """

    key: str
    value: str = attrs.field(validator=_check_text)
    #: What get_config_item gives when all items are set; one value a line where a key is a list.
    reads_back: str = attrs.field()

    @reads_back.default
    def _same(self) -> str:
        return self.value


def plan_items(box: Box, *, log_fd: int) -> list[Item]:
    """The container's whole configuration.

    Args:
        log_fd: descriptor in the monitor to which liblxc writes its errors.
    Raises:
        IsolationError: a value is not plain text.
    """
    namespaces = _NAMESPACES + (("net",) if box.net == "none" else ())
    return [
        Item("lxc.log.file", f"/proc/self/fd/{log_fd}"),
        Item("lxc.log.level", "ERROR"),
        # liblxc takes the storage's type off.
        Item("lxc.rootfs.path", f"dir:{ROOT}", ROOT),
        Item("lxc.rootfs.mount", MOUNT),
        Item("lxc.uts.name", box.hostname),
        Item("lxc.namespace.clone", " ".join(namespaces), _lines(namespaces)),
        *_plan_net(box.net),
        *_plan_capabilities(box.process.bounding),
        Item("lxc.no_new_privs", str(int(box.process.no_new_privs))),
        *_plan_proc(),
        # The driver has its own /dev; a terminal or console would be liblxc's.
        Item("lxc.autodev", "0"),
        Item("lxc.tty.max", "0"),
        Item("lxc.pty.max", "0"),
        Item("lxc.console.path", "none"),
    ]


def _plan_net(net: str) -> list[Item]:
    if net != "none":
        return [Item("lxc.net.0.type", "none")]
    # Without the flag the loopback stays down.
    return [Item("lxc.net.0.type", "empty"), Item("lxc.net.0.flags", "up")]


def _plan_capabilities(bounding: int) -> list[Item]:
    """The bounding set liblxc leaves to the init: the job's, and what the init itself needs.

    The init takes the rest away from the job (Order.bounding), and then from itself.
    """
    kept = capability_names(bounding | capability_mask(INIT_CAPABILITIES))
    names = [name.lower() for name in kept]
    return [Item("lxc.cap.keep", name, _lines(names)) for name in names]


def _plan_proc() -> list[Item]:
    # Only a process inside the new pid namespace can mount its procfs; the covers over it are
    # put there by the companion. mount(2)'s flags as in fstab(5).
    entry = "proc proc proc nosuid,nodev,noexec 0 0"
    return [Item("lxc.mount.entry", entry, _lines([entry]))]


def _lines(values: tuple[str, ...] | list[str]) -> str:
    return "".join(value + "\n" for value in values)
