"""The contract between host and driver: what a driver author implements and gets.

A driver is a class that makes and runs containers by one mechanism. Its class attributes are
constant data (the caller may import the class and read them; it never calls a method); its
methods run in a container's supervisor, a single-threaded process that loads this driver alone,
and no method waits for the job. What each operation must leave behind is said at its method.

There is no code of the host's in here: signatures, values and docstrings only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

from execdrv.errors import ExecdrvError, UnsupportedError
from execdrv.limits import Limits, Receipt
from execdrv.linux.cgroups import Layout
from execdrv.linux.procfs import ProcessId
from execdrv.spec import ContainerSpec

if TYPE_CHECKING:
    from execdrv.init import Order
    from execdrv.init.link import InitLink
    from execdrv.linux.cgroups import Group
    from execdrv.offers import Offers

#: The version of this contract; a driver names the one it was written for.
CONTRACT_VERSION = 1

ExitReason = Literal["exited", "signaled", "oom", "timeout", "destroyed", "lost"]


@attrs.frozen(kw_only=True)
class DriverRef:
    """Names a driver: an entry point of group `execdrv`, or MODULE:CLASS."""

    #: Entry-point name, or "package.module:ClassName".
    target: str
    #: Driver options as data; joined with the spec's `driver_options`.
    options: dict[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Refusal:
    """Something this driver, or this machine, can't do for a box."""

    #: One line: what can't be done and why, values quoted.
    message: str
    #: What to do instead, one line.
    hint: str = ""
    #: The spec field at fault, where there is one.
    field: str = ""
    #: The guarantee that can't be kept, where there is one.
    guarantee: str = ""


@attrs.frozen(kw_only=True)
class Defaults:
    """What a container of this driver gets where nobody asked: data, shown in the docs.

    Every driver also has: no_new_privs, umask 0022, working directory /, PATH and HOME and no
    other variable, RLIMIT_CORE 0, a soft nofile of at most 1024, other rlimits as the caller's.
    """

    #: User and group number; None: a uid of the container's own, from the host's range.
    uid: int | None
    gid: int | None
    #: Capabilities in the bounding, permitted and effective sets; the other two are empty.
    capabilities: frozenset[str]
    #: private, read-only or direct.
    root_mode: str
    #: none or host.
    net: str
    #: Namespaces made for the container, by the names of namespaces(7).
    namespaces: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Exit:
    """How a container ended; `code` and `signal` are never both set.

    The command line maps it: exited N to N; signaled n to 128+n; oom, timeout and destroyed to
    137; lost to 125.
    """

    #: The job's exit status, 0 to 255; None if it did not exit.
    code: int | None
    #: The signal that ended the job; None if none did.
    signal: int | None
    reason: ExitReason
    #: Whether the command ever ran.
    started: bool
    #: Processes killed for memory, children of the job included.
    oom_kills: int = 0
    #: Most memory of all processes together, where a group counts it.
    memory_peak_bytes: int | None = None
    #: Cpu time of all processes together (the main process where there is no group).
    cpu_usage_us: int | None = None
    #: Captured output, at most the asked number of bytes each.
    stdout: bytes = b""
    stderr: bytes = b""
    #: Whether a stream had more than was kept.
    truncated: bool = False
    #: Wall time from start to end, in seconds.
    duration_s: float | None = None

    @property
    def status(self) -> int:
        """The exit status for the command line, 0 to 255."""
        if self.reason == "exited" and self.code is not None:
            return self.code
        if self.reason == "signaled" and self.signal is not None:
            return 128 + self.signal
        return 125 if self.reason == "lost" else 137


@attrs.frozen(kw_only=True)
class Isolated:
    """What `isolate` made."""

    #: The process inside the walls whose end is the container's end, or None if there is none yet.
    init: ProcessId | None
    #: Descriptor of the container's network namespace, where the driver made one.
    netns: int | None = None


@attrs.frozen(kw_only=True, eq=False)
class Box:
    """What every driver method gets. Immutable for the driver, except for `facts`."""

    #: The container's id.
    id: str
    #: A name derived from the id for kernel objects: short, of [a-z0-9-], unique to this id.
    kernel_name: str
    #: What was asked; UNSET fields are the driver's defaults.
    spec: ContainerSpec
    #: What the init will run, every default resolved: argv, env, ids, capabilities, rlimits, cwd.
    process: Order
    #: Root mode, network and host name with the driver's defaults filled in.
    root_mode: str
    net: str
    hostname: str
    #: Descriptors (O_PATH) of the root directory and of each bind's source, in the spec's order.
    root: int
    bind_sources: tuple[int, ...] = ()
    #: Three ready descriptors: the job's 0, 1 and 2.
    stdio: tuple[int, int, int] = (0, 1, 2)
    #: Descriptors for the job beside stdio: number in the job -> descriptor here.
    passed: dict[int, int] = attrs.field(factory=dict)
    #: The machine's cgroup hierarchies, and where in them this container's group may stand.
    layout: Layout = attrs.field(factory=Layout)
    #: The made cgroup, or None (no limit was asked and the driver does not use one; or `check`).
    group: Group | None = None
    #: Descriptor of the network namespace that `isolate` returned.
    netns: int | None = None
    #: The init's binary and gate; None at `check` and at a `destroy` from the record.
    init: InitLink | None = None
    #: A private directory (0700) of this container for the driver's own files, as absolute path.
    directory: bytes = b""
    #: Driver options: DriverRef.options joined with the spec's.
    options: dict[str, str] = attrs.field(factory=dict)
    #: The driver's own lines in the record (plain data); kept after each operation.
    facts: MutableMapping[str, Any] = attrs.field(factory=dict)


