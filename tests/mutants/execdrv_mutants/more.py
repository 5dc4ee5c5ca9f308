"""Mutants of filters, of many containers at once, and of what is said of a job's streams and end.

No built-in driver sets a filter yet: here a native driver with a sound one is the base of those
whose filter has a fault. It is no mutant itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import platform
import socket
import stat
import struct
from collections.abc import Iterator
from typing import Any, ClassVar

import attrs

from execdrv import wire
from execdrv.driver import Box, ExitReason, Isolated
from execdrv.errors import IsolationError, StartError, StateError
from execdrv.linux.capabilities import capability_mask
from execdrv.linux.procfs import ProcessId
from execdrv.offers import Offers, enforced
from execdrv.supervisor import loop, owner
from execdrv_mutants.change import change, is_agent, with_order
from execdrv_mutants.init import use_init
from execdrv_mutants.privilege import with_capabilities
from execdrv_native import driver as native
from execdrv_native.child import Walls
from execdrv_native.driver import NativeDriver

# --- filters -----------------------------------------------------------------------------------

#: AUDIT_ARCH_* (linux/audit.h): the machine's own, and that of the 32-bit entry.
_NATIVE = 0xC000003E if platform.machine() == "x86_64" else 0xC00000B7
_COMPAT = 0x40000003 if platform.machine() == "x86_64" else 0x40000028
#: Calls by x32 have this bit in their number.
_X32 = 0x40000000
#: What a container has no use for, by entry: keyctl, add_key, request_key, unshare, setns, mount,
#: umount2, perf_event_open, open_tree.
_DENIED = (250, 248, 249, 272, 308, 165, 166, 298, 428)
_DENIED_GENERIC = (219, 217, 218, 97, 268, 40, 39, 241, 428)
_DENIED_COMPAT = (288, 286, 287, 310, 346, 21, 52, 336, 428)
#: link and linkat.
_LINK = (86, 265) if platform.machine() == "x86_64" else (37,)

#: SECCOMP_RET_* (seccomp(2)).
_ALLOW, _LOG, _EPERM = 0x7FFF0000, 0x7FFC0000, 0x00050001
# Words of the program (linux/filter.h): load a word of struct seccomp_data; jump; return.
_LOAD, _JUMP_EQUAL, _JUMP_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06


def _denied() -> tuple[int, ...]:
    return _DENIED if platform.machine() == "x86_64" else _DENIED_GENERIC


def make_filter(
    *, deny: int = _EPERM, other_entries: bool = True, more: tuple[int, ...] = ()
) -> bytes:
    """A filter that denies some calls, by whatever entry they are made.

    Args:
        deny: what it does with them.
        other_entries: whether it looks at calls of another architecture.
        more: numbers of further calls that it denies.
    """
    own = [(_LOAD, 0, 0, 0), (_JUMP_LEAST, 0, 1, _X32), (_RETURN, 0, 0, deny)]
    own += _deny_each((*_denied(), *more), deny)
    compat = [(_LOAD, 0, 0, 0), *_deny_each(_DENIED_COMPAT, deny)]
    program = [
        (_LOAD, 0, 0, 4),
        (_JUMP_EQUAL, 0, len(own), _NATIVE),
        *own,
        *(compat if other_entries else [(_RETURN, 0, 0, _ALLOW)]),
    ]
    return b"".join(struct.pack("=HBBI", *one) for one in program)


def _deny_each(numbers: tuple[int, ...], deny: int) -> list[tuple[int, int, int, int]]:
    steps = [
        step for number in numbers for step in ((_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, deny))
    ]
    return [*steps, (_RETURN, 0, 0, _ALLOW)]


class _Filtered(NativeDriver):
    """Sets a filter."""

    offers = Offers({**dict(NativeDriver.offers.entries), "sec.*": enforced()})
    program: ClassVar[bytes] = make_filter()

    def start(self, box: Box) -> ProcessId:
        return super().start(with_order(box, seccomp_filter=self.program))


class SeccompOneArchitecture(_Filtered):
    """Lets every call of another architecture through its filter."""

    name = "seccomp-x86_64-only"
    program = make_filter(other_entries=False)


class SeccompLog(_Filtered):
    """Logs what its filter should deny."""

    name = "seccomp-log-not-deny"
    program = make_filter(deny=_LOG)


class SeccompTooMuch(_Filtered):
    """Its filter denies a call that every job may make."""

    name = "seccomp-denies-too-much"
    program = make_filter(more=_LINK)


class SeccompNotForRoot(_Filtered):
    """Sets its filter for no job of root's."""

    name = "seccomp-not-for-root"

    def start(self, box: Box) -> ProcessId:
        if box.process.uid == 0:
            return NativeDriver.start(self, box)
        return super().start(box)


class SeccompNotSet(_Filtered):
    """Says that it sets a filter, and sets none."""

    name = "seccomp-not-set"
    program = b""


class SeccompForgetsClone3(_Filtered):
    """Its filter denies new user namespaces by unshare, and forgets clone3."""

    name = "seccomp-forgets-clone3"
    offers = Offers({**dict(_Filtered.offers.entries), "user.no-userns": enforced()})


# --- keyrings ----------------------------------------------------------------------------------

_KEYCTL = 250 if platform.machine() == "x86_64" else 219
_KEYCTL_JOIN_SESSION_KEYRING = 1


class KeepsKeyrings(NativeDriver):
    """Says that the caller's keyrings are out of reach, and leaves them."""

    name = "keeps-keyrings"
    offers = Offers({**dict(NativeDriver.offers.entries), "ipc.keyring": enforced()})


