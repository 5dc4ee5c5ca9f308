"""Drivers with one fault each, over the chroot driver; loaded as sampledrivers:NAME."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from execdrv import wire
from execdrv.driver import Box, Driver, Isolated, Refusal
from execdrv.errors import CreateError
from execdrv.limits import Limits, Receipt
from execdrv.linux.procfs import ProcessId
from execdrv.offers import Offers, enforced
from execdrv.supervisor.connection import Peer
from execdrv_chroot import plugin

(ChrootDriver,) = plugin.execdrv_drivers()
EVERYTHING = Offers(
    {
        profile: enforced()
        for profile in ("base", "fs", "limits", "container", "hardened", "hostile")
    }
)


class Whole(ChrootDriver):  # type: ignore[misc, valid-type]
    """No fault."""


class HangsInIsolate(ChrootDriver):  # type: ignore[misc, valid-type]
    def isolate(self, box: Box) -> Isolated:
        isolated = super().isolate(box)
        time.sleep(60)
        return isolated  # type: ignore[no-any-return]


class HangsForGood(ChrootDriver):  # type: ignore[misc, valid-type]
    """Not even a signal's exception gets it out."""

    def isolate(self, box: Box) -> Isolated:
        while True:
            try:
                time.sleep(60)
            except BaseException:
                continue


class RaisesBareException(ChrootDriver):  # type: ignore[misc, valid-type]
    def isolate(self, box: Box) -> Isolated:
        raise KeyError("colour")


class FailsInCreate(ChrootDriver):  # type: ignore[misc, valid-type]
    def create(self, box: Box) -> None:
        raise CreateError("cannot create it: by intent", hint="none")


class GivesNoReceipts(ChrootDriver):  # type: ignore[misc, valid-type]
    """Offers every limit, and ignores it."""

    offers = EVERYTHING

    def limit(self, box: Box, limits: Limits) -> Sequence[Receipt]:
        return []


class LeavesAProcess(ChrootDriver):  # type: ignore[misc, valid-type]
    """Starts a helper and does not end it."""

    def isolate(self, box: Box) -> Isolated:
        if os.fork() == 0:
            os.closerange(3, 1000)
            os.execv("/bin/sleep", ["sleep", "61777"])
        return super().isolate(box)  # type: ignore[no-any-return]


class StartsAThread(ChrootDriver):  # type: ignore[misc, valid-type]
    def __init__(self) -> None:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


class DiesInStart(ChrootDriver):  # type: ignore[misc, valid-type]
    def start(self, box: Box) -> ProcessId:
        os._exit(3)


class SendsDescriptors(ChrootDriver):  # type: ignore[misc, valid-type]
    """Beside each answer of its supervisor it sends descriptors of which nobody has asked."""

    def __init__(self) -> None:
        send = Peer.send

        def send_with_descriptors(self: Peer, data: Any) -> None:
            payload = wire.dumps(data)
            fds = [os.open("/", os.O_RDONLY | os.O_CLOEXEC) for _ in range(3)]
            frame = wire.HEADER.pack(len(payload)) + payload
            if self.has_outgoing or len(frame) > 4096:
                send(self, data)
            else:
                socket.send_fds(self.socket, [frame], fds)
            for fd in fds:
                os.close(fd)

        Peer.send = send_with_descriptors  # type: ignore[method-assign]


class RefusesTwice(ChrootDriver):  # type: ignore[misc, valid-type]
    def check(self, box: Box) -> list[Refusal]:
        return [Refusal(message="cannot do one", hint="a"), Refusal(message="cannot do two")]


class FromAnotherTime(Driver):
    contract = 99
