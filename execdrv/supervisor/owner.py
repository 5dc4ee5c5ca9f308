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

from execdrv import wire
from execdrv.driver import Box, Driver, Exit, ExitReason, Isolated, Refusal, refused
from execdrv.errors import (
    CleanupError,
    CreateError,
    DeadlineError,
    DriverBugError,
    ExecdrvError,
    OperationError,
    StartError,
    StateError,
)
from execdrv.init.link import InitLink
from execdrv.limits import Limits, Receipt
from execdrv.linux import cgroups, procfs
from execdrv.linux.leases import LEASE_BASE, Lease, lease_id
from execdrv.linux.procfs import ProcessId
from execdrv.linux.strays import end_descendants
from execdrv.registry import ContainerDirectory, Registry
from execdrv.state import (
    TRANSITIONS,
    Record,
    Root,
    State,
    next_state,
    now,
    read_boot_id,
)
from execdrv.supervisor import assemble, refusals
from execdrv.supervisor.capture import Capture
from execdrv.supervisor.guard import call_destroy, driver_call
from execdrv.supervisor.launch import Launch

#: Seconds for ending what is left of a container.
END_TIMEOUT_S = 10.0
#: Zombies taken before other work has its turn.
REAP_AT_ONCE = 256


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
        self._registry = Registry(launch.root)
        self._directory: ContainerDirectory | None = None
        self._lease: Lease | None = None
        self._box: Box | None = None
        self._record: Record | None = None
        self._reported: dict[int, int] = {}
        self._started_at = 0.0
        self._watched: ProcessId | None = None
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
        return self._record

    @property
    def watched(self) -> ProcessId | None:
        """The process whose end is the container's end, once the command runs."""
        return self._watched

    @property
    def directory_fd(self) -> int:
        """Descriptor of the container's directory; -1 where there is none."""
        return self._directory.fd if self._directory is not None else -1

    @property
    def state(self) -> State:
        return self._record.state if self._record is not None else "creating"

    # --- operations ----------------------------------------------------------------------------

    def check(self) -> list[Refusal]:
        """Everything that stands against this container. Changes nothing."""
        return self._check(self._assemble(leased_id=LEASE_BASE))

    def plan(self) -> dict[str, Any]:
        """What would be made, as plain data, with all refusals. Changes nothing."""
        box = self._assemble(leased_id=LEASE_BASE)
        plan: dict[str, Any] = {
            "id": box.id,
            "driver": self._driver.name,
            "rootfs": wire.encode(self._launch.rootfs),
            "root_mode": box.root_mode,
            "net": box.net,
            "hostname": box.hostname,
            "process": wire.encode(box.process),
            "limits": wire.encode(box.spec.limits),
            "refusals": wire.encode(self._check(box)),
        }
        with contextlib.suppress(ExecdrvError):
            plan["group"] = wire.encode(self._plan_group(box))
        return plan

    def create(self) -> None:
        """Make identity, record, group, and what is the driver's own; all or nothing.

        Raises:
            UnsupportedError: this driver or this machine can't; nothing was made.
            ContainerExistsError: the id is in use.
            CreateError: nothing is left.
            StateError: it was created.
        """
        # A second time it would give back the first one's lease.
        next_state("create", self.state, container=self._launch.id)
        with contextlib.ExitStack() as undo:
            undo.callback(self._release_lease)
            box = self._assemble(leased_id=LEASE_BASE)
            found = self._check(box)
            if found:
                raise refused(found, driver=self._driver.name)
            if self._leased:
                # Only now: for the machine's first number a directory is made.
                box = self._assemble(leased_id=self._take_lease())
            directory = self._registry.claim(box.id)
            undo.callback(self._abandon, directory)
            self._directory = directory
            plan = self._plan_group(box)
            try:
                self._write(self._first_record(box, plan))
                os.mkdir(box.directory, 0o711)
                group = cgroups.make_group(plan) if plan is not None else None
            except OSError as error:
                raise CreateError(
                    f"cannot create container {box.id!r}: {error.strerror}: {directory.path!r}",
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
            self._advance("create")
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
        self._advance("isolate", init=isolated.init)
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
        self._advance("limit", receipts=(*receipts, *others))
        return (*receipts, *others)

    def start(self) -> ProcessId:
        """Open the gate.

        Raises:
            StartError: the command was not run; the container has stopped.
        """
        box = self._require("start")
        try:
            with self._driver_call("start"):
                self._watched = self._driver.start(box)
        except ExecdrvError as error:
            stats = box.group.stats() if box.group is not None else None
            self._end_tree()
            self._update(state="stopped")
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
        self._advance("start", job=job)
        return job or self._watched

    def signal(self, signum: int) -> None:
        """Send a signal to the job: to its process group if it is one that a terminal sends.

        Raises:
            StateError: it does not run.
        """
        box = self._require("signal")
        job = self._record.job if self._record is not None else None
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
        box, directory = self._box, self._directory
        if box is None or directory is None:
            return []
        self._update(state="destroying")
        if self._watched is not None and self.exit is None:
            self.finish("destroyed")
        leftovers = self._call_destroy(box)
        ended = self._end_tree()
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
        self._release_directory(directory)
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
            self._kill_group(box)
        stats = box.group.stats() if box.group is not None else None
        exited = link.exited if link is not None else None
        self._end_tree()
        oom_kills = stats.oom_kills if stats is not None else 0
        code, signum, reason = judge(
            reason,
            exited=_split_status(exited.status) if exited is not None else self._ask_driver(),
            oom_kills=oom_kills,
        )
        cpu = stats.cpu_usage_us if stats is not None else None
        if cpu is None and exited is not None:
            cpu = exited.utime_us + exited.stime_us
        output = {name: capture.finish() for name, capture in self.captures.items()}
        self.exit = Exit(
            code=code,
            signal=signum,
            reason=reason,
            started=True,
            oom_kills=oom_kills,
            memory_peak_bytes=stats.memory_peak_bytes if stats is not None else None,
            cpu_usage_us=cpu,
            stdout=output.get("stdout", b""),
            stderr=output.get("stderr", b""),
            truncated=any(capture.truncated for capture in self.captures.values()),
            duration_s=round(time.monotonic() - self._started_at, 6),
        )
        # The output goes to who waits; the record holds facts.
        self._update(state="stopped", exit=attrs.evolve(self.exit, stdout=b"", stderr=b""))

    def _ask_driver(self) -> tuple[int | None, int | None]:
        """Code and signal from the watched process's status, where no init of ours reports."""
        link = self.link
        status = self._reported.get(self._watched.pid) if self._watched is not None else None
        # Below our init only its word counts: the watched process's status is not the job's.
        below_init = link is not None and link.job is not None
        if status is None or below_init or self._box is None:
            return None, None
        try:
            return self._driver.exit_of(self._box, status)
        except ExecdrvError:
            return None, None

    def reap(self) -> None:
        """Take the status of zombie children; that of the watched process is kept.

        At one go only so many: a fork storm makes them faster than anybody takes them.
        """
        with contextlib.suppress(ChildProcessError):
            for _ in range(REAP_AT_ONCE):
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if self._watched is None or pid == self._watched.pid:
                    self._reported[pid] = status

    # --- pieces --------------------------------------------------------------------------------

    def _require(self, operation: str) -> Box:
        if self._box is None or self._record is None:
            raise StateError(
                f"cannot {operation} container {self._launch.id!r}: it was not created",
                container=self._launch.id,
                operation=operation,
                state="creating",
                allowed=list(TRANSITIONS[operation]),
            )
        next_state(operation, self._record.state, container=self._launch.id)
        return self._box

    def _assemble(self, *, leased_id: int | None) -> Box:
        leased_id = leased_id if self._leased else None
        box = assemble.assemble_box(
            self._launch, type(self._driver), self._fds, leased_id=leased_id
        )
        return attrs.evolve(box, layout=self._detect_layout())

    def _detect_layout(self) -> cgroups.Layout:
        """The cgroup hierarchies; on cgroup2, which processes beside us are execdrv's own.

        A group there may have controllers or processes, not both: our own processes can make way,
        other people's can't (execdrv.linux.cgroups.plan).
        """
        ours = {os.getpid(), os.getppid(), self._launch.caller_pid}
        layout = cgroups.detect_layout(ours=tuple(ours))
        if layout.unified_group is None or not layout.unified_group.foreign:
            return layout
        for entry in self._registry.entries():
            if entry.alive and entry.record is not None:
                ours.add(entry.record.supervisor.pid)
        return cgroups.detect_layout(ours=tuple(ours))

    def _check(self, box: Box) -> list[Refusal]:
        driver = type(self._driver)
        facts = refusals.spec_facts(box.spec, driver, uid=box.process.uid)
        with self._driver_call("check"):
            return refusals.list_refusals(
                box, self._driver, facts=facts, shared_root=self._launch.shared_root
            )

    @property
    def _leased(self) -> bool:
        return assemble.needs_lease(self._launch.spec, type(self._driver).defaults)

    def _take_lease(self) -> int | None:
        """A uid of the container's own, held until the container is gone."""
        if not self._leased:
            return None
        Registry(os.path.dirname(self._registry.leases_path)).open()
        self._lease = lease_id(self._registry.leases_path)
        return self._lease.number

    def _release_lease(self) -> None:
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def _plan_group(self, box: Box) -> cgroups.GroupPlan | None:
        uses_group = type(self._driver).uses_group
        if not uses_group and not box.spec.limits.names():
            return None
        return cgroups.plan_group(
            box.layout,
            box.kernel_name,
            parent=box.spec.cgroup_parent or None,
            limits=box.spec.limits,
            devices=uses_group and cgroups.devices_supported(box.layout),
            everywhere=uses_group,
        )

    def _first_record(self, box: Box, plan: cgroups.GroupPlan | None) -> Record:
        root = os.fstat(box.root)
        supervisor = procfs.detect_process(os.getpid())
        return Record(
            boot_id=read_boot_id(),
            id=box.id,
            state="creating",
            driver=self._launch.driver,
            spec=box.spec,
            created_at=now(),
            supervisor=supervisor or ProcessId(pid=os.getpid(), start_time=0),
            root=Root(path=self._launch.rootfs, device=root.st_dev, inode=root.st_ino),
            process=box.process,
            group=plan,
        )

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

    def _write(self, record: Record) -> None:
        if self._directory is not None:
            self._directory.write(record)
        self._record = record

    def _update(self, **changes: Any) -> None:
        if self._record is not None:
            facts = dict(self._box.facts) if self._box is not None else {}
            with contextlib.suppress(OSError):
                self._write(attrs.evolve(self._record, facts=facts, **changes))

    def _advance(self, operation: str, **changes: Any) -> None:
        state = next_state(operation, self.state, container=self._launch.id)
        self._update(state=state, **changes)

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
            self._end_tree()
            raise
        finally:
            self._keep_facts()

    def _keep_facts(self) -> None:
        box, record = self._box, self._record
        if box is not None and record is not None and dict(box.facts) != record.facts:
            self._update()

    def _call_destroy(self, box: Box) -> list[str]:
        return call_destroy(self._driver, box, deadline_s=self._launch.deadline_s)

    def _kill_group(self, box: Box) -> None:
        if box.group is not None:
            with contextlib.suppress(OperationError, OSError):
                box.group.kill()

    def _end_tree(self) -> list[str]:
        """End every process of the container; what was still there, in words."""
        link = self.link
        if link is not None:
            link.close()
        # The init ends by itself when its gate closes; a pid namespace ends with it.
        if self._box is not None:
            self._kill_group(self._box)
        self.reap()
        found = [f"process {pid}" for pid in procfs.list_children(os.getpid())]
        end_descendants(timeout_s=END_TIMEOUT_S, reap=self.reap)
        return found

    def _abandon(self, directory: ContainerDirectory) -> None:
        """Undo of `create`: the tree, the directory, the lock."""
        self._end_tree()
        directory.remove()
        directory.close()
        self._directory = self._record = self._box = None

    def _release_directory(self, directory: ContainerDirectory) -> None:
        leftovers = directory.remove()
        if leftovers:
            raise CleanupError(
                f"cannot remove container {directory.id!r} wholly: left is {leftovers[0]}",
                hint="`execdrv gc` tries again",
                leftovers=leftovers,
            )
        directory.close()
        self._release_lease()
        self._directory = None


def judge(
    reason: ExitReason | None, *, exited: tuple[int | None, int | None], oom_kills: int
) -> tuple[int | None, int | None, ExitReason]:
    """Code, signal and reason of an end.

    Args:
        reason: why the host ended it; None: it ended by itself.
        exited: code and signal of the job; both None: nobody could tell.
        oom_kills: processes killed for memory.
    """
    code, signum = exited
    if reason is not None:
        return None, signal.SIGKILL, reason
    if code is not None:
        return code, None, "exited"
    if oom_kills and signum in (None, signal.SIGKILL):
        # None: the kernel ended the init itself.
        return None, signal.SIGKILL, "oom"
    return (None, signum, "signaled") if signum is not None else (None, None, "lost")


def _split_status(status: int) -> tuple[int | None, int | None]:
    """Code and signal of a raw wait status (wait(2))."""
    if os.WIFSIGNALED(status):
        return None, os.WTERMSIG(status)
    return os.WEXITSTATUS(status), None