class ForgetsUserKeyring(KeepsKeyrings):
    """Gives the job a session keyring of its own, and forgets the user's keyring."""

    name = "forgets-user-keyring"

    def __init__(self) -> None:
        build = native.build_walls

        def build_with_keyring(walls: Walls) -> None:
            build(walls)
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.syscall(_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, None) < 0:
                raise IsolationError("cannot make a session keyring")

        change(native, build_walls=build_with_keyring)


# --- capabilities ------------------------------------------------------------------------------


class DeclaresFewerCapabilities(NativeDriver):
    """Declares fewer capabilities as its default than it gives."""

    name = "declares-fewer-capabilities"

    def start(self, box: Box) -> ProcessId:
        return super().start(with_capabilities(box, capability_mask(["WAKE_ALARM"])))


# --- many at once ------------------------------------------------------------------------------

#: Containers that have a place at the same time.
_PLACES = 5


def _take_place(name: str) -> socket.socket | None:
    """One of few places, held as long as this process lives; None: all are taken."""
    place = socket.socket(socket.AF_UNIX)
    for number in range(_PLACES):
        with contextlib.suppress(OSError):
            place.bind(f"\0execdrv-{name}-{number}")
            return place
    place.close()
    return None


class FewPlaces(NativeDriver):
    """Has places for five containers, and fails when they are taken."""

    name = "few-places"

    def start(self, box: Box) -> ProcessId:
        self._place = _take_place(self.name)
        if self._place is None:
            raise StartError(f"cannot start container {box.id!r}: no place is left")
        return super().start(box)


class SaysRunWithoutPlace(NativeDriver):
    """Runs nothing when its five places are taken, and reports a good end."""

    name = "says-run-without-place"

    def start(self, box: Box) -> ProcessId:
        self._place = _take_place(self.name)
        if self._place is None:
            return super().start(with_order(box, argv=(b"/bin/true",)))
        return super().start(box)


# --- what is passed on and said ----------------------------------------------------------------

#: Bytes of a command line, and of standard input, that are passed on.
_ARGUMENT_BYTES = 1 << 20
_INPUT_BYTES = 1 << 16


class CutsArguments(NativeDriver):
    """Passes on the first MiB of a command line, and does not say so."""

    name = "cuts-arguments"

    def start(self, box: Box) -> ProcessId:
        return super().start(with_order(box, argv=tuple(_first_words(box.process.argv))))


def _first_words(words: tuple[bytes, ...]) -> Iterator[bytes]:
    total = 0
    for word in words:
        total += len(word) + 1
        if total > _ARGUMENT_BYTES:
            return
        yield word


class CutsStdin(NativeDriver):
    """Passes on the first 64 KiB of standard input, and does not say so."""

    name = "cuts-stdin"

    def isolate(self, box: Box) -> Isolated:
        if is_agent(box):
            return super().isolate(box)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        if os.fork() == 0:
            with contextlib.suppress(BaseException):
                _pass_on(box.stdio[0], writer, others=(reader, *box.stdio[1:]))
            os._exit(0)
        os.close(writer)
        try:
            return super().isolate(attrs.evolve(box, stdio=(reader, *box.stdio[1:])))
        finally:
            os.close(reader)


def _pass_on(source: int, sink: int, *, others: tuple[int, ...]) -> None:
    for fd in set(others):
        os.close(fd)
    left = _INPUT_BYTES
    while left and (data := os.read(source, left)):
        left -= len(data)
        while data:
            data = data[os.write(sink, data) :]


class HoldsReadEnd(NativeDriver):
    """Holds the read end of the job's output: a job whose reader has gone does not hear of it."""

    name = "holds-read-end"

    def isolate(self, box: Box) -> Isolated:
        out = box.stdio[1]
        if stat.S_ISFIFO(os.fstat(out).st_mode):
            self._held = os.open(f"/proc/self/fd/{out}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            # A job that writes on is not held up at once.
            fcntl.fcntl(out, fcntl.F_SETPIPE_SZ, 1 << 20)
        return super().isolate(box)


class ForgetsStderr(NativeDriver):
    """Reports that nothing was written to standard error."""

    name = "forgets-stderr"

    def __init__(self) -> None:
        finish = owner.Owner.finish

        def finish_without(self: owner.Owner, reason: ExitReason | None = None) -> None:
            finish(self, reason)
            if self.exit is not None:
                self.exit = attrs.evolve(self.exit, stderr=b"")

        change(owner.Owner, finish=finish_without)


class TellsFirstOnly(NativeDriver):
    """Gives the result to the first who waits, and keeps it for nobody else."""

    name = "tells-first-only"

    def __init__(self) -> None:
        tell, work = loop.Supervisor._tell_exit, loop.Supervisor._work
        told: list[bool] = []

        def tell_first(self: loop.Supervisor) -> None:
            if self._owner.exit is None:
                tell(self)
                return
            for peer in self._waiters:
                try:
                    peer.send({"ok": give_exit(self)})
                except StateError as error:
                    peer.send({"error": wire.encode_error(error)})
                self._after_peer(peer)
            self._waiters.clear()

        def give_exit(self: loop.Supervisor) -> Any:
            if told:
                raise StateError(f"cannot wait for container {self._launch.id!r}: all was told")
            told.append(True)
            return wire.encode(self._owner.exit)

        def work_once(self: loop.Supervisor, operation: str, arguments: object) -> object:
            if operation == "wait" and self._owner.exit is not None:
                return give_exit(self)
            return work(self, operation, arguments)

        change(loop.Supervisor, _tell_exit=tell_first, _work=work_once)


# --- who dies ----------------------------------------------------------------------------------


class OutlivesSupervisor(NativeDriver):
    """Ties the job to its supervisor's life by nothing of its own."""

    name = "outlives-supervisor"

    def isolate(self, box: Box) -> Isolated:
        use_init(box, "deaf")
        return super().isolate(box)