class Driver(ABC):
    """A way to make and run containers.

    Class attributes are constant data. One instance is made per supervisor, without arguments.
    Methods raise execdrv errors with message, hint and their own fields; the host fills in driver,
    container and operation. Anything else they raise reaches the caller as DriverBugError. Each
    method has the host's deadline (30 s unless told otherwise).
    """

    #: The entry point's name: [a-z][a-z0-9_-]{0,31}.
    name: ClassVar[str]
    #: The contract version this driver was written for; not inherited, so that it is never a guess.
    contract: ClassVar[int]
    #: The driver's own version.
    version: ClassVar[str] = ""
    #: What it declares of every guarantee.
    offers: ClassVar[Offers]
    defaults: ClassVar[Defaults]
    #: Whether it wants a cgroup even when no limit is asked.
    uses_group: ClassVar[bool] = False
    #: Options it understands, with a line of help each; others are refused.
    options: ClassVar[dict[str, str]] = {}

    def availability(self) -> str | None:
        """Why this driver can't work on this machine at all, in one line with the way out; or None.

        Changes nothing. Called in a process of its own.
        """
        return None

    @abstractmethod
    def check(self, box: Box) -> Sequence[Refusal]:
        """All reasons why this box can't be made, by this driver or on this machine.

        Pure look: nothing has changed after it. `box.group`, `netns` and `init` are None.
        What it can see here it must not refuse later.
        """

    @abstractmethod
    def create(self, box: Box) -> None:
        """Prepare what is the driver's own. Nothing runs and nothing is mounted after it.

        The host has written the record, made `directory` and `group`. Names of whatever is made
        here must be in `facts` or derived from `kernel_name`, so that `destroy` finds them.

        Raises:
            CreateError: nothing of it is left.
        """

    @abstractmethod
    def isolate(self, box: Box) -> Isolated:
        """Build the walls and start the init inside; it waits at its gate (`box.init`).

        Namespaces, mounts and the view of the root exist only inside the container's own mount
        namespace: never a mount in the machine's.

        Raises:
            IsolationError: nothing runs.
        """

    @abstractmethod
    def limit(self, box: Box, limits: Limits) -> Sequence[Receipt]:
        """Put limits in force and read each back; may be called again while the job runs.

        Returns:
            One receipt for each limit that was asked, applied or clamped.
        Raises:
            LimitError: a limit could not be applied; none has changed. It carries all receipts.
        """

    @abstractmethod
    def start(self, box: Box) -> ProcessId:
        """Open the gate: the command runs when this returns.

        Returns:
            The process (child or descendant of this one) whose end is the container's end.
        Raises:
            StartError: the command was not run; CommandNotFoundError and
                CommandNotExecutableError where that is why.
        """

    @abstractmethod
    def destroy(self, box: Box) -> None:
        """Remove everything this driver made. Repeatable; the job may be running.

        Works from the record alone in a fresh process (`box.init` is None then). The host ends
        the processes of `group` and removes it, the directory and the record afterwards.

        Raises:
            CleanupError: with the leftovers.
        """

    # --- optional operations -------------------------------------------------------------------

    def signal(self, box: Box, signum: int) -> None:
        """Send a signal to the job, where the host can't do it itself (no init of ours).

        Raises:
            UnsupportedError: this driver can't.
        """
        raise UnsupportedError(
            f"cannot send signal {signum}: driver {self.name!r} has no way to", driver=self.name
        )

    def exit_of(self, box: Box, status: int) -> tuple[int | None, int | None]:
        """Code and signal of the job, from the raw wait status of the process `start` returned.

        Asked only where the job does not run below execdrv-init, which reports exactly.
        """
        raise UnsupportedError(
            f"cannot tell the exit status: driver {self.name!r} does not report it",
            driver=self.name,
        )


def refused(refusals: Sequence[Refusal], *, driver: str) -> ExecdrvError:
    """One error for all refusals of a check; its message is the first, its `refusals` all."""
    first = refusals[0]
    more = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
    return UnsupportedError(
        first.message + more,
        hint=first.hint,
        driver=driver,
        guarantee=first.guarantee or None,
        refusals=[attrs.asdict(refusal) for refusal in refusals],
    )
