"""Mutants whose containers take steps that they must not take, or miss one."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable

from attrs import evolve

from execdrv import wire
from execdrv.driver import Box, Exit, ExitReason, Isolated
from execdrv.errors import StateError
from execdrv.linux.procfs import ProcessId
from execdrv.registry import ContainerDirectory, Registry
from execdrv.state import State, next_state
from execdrv.supervisor import claim, loop, owner
from execdrv_mutants.change import change
from execdrv_native.driver import NativeDriver


class StartsEarly(NativeDriver):
    """Runs the command as soon as the walls stand, before anybody asks."""

    name = "starts-early"

    def isolate(self, box: Box) -> Isolated:
        isolated = super().isolate(box)
        super().start(box)
        return isolated

    def start(self, box: Box) -> ProcessId:
        return ProcessId(**box.facts["init"])


class TakesAnyStep(NativeDriver):
    """Takes every operation in every state: a second start runs the command a second time."""

    name = "takes-any-step"

    def __init__(self) -> None:
        self._started: ProcessId | None = None
        self._output = -1
        register = loop.Supervisor._register

        def register_anew(self: loop.Supervisor, file: int, handler: Callable[[int], None]) -> None:
            self._unregister(file)
            register(self, file, handler)

        close = owner.Owner._close_stdio
        closed: list[owner.Owner] = []

        def close_once(self: owner.Owner) -> None:
            # Numbers that were closed at the first start are others' at the second.
            if not closed:
                close(self)
                closed.append(self)

        change(claim, next_state=_pass_state)
        change(owner.Owner, _close_stdio=close_once)
        change(loop.Supervisor, _register=register_anew)

    def isolate(self, box: Box) -> Isolated:
        if "init" in box.facts:
            return Isolated(init=ProcessId(**box.facts["init"]))
        return super().isolate(box)

    def start(self, box: Box) -> ProcessId:
        if self._started is None:
            self._output = os.dup(box.stdio[1])
            self._started = super().start(box)
        elif os.fork() == 0:
            # Outside of all walls: what matters is that there are two.
            with contextlib.suppress(OSError):
                environment = dict(word.split(b"=", 1) for word in box.process.env)
                os.dup2(self._output, 1)
                os.execve(box.process.argv[0], list(box.process.argv), environment)
            os._exit(127)
        return self._started


def _pass_state(operation: str, state: State, *, container: str) -> State:
    try:
        return next_state(operation, state, container=container)
    except StateError:
        return state


class TakesUsedId(NativeDriver):
    """Makes a container of an id that is in use, in the place of the first."""

    name = "takes-used-id"

    def __init__(self) -> None:
        claim = Registry.claim

        def claim_anyway(self: Registry, id: str) -> ContainerDirectory:
            shutil.rmtree(self.path_of(id), ignore_errors=True)
            return claim(self, id)

        change(Registry, claim=claim_anyway)


class IgnoresDeadline(NativeDriver):
    """Lets the job run on when its time is up."""

    name = "ignores-deadline"

    def __init__(self) -> None:
        change(loop.Supervisor, _look_at_clock=lambda _self: None, _patience=lambda _self: None)


class DeadlineAsDestroy(NativeDriver):
    """Reports the end of a job whose time was up as one that was asked for."""

    name = "deadline-unreported"

    def __init__(self) -> None:
        finish = owner.Owner.finish

        def finish_otherwise(self: owner.Owner, reason: ExitReason | None = None) -> None:
            finish(self, "destroyed" if reason == "timeout" else reason)

        change(owner.Owner, finish=finish_otherwise)


class AnswersWaitersApart(NativeDriver):
    """Tells the second who waits something else than the first."""

    name = "answers-waiters-apart"

    def __init__(self) -> None:
        work = loop.Supervisor._work
        told: list[bool] = []

        def tell_exit(self: loop.Supervisor) -> None:
            end = self._owner.exit
            for peer in self._waiters:
                if end is None:
                    error = loop._never_started(self._launch.id)
                    peer.send({"error": wire.encode_error(error)})
                else:
                    peer.send({"ok": wire.encode(self_exit(end))})
                self._after_peer(peer)
            self._waiters.clear()

        def self_exit(end: Exit) -> Exit:
            code = end.code
            if told and code is not None:
                code = (code + 1) % 256
            told.append(True)
            return evolve(end, code=code)

        def work_apart(self: loop.Supervisor, operation: str, arguments: object) -> object:
            if operation == "wait" and self._owner.exit is not None:
                return wire.encode(self_exit(self._owner.exit))
            return work(self, operation, arguments)

        change(loop.Supervisor, _tell_exit=tell_exit, _work=work_apart)


class ListsTheDead(NativeDriver):
    """Leaves a container in its record as running when its job has ended."""

    name = "lists-the-dead"

    def __init__(self) -> None:
        update = claim.Claim.update

        def update_but_end(self: claim.Claim, **changes: object) -> None:
            if changes.get("state") != "stopped":
                update(self, **changes)

        change(claim.Claim, update=update_but_end)


class DropsSignals(NativeDriver):
    """Answers a signal with success and does not send it."""

    name = "drops-signals"

    def __init__(self) -> None:
        change(owner.Owner, signal=lambda _self, _signum: None)
