"""A container's operations, each in the order: is it legal, write the record, act, write the state.

    create    check everything; claim the id; record; group; driver.create
    isolate   driver.isolate: the init waits at its gate
    limit     driver.limit: receipts
    start     driver.start: the command runs
    (end)     numbers, then the tree ends, then the rest of the output, then the Exit
    destroy   driver.destroy; what is left of the tree; group; directory and record

Host code: it decides what driver methods may do, and cleans up behind them. Runs in the
supervisor, which is single-threaded and the subreaper of everything below it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from execdrv.driver import Box, Driver, Exit, ExitReason, Isolated, Refusal, refused
from execdrv.errors import (
    CleanupError,
    CreateError,
    DeadlineError,
    DriverBugError,
    ExecdrvError,
    StartError,
    StateError,
)
from execdrv.init.link import InitLink
from execdrv.limits import Limits, Receipt
from execdrv.linux import cgroups, procfs
from execdrv.linux.procfs import ProcessId
from execdrv.registry import Registry
from execdrv.state import TRANSITIONS, Record, State
from execdrv.supervisor import refusals
from execdrv.supervisor.capture import Capture
from execdrv.supervisor.claim import Claim
from execdrv.supervisor.draft import Draft
from execdrv.supervisor.end import make_exit, split_status
from execdrv.supervisor.guard import call_destroy, driver_call
from execdrv.supervisor.launch import Launch
from execdrv.supervisor.tree import Tree, kill_group


class Owner:
    """One container, from its birth to its end.

    Args:
        launch: what was asked.
        driver: the driver's one instance.
        fds: the caller's descriptors by name (execdrv.supervisor.launch.open_descriptors).
        memfd: the init's binary.
    """

    def __init__(
        self, launch: Launch, driver: Driver, fds: Mapping[str, int], *, memfd: int
    ) -> None:
        self._launch = launch
        self._driver = driver
        self._fds = fds
        self._memfd = memfd
        registry = Registry(launch.root)
        self._draft = Draft(launch, driver, fds, registry)
        self._claim = Claim(registry, launch.id)
        self._tree = Tree()
        self._box: Box | None = None
        self._started_at = 0.0
        #: Streams the event loop must drain.
        self.captures: dict[str, Capture] = {}
        #: When the container's time is up, by time.monotonic(); None: never.
        self.ends_at: float | None = None
        #: How it ended; set once.
        self.exit: Exit | None = None

    # --- what the loop needs -------------------------------------------------------------------

    @property
    def link(self) -> InitLink | None:
        """The init's link, while there is one."""
        return self._box.init if self._box is not None else None

    @property
    def record(self) -> Record | None:
        """The record as it was last written; None before `create`."""
        return self._claim.record

    @property
    def watched(self) -> ProcessId | None:
        """The process whose end is the container's end, once the command runs."""
        return self._tree.watched

    @property
    def directory_fd(self) -> int:
        """Descriptor of the container's directory; -1 where there is none."""
        return self._claim.directory_fd

    @property
    def state(self) -> State:
        return self._claim.state

    def reap(self) -> None:
        """Take the status of zombie children, in bounded time."""
        self._tree.reap()

    # --- operations ----------------------------------------------------------------------------

    def check(self) -> list[Refusal]:
        """Everything that stands against this container. Changes nothing."""
        return self._check(self._draft.assemble_box())

    def plan(self) -> dict[str, Any]:
        """What would be made, as plain data, with all refusals. Changes nothing."""
        box = self._draft.assemble_box()
        return self._draft.describe(box, self._check(box))

    def create(self) -> None:
        """Make identity, record, group, and what is the driver's own; all or nothing.

        Raises:
            UnsupportedError: this driver or this machine can't; nothing was made.
            ContainerExistsError: the id is in use.
            CreateError: nothing is left.
            StateError: it was created.
        """
        # A second time it would give back the first one's lease.
        self._claim.require("create")
        with contextlib.ExitStack() as undo:
            undo.callback(self._claim.release_lease)
            box = self._draft.assemble_box()
            found = self._check(box)
            if found:
                raise refused(found, driver=self._driver.name)
            if self._draft.needs_lease:
                # Only now: for the machine's first number a directory is made.
                box = self._draft.assemble_box(leased_id=self._claim.take_lease())
            path = self._claim.take_directory()
            undo.callback(self._abandon)
            plan = self._draft.plan_group(box)
            try:
                self._claim.write_first(self._draft.first_record(box, plan), facts=box.facts)
                os.mkdir(box.directory, 0o711)
                group = cgroups.make_group(plan) if plan is not None else None
            except OSError as error:
                raise CreateError(
                    f"cannot create container {box.id!r}: {error.strerror}: {path!r}",
                    errno=error.errno,
                ) from error
            if group is not None:
                undo.callback(group.remove)
            self._box = box = attrs.evolve(
                box, group=group, init=InitLink(self._memfd), stdio=self._open_stdio()
            )
            undo.callback(self._call_destroy, box)
            with self._driver_call("create"):
                self._driver.create(box)
            self._claim.advance("create")
            undo.pop_all()

    def isolate(self) -> Isolated:
        """Build the walls; the init waits at its gate.

        Raises:
            IsolationError: nothing runs.
        """
        box = self._require("isolate")
        with self._driver_call("isolate"):
            isolated = self._driver.isolate(box)
        if isolated.netns is not None:
            self._box = attrs.evolve(box, netns=isolated.netns)
        self._claim.advance("isolate", init=isolated.init)
        return attrs.evolve(isolated, netns=None)

    def limit(self, limits: Limits | None) -> tuple[Receipt, ...]:
        """Put limits in force: those of the spec, or (while it runs) others.

        Raises:
            LimitError: none has changed.
        """
        box = self._require("limit")
        limits = box.spec.limits if limits is None else limits
        with self._driver_call("limit"):
            receipts = tuple(self._driver.limit(box, limits))
        missing = set(limits.names()) - {receipt.name for receipt in receipts}
        if missing:
            raise DriverBugError(
                f"cannot trust the limits of container {box.id!r}: driver {self._driver.name!r} "
                f"gave no receipt for {', '.join(sorted(missing))}",
                driver=self._driver.name,
                container=box.id,
                operation="limit",
            )
        others = refusals.remaining_receipts(box, type(self._driver))
        self._claim.advance("limit", receipts=(*receipts, *others))
        return (*receipts, *others)

    def start(self) -> ProcessId:
        """Open the gate.

        Raises:
            StartError: the command was not run; the container has stopped.
        """
        box = self._require("start")
        try:
            with self._driver_call("start"):
                self._tree.watched = self._driver.start(box)
        except ExecdrvError as error:
            stats = box.group.stats() if box.group is not None else None
            self._tree.end(box)
            self._claim.update(state="stopped")
            if type(error) is StartError and stats is not None and stats.oom_kills:
                raise StartError(
                    "cannot start the command: its memory limit is too small to start in",
                    hint="raise the memory limit",
                ) from error
            raise
        self._started_at = time.monotonic()
        if box.spec.timeout:
            self.ends_at = self._started_at + box.spec.timeout
        for capture in self.captures.values():
            capture.close_write_end()
        self._close_stdio()
        job = box.init.job if box.init is not None else None
        self._claim.advance("start", job=job)
        return job or self._tree.watched

    def signal(self, signum: int) -> None:
        """Send a signal to the job: to its process group if it is one that a terminal sends.

        Raises:
            StateError: it does not run.
        """
        box = self._require("signal")
        record = self._claim.record
        job = record.job if record is not None else None
        if job is None:
            with self._driver_call("signal"):
                self._driver.signal(box, signum)
        elif signum in (signal.SIGINT, signal.SIGQUIT):
            # As the terminal does it (termios(3)): a shell that waits for its child would
            # otherwise not end before the child does. The init keeps the job's number.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, signum)
        else:
            procfs.send_signal(job, signum)

    def destroy(self) -> list[str]:
        """End and remove everything.

        Returns:
            What the driver's own `destroy` had left and the host had to end, in words.
        Raises:
            CleanupError: something is left; the record is kept, so that it can be tried again.
        """
        box = self._box
        if box is None or self._claim.directory_fd < 0:
            return []
        self._claim.update(state="destroying")
        if self._tree.watched is not None and self.exit is None:
            self.finish("destroyed")
        leftovers = self._call_destroy(box)
        ended = self._tree.end(box)
        if box.group is not None:
            leftovers += box.group.remove()
        if leftovers:
            raise CleanupError(
                f"cannot remove container {box.id!r} wholly: left is {leftovers[0]}",
                hint="`execdrv gc` tries again",
                container=box.id,
                driver=self._driver.name,
                operation="destroy",
                leftovers=leftovers,
            )
        self._claim.release()
        return ended

    # --- the end of the job --------------------------------------------------------------------

    def finish(self, reason: ExitReason | None = None) -> None:
        """The job has ended (no reason given), or is ended now for a reason.

        The numbers are read before the tree ends, the rest of the output after.
        """
        box = self._box
        if self.exit is not None or box is None:
            return
        link = box.init
        if reason is not None:
            kill_group(box)
        stats = box.group.stats() if box.group is not None else None
        exited = link.exited if link is not None else None
        self._tree.end(box)
        status = split_status(exited.status) if exited is not None else self._ask_driver()
        output = {name: capture.finish() for name, capture in self.captures.items()}
        self.exit = make_exit(
            reason,
            status=status,
            exited=exited,
            stats=stats,
            output=output,
            truncated=any(capture.truncated for capture in self.captures.values()),
            duration_s=time.monotonic() - self._started_at,
        )
        # The output goes to who waits; the record holds facts.
        self._claim.update(state="stopped", exit=attrs.evolve(self.exit, stdout=b"", stderr=b""))

    def _ask_driver(self) -> tuple[int | None, int | None]:
        """Code and signal from the watched process's status, where no init of ours reports."""
        link = self.link
        status = self._tree.watched_status
        # Below our init only its word counts: the watched process's status is not the job's.
        below_init = link is not None and link.job is not None
        if status is None or below_init or self._box is None:
            return None, None
        try:
            return self._driver.exit_of(self._box, status)
        except ExecdrvError:
            return None, None

    # --- pieces --------------------------------------------------------------------------------

    def _require(self, operation: str) -> Box:
        if self._box is None:
            raise StateError(
                f"cannot {operation} container {self._launch.id!r}: it was not created",
                container=self._launch.id,
                operation=operation,
                state="creating",
                allowed=list(TRANSITIONS[operation]),
            )
        self._claim.require(operation)
        return self._box

    def _check(self, box: Box) -> list[Refusal]:
        with self._driver_call("check"):
            return self._draft.list_refusals(box)

    def _open_stdio(self) -> tuple[int, int, int]:
        for name in ("stdout", "stderr"):
            if name not in self._fds:
                self.captures[name] = Capture(self._launch.capture_bytes)
        ends = {name: capture.write_end for name, capture in self.captures.items()}
        streams = {**self._fds, **ends}
        return streams["stdin"], streams["stdout"], streams["stderr"]

    def _close_stdio(self) -> None:
        """The job has its own by now; a pipe must have no writer but the job."""
        for name, fd in self._fds.items():
            if name in ("stdin", "stdout", "stderr") or name.startswith("pass:"):
                with contextlib.suppress(OSError):
                    os.close(fd)

    @contextlib.contextmanager
    def _driver_call(self, operation: str) -> Iterator[None]:
        """Run driver code, and keep what it wrote into its facts."""
        try:
            with driver_call(
                operation,
                driver=self._driver,
                container=self._launch.id,
                deadline_s=self._launch.deadline_s,
            ):
                yield
        except DeadlineError:
            # Whatever hangs must not outlive the answer.
            self._tree.end(self._box)
            raise
        finally:
            self._claim.keep_facts()

    def _call_destroy(self, box: Box) -> list[str]:
        return call_destroy(self._driver, box, deadline_s=self._launch.deadline_s)

    def _abandon(self) -> None:
        """Undo of `create`: the tree, the directory, the lock."""
        self._tree.end(self._box)
        self._claim.abandon()
        self._box = None
