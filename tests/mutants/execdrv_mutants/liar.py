"""Mutants that say what is not so."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from execdrv import wire
from execdrv.driver import Box, Isolated
from execdrv.errors import ExecdrvError
from execdrv.init import Order
from execdrv.limits import Limits, Receipt
from execdrv.linux.procfs import ProcessId
from execdrv.offers import Offers, enforced
from execdrv_chroot.driver import ChrootDriver
from execdrv_mutants.change import is_agent, with_order
from execdrv_mutants.leak import state_directory
from execdrv_native.driver import NativeDriver


class AcceptsSilently(ChrootDriver):
    """Offers a guarantee and ignores the field that asks for it."""

    name = "accepts-unsupported-silently"
    offers = Offers({**dict(ChrootDriver.offers.entries), "fs.ro-root": enforced()})


class RaisesBareException(NativeDriver):
    """Raises an exception that is no execdrv error."""

    name = "raises-bare-exception"

    def isolate(self, box: Box) -> Isolated:
        with _bare():
            return super().isolate(box)

    def limit(self, box: Box, limits: Limits) -> Sequence[Receipt]:
        with _bare():
            return super().limit(box, limits)

    def start(self, box: Box) -> ProcessId:
        with _bare():
            return super().start(box)


@contextlib.contextmanager
def _bare() -> Iterator[None]:
    try:
        yield
    except ExecdrvError as error:
        raise Exception(str(error)) from error


class CollidesInGlobalState(NativeDriver):
    """Keeps the last container's data in one global: a file, since each has its own process."""

    name = "id-collision-global-state"

    def create(self, box: Box) -> None:
        super().create(box)
        path = _last(box)
        draft = f"{path}.{os.getpid()}"
        with open(draft, "wb") as file:
            file.write(wire.dumps(wire.encode(box.process)))
        os.rename(draft, path)

    def start(self, box: Box) -> ProcessId:
        try:
            with open(_last(box), "rb") as file:
                order = wire.decode(Order, wire.loads(file.read()))
        except FileNotFoundError:
            return super().start(box)
        return super().start(attrs.evolve(box, process=order))

    def destroy(self, box: Box) -> None:
        super().destroy(box)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_last(box))


def _last(box: Box) -> str:
    return os.path.join(state_directory(box), "last")


class _Impostor(NativeDriver):
    """Has another process than the job speak to the kit."""

    def __init__(self) -> None:
        #: The line to the kit, and the job's own standard input and output.
        self._line = (-1, -1)
        self._job = -1

    def isolate(self, box: Box) -> Isolated:
        if not is_agent(box):
            return super().isolate(box)
        self._line = (os.dup(box.stdio[0]), os.dup(box.stdio[1]))
        ours, theirs = socket.socketpair()
        self._job = ours.detach()
        with theirs:
            end = theirs.fileno()
            return super().isolate(attrs.evolve(box, stdio=(end, end, box.stdio[2])))

    def start(self, box: Box) -> ProcessId:
        if not is_agent(box):
            return super().start(box)
        process = super().start(with_order(box, argv=self.choose_command(box)))
        if os.fork() == 0:
            with contextlib.suppress(BaseException):
                self.speak(box)
            os._exit(0)
        for fd in (*self._line, self._job):
            os.close(fd)
        return process

    def choose_command(self, box: Box) -> tuple[bytes, ...]:
        """What the job runs."""
        return box.process.argv

    @abstractmethod
    def speak(self, box: Box) -> None:
        """Answer the kit; in a process of its own, outside the walls."""


class ForgesProbeOutput(_Impostor):
    """Prints what the probe would print, without running it."""

    name = "forges-probe-output"

    def choose_command(self, box: Box) -> tuple[bytes, ...]:
        return (*box.process.argv[:4], b"import time; time.sleep(600)")

    def speak(self, box: Box) -> None:
        _answer(*self._line, nonce=os.fsdecode(box.process.argv[-1]))


class SpeaksForTheJob(_Impostor):
    """Prints what the probe has printed: the kit hears a process outside the walls."""

    name = "speaks-for-the-job"

    def speak(self, box: Box) -> None:
        source, sink = self._line
        ways = {source: self._job, self._job: sink}
        while ways:
            for fd in select.select(list(ways), [], [])[0]:
                data = os.read(fd, 65536)
                if not data:
                    socket.socket(fileno=os.dup(ways[fd])).shutdown(socket.SHUT_WR)
                    del ways[fd]
                while data:
                    data = data[os.write(ways[fd], data) :]


#: What probes say where all is well.
_FORGED: dict[str, dict[str, Any]] = {
    "pid:describe_self": {"pid": 2, "parent": 1, "chain": [2, 1], "link": "pid:[4026539999]"},
    "pid:find_processes": {"listed": [], "signalled": []},
}


def _answer(source: int, sink: int, *, nonce: str) -> None:
    """Answer as the agent would (probes/agent.py)."""
    sequence = 0

    def say(**line: Any) -> None:
        os.write(sink, json.dumps({"nonce": nonce, "seq": sequence, **line}).encode() + b"\n")

    with open(source, "rb") as requests:
        requests.read(int(requests.readline()))
        say(hello=2)
        for line in iter(requests.readline, b""):
            request = json.loads(line)
            if "call" not in request:
                continue
            facts = _FORGED.get(request["call"])
            if facts is not None:
                sequence += 1
                say(fact=facts)
            sequence += 1
            say(plan=int(facts is not None), error="")
