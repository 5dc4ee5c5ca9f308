"""Mutants that leave something behind."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator, Sequence

from execdrv.driver import Box, Isolated
from execdrv.errors import ExecdrvError
from execdrv.limits import Limits, Receipt
from execdrv.linux.mounts import make_fs
from execdrv.linux.procfs import ProcessId
from execdrv.linux.syscalls import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, move_mount, umount2
from execdrv.registry import ContainerDirectory
from execdrv_mutants.change import change
from execdrv_native.driver import NativeDriver

#: Directories of every machine that nobody needs during a test; a mount makes them no fuller.
_PLACES = ("/mnt", "/media", "/srv", "/opt")


def state_directory(box: Box) -> str:
    """The host's, in which the container's own directory lies."""
    return os.path.dirname(os.path.dirname(os.path.dirname(os.fsdecode(box.directory))))


def _find_place() -> str:
    return next(path for path in _PLACES if os.path.isdir(path))


def _mount_somewhere() -> None:
    made = make_fs(b"tmpfs", ((b"size", b"4k"),), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
    target = os.open(_find_place(), os.O_PATH | os.O_CLOEXEC)
    move_mount(made, target)
    os.close(target)
    os.close(made)


class LeaksMount(NativeDriver):
    """Leaves a mount behind."""

    name = "leaks-mount"

    def isolate(self, box: Box) -> Isolated:
        _mount_somewhere()
        return super().isolate(box)


class LeaksCgroup(NativeDriver):
    """Leaves a group behind."""

    name = "leaks-cgroup"

    def create(self, box: Box) -> None:
        super().create(box)
        if box.group is not None:
            name = f"{box.group.plan.dirs[-1].path}-{os.urandom(4).hex()}"
            os.mkdir(name, 0o755)


class LeaksVeth(NativeDriver):
    """Leaves an interface behind."""

    name = "leaks-veth"

    def isolate(self, box: Box) -> Isolated:
        word = os.urandom(4).hex()
        make_veth(f"mv{word}a", f"mv{word}b")
        return super().isolate(box)


def make_veth(name: str, peer: str) -> None:
    """A pair of links, by one message of rtnetlink(7)."""

    def attribute(kind: int, content: bytes) -> bytes:
        length = 4 + len(content)
        return struct.pack("HH", length, kind) + content + bytes(-length % 4)

    link = bytes(16)  # struct ifinfomsg
    other = attribute(1, link + attribute(3, peer.encode() + b"\0"))
    info = attribute(18, attribute(1, b"veth") + attribute(2, other))
    body = link + attribute(3, name.encode() + b"\0") + info
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as channel:
        # RTM_NEWLINK; NLM_F_REQUEST, ACK, EXCL, CREATE.
        channel.send(struct.pack("IHHII", 16 + len(body), 16, 0x605, 1, 0) + body)
        number = -struct.unpack_from("i", channel.recv(65536), 16)[0]
    if number:
        raise OSError(number, os.strerror(number))


class _LeakingVersion:
    """A constant of a driver's class that does something where it is read.

    Of a driver's code only the class and its constants get into a caller's process. Read there, it
    changes what each later container's end does to that process.
    """

    def __get__(self, driver: object, cls: type) -> str:
        from execdrv.container import Container

        release = Container.release

        def release_and_open(self: Container) -> None:
            release(self)
            os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

        change(Container, release=release_and_open)
        return NativeDriver.version


class LeaksSupervisorFd(NativeDriver):
    """Leaves one more descriptor open in the calling process each time."""

    name = "leaks-supervisor-fd"
    version = _LeakingVersion()  # type: ignore[assignment]


class _KeepingVersion:
    """The same kind of constant: a handle is said to be closed, and its connection stays."""

    def __get__(self, driver: object, cls: type) -> str:
        from execdrv.container import Container

        kept: list[object] = []

        def keep(self: Container) -> None:
            client = self._client
            kept.extend((client._starter, client._waiting))
            client._starter = client._waiting = None

        change(Container, close=keep)
        return NativeDriver.version


class SaysClosed(NativeDriver):
    """Says that a container's handle is closed, and keeps its connection in the caller."""

    name = "says-closed"
    version = _KeepingVersion()  # type: ignore[assignment]


class LeaksScratch(NativeDriver):
    """Leaves a scratch file behind."""

    name = "leaks-scratch"

    def create(self, box: Box) -> None:
        super().create(box)
        _leave_file(box)


def _leave_file(box: Box) -> None:
    with open(os.path.join(state_directory(box), f"left-{os.urandom(8).hex()}"), "w") as file:
        file.write("scratch\n")


class LeaksOnFailure(NativeDriver):
    """Cleans up after success only."""

    name = "leak-only-on-failed-create"

    def isolate(self, box: Box) -> Isolated:
        with _leaving_on_error(box):
            return super().isolate(box)

    def limit(self, box: Box, limits: Limits) -> Sequence[Receipt]:
        with _leaving_on_error(box):
            return super().limit(box, limits)

    def start(self, box: Box) -> ProcessId:
        with _leaving_on_error(box):
            return super().start(box)


@contextlib.contextmanager
def _leaving_on_error(box: Box) -> Iterator[None]:
    try:
        yield
    except ExecdrvError:
        _leave_file(box)
        raise


class SaysUnmounted(NativeDriver):
    """Can't unmount what it mounted, since it still uses it, and answers destroy with success."""

    name = "says-unmounted"

    def isolate(self, box: Box) -> Isolated:
        _mount_somewhere()
        self._used = os.open(_find_place(), os.O_RDONLY | os.O_CLOEXEC)
        return super().isolate(box)

    def destroy(self, box: Box) -> None:
        super().destroy(box)
        with contextlib.suppress(OSError):
            umount2(os.fsencode(_find_place()))


class LeaksNetnsName(NativeDriver):
    """Says that the name of its network namespace is gone, and leaves it."""

    name = "leaks-netns-name"

    def create(self, box: Box) -> None:
        super().create(box)
        os.makedirs("/run/netns", exist_ok=True)
        with open(f"/run/netns/{box.kernel_name}-{os.urandom(4).hex()}", "w"):
            pass


class SaysCleaned(NativeDriver):
    """Says after a failed start that nothing is left, and leaves a group."""

    name = "says-cleaned-after-failure"

    def start(self, box: Box) -> ProcessId:
        try:
            return super().start(box)
        except ExecdrvError:
            if box.group is not None:
                os.mkdir(f"{box.group.plan.dirs[-1].path}-{os.urandom(4).hex()}", 0o755)
            raise


class ForgetsInCrash(NativeDriver):
    """Keeps in memory alone which scratch file it made: after a crash nobody removes it."""

    name = "forgets-scratch-in-crash"

    def __init__(self) -> None:
        self._scratch = ""

    def isolate(self, box: Box) -> Isolated:
        self._scratch = os.path.join(state_directory(box), f"scratch-{os.urandom(8).hex()}")
        with open(self._scratch, "w"):
            pass
        return super().isolate(box)

    def destroy(self, box: Box) -> None:
        super().destroy(box)
        if self._scratch:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._scratch)


class SaysCollected(NativeDriver):
    """Says that a lost container is collected, and leaves its record."""

    name = "says-collected"

    def destroy(self, box: Box) -> None:
        super().destroy(box)
        if box.root < 0:
            # In the collector, which has no root of the container's.
            change(ContainerDirectory, remove=lambda _self: [])
