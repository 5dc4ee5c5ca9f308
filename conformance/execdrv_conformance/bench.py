"""What a check works with: containers of the driver under test, or none at all, and observers.

`Bench` is one case in one arm. In the arm `control` there is no driver: the same job runs as a
plain child of this process, which is the caller, with all that a careless driver would pass on.
Runs in the stand-in host's worker.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs

from execdrv.container import Container
from execdrv.driver import DriverRef, Exit
from execdrv.errors import ExecdrvError
from execdrv.host import Host
from execdrv.spec import Bind, Rlimit, Tmpfs
from execdrv_conformance.agent import BOOTSTRAP, Agent, AgentError, Line
from execdrv_conformance.declaration import Declaration
from execdrv_conformance.observe import process
from execdrv_conformance.observe.snapshot import Snapshot, take_snapshot
from execdrv_conformance.standin.furnish import Canaries
from execdrv_conformance.standin.tree import copy_tree

T = TypeVar("T")

#: The interpreter, in the kit's root file system and on the machine.
PYTHON = "/usr/bin/python3"
#: Seconds for a driver to start an agent.
START_TIMEOUT_S = 15.0
#: Seconds that each method of the driver may take.
DEADLINE_S = 5.0


@attrs.define(kw_only=True)
class Look:
    """A running container with its agent, as observers see it."""

    bench: Bench
    agent: Agent
    #: None in the arm `control`.
    container: Container | None
    #: Fields that were asked, those left out gone.
    fields: Mapping[str, Any]
    #: The directory that is the container's root, on the machine.
    root: Path

    @property
    def pid(self) -> int:
        """The job's process, found by the kernel's word."""
        return self.agent.pid

    @property
    def canaries(self) -> Canaries:
        """The canaries of this stand-in host."""
        return self.bench.canaries


@attrs.define(kw_only=True, eq=False)
class Bench:
    """One case in one arm."""

    #: `driver` or `control`.
    arm: str
    driver: DriverRef
    declaration: Declaration
    host: Host
    canaries: Canaries
    scratch: Path
    #: Facts of the machine by name.
    machine: Mapping[str, bool]
    rng: random.Random
    #: The kit's root file system for this session; cases that change it take `fresh_root`.
    root: Path
    #: Every call of the driver, in order.
    calls: list[dict[str, Any]] = attrs.field(factory=list)
    #: Fields of specs that were left out, with the id the driver lacks.
    left_out: dict[str, str] = attrs.field(factory=dict)
    #: Fields of the last spec, as asked.
    asked: dict[str, Any] = attrs.field(factory=dict)
    #: How the last agent's container ended.
    exit: Exit | None = None
    stderr: str = ""
    #: Why the process that spoke is not the job that was asked for; empty: it is.
    impostor: str = ""
    _shared: dict[Callable[..., Any], Any] = attrs.field(factory=dict)

    @property
    def is_control(self) -> bool:
        """Whether nothing is isolated."""
        return self.arm == "control"

    def nonce(self) -> str:
        """A new word that no driver can know."""
        return f"xdc{self.rng.getrandbits(64):016x}"

    def share(self, gather: Callable[[Bench], T]) -> T:
        """What `gather` returns, asked once a case: for scenarios of several checks.

        What it asked of the driver, and who spoke for the job, is so for each of these checks.
        """
        if gather not in self._shared:
            self._shared[gather] = self._gather(gather)
        result: T
        result, asked, impostor = self._shared[gather]
        if asked is not None:
            self.asked = dict(asked)
        self.impostor = self.impostor or impostor
        return result

    def _gather(self, gather: Callable[[Bench], T]) -> tuple[T, dict[str, Any] | None, str]:
        """What it returns, what it asked (None: nothing of a driver), and who spoke instead."""
        asked, impostor = self.asked, self.impostor
        unasked: dict[str, Any] = {}
        self.asked, self.impostor = unasked, ""
        try:
            result = gather(self)
            return result, None if self.asked is unasked else self.asked, self.impostor
        finally:
            # Of one that fails, the check that asked for it knows what was asked.
            self.asked = asked if self.asked is unasked else self.asked
            self.impostor = impostor or self.impostor

    def directory(self, name: str) -> Path:
        """A new directory of this case's own."""
        path = self.scratch / f"{name}-{self.rng.getrandbits(32):08x}"
        path.mkdir(mode=0o755)
        path.chmod(0o755)
        return path

    def fresh_root(self) -> Path:
        """A copy of the root file system, for a case that spoils it."""
        path = self.scratch / f"root-{self.rng.getrandbits(32):08x}"
        copy_tree(self.root, path)
        return path

    def snapshot(self) -> Snapshot:
        """What there is on the machine that a container could leave behind."""
        return take_snapshot(self.scratch)

    # --- containers of the driver ---------------------------------------------------------------

    def adapt(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields without those that the driver does not offer; these are noted."""
        if self.is_control:
            return dict(fields)
        kept, out = self.declaration.leave_out(fields, self.machine)
        self.left_out.update(out)
        return kept

    def container(self, argv: list[Any], **fields: Any) -> Container:
        """A container whose steps the check takes, on the kit's root; see `Host.container`."""
        fields.setdefault("rootfs", self.root)
        return self.host.container(self.driver, argv, **fields)

    def start(self, argv: list[Any], **fields: Any) -> Container:
        """A container that runs; see `Host.start`."""
        fields.setdefault("rootfs", self.root)
        with self.timed("start", fields):
            return self.host.start(self.driver, argv, **fields)

    def run(self, argv: list[Any], **fields: Any) -> Exit:
        """Run a command to its end; see `Host.run`."""
        fields.setdefault("rootfs", self.root)
        with self.timed("run", fields):
            return self.host.run(self.driver, argv, **fields)

    def python(self, program: str, *arguments: str) -> list[str]:
        """A command that runs a few lines of Python."""
        return [PYTHON, "-I", "-S", "-c", program, *arguments]

    @contextlib.contextmanager
    def timed(self, call: str, fields: Mapping[str, Any] | None = None) -> Iterator[None]:
        """Note a call of the driver's, its time and its error."""
        begun = time.monotonic()
        entry: dict[str, Any] = {"call": call, "fields": to_plain(fields or {})}
        self.calls.append(entry)
        try:
            yield
        except ExecdrvError as error:
            entry["error"] = describe_error(error)
            raise
        finally:
            entry["took_s"] = round(time.monotonic() - begun, 4)

    # --- agents ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def agent(self, **fields: Any) -> Iterator[Look]:
        """An agent in a container (or in none) with the fields that the driver offers.

        Raises:
            AgentError: it does not answer.
            ExecdrvError: the driver did not start it.
        """
        root = Path(fields.get("rootfs", self.root))
        fields = self.adapt(fields)
        self.asked = dict(fields)
        nonce = self.nonce()
        with contextlib.ExitStack() as stack:
            line = Line()
            stack.callback(line.close)
            complaints = stack.enter_context(open(self.scratch / f"{nonce}.err", "w+b"))
            stack.callback(os.unlink, complaints.name)
            argv = [*self.python(BOOTSTRAP), nonce]
            container: Container | None = None
            if self.is_control:
                pid = _start_child(argv, fields, line.theirs.fileno(), complaints.fileno())
                stack.callback(_end_child, pid, nonce)
            else:
                fields.setdefault("rootfs", root)
                container = self.start(
                    argv,
                    stdin=line.theirs,
                    stdout=line.theirs,
                    stderr=complaints,
                    **fields,
                )
                stack.callback(self._destroy, container)
            line.theirs.close()
            agent = Agent(line, nonce)
            try:
                agent.greet(timeout_s=START_TIMEOUT_S)
                if container is not None:
                    self.impostor = self.impostor or find_impostor(agent.pid, argv, root)
                yield Look(bench=self, agent=agent, container=container, fields=fields, root=root)
            except AgentError as error:
                raise AgentError(f"{error}{self._explain(container, complaints)}") from error

    def _destroy(self, container: Container) -> None:
        with self.timed("destroy"):
            container.destroy()
        if (exit := container.exit) is not None:
            self.exit = exit

    def _explain(self, container: Container | None, complaints: Any) -> str:
        """What is known of an agent that is gone."""
        complaints.seek(0)
        words = complaints.read()[-2000:].decode(errors="replace").strip()
        self.stderr = words
        found = ""
        if container is not None:
            with contextlib.suppress(TimeoutError, ExecdrvError):
                self.exit = container.wait(timeout_s=1.0)
                found = f" (the job: {self.exit.reason}, status {self.exit.status})"
        return f"{found}: {words.splitlines()[-1]}" if words else found


def find_impostor(pid: int, argv: list[str], root: Path) -> str:
    """Why a process is not the interpreter of the kit's root, running this command; or nothing.

    A driver could answer for the job. The kernel says what the process that wrote is.
    """
    try:
        words = process.read_words(pid)
        size = os.stat(f"/proc/{pid}/exe").st_size
    except OSError as error:
        return f"process {pid}, which spoke for the job, can't be seen: {error.strerror}"
    if words != [word.encode() for word in argv]:
        return f"process {pid}, which spoke for the job, runs {b' '.join(words)[:80]!r}"
    if size != (root / PYTHON.lstrip("/")).stat().st_size:
        return f"process {pid}, which spoke for the job, is another program"
    return ""


def _start_child(argv: list[str], fields: Mapping[str, Any], stream: int, complaints: int) -> int:
    """The control: a child of the caller, with what the caller has. Only what works as asked is
    done: user, variables, directory."""
    pid = os.fork()
    if pid:
        return pid
    try:
        # Blocked signals and ignored ones, umask, groups and descriptors stay as the caller's.
        for number, fd in ((0, stream), (1, stream), (2, complaints)):
            os.dup2(fd, number)
        environment = dict(os.environb)
        for word in _words_of(fields.get("env", {})):
            name, _, value = word.partition(b"=")
            environment[name] = value
        if "workdir" in fields:
            os.chdir(fields["workdir"])
        if "user" in fields:
            user, _, group = str(fields["user"]).partition(":")
            gid = int(fields.get("group") or group or user)
            os.setresgid(gid, gid, gid)
            if int(user):
                os.setresuid(int(user), int(user), int(user))
        os.execve(argv[0], argv, environment)
    finally:
        os._exit(127)


def _words_of(env: Any) -> list[bytes]:
    if isinstance(env, Mapping):
        return [os.fsencode(name) + b"=" + os.fsencode(value) for name, value in env.items()]
    return [os.fsencode(word) for word in env]


def _end_child(pid: int, nonce: str) -> None:
    """End a control and all that came of it, whoever their parent is by now."""
    for one in {*process.list_tree(pid), *process.find_marked(nonce)}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, 9)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def describe_error(error: ExecdrvError) -> dict[str, Any]:
    """An error as plain data: its classes, nearest first, message, hint, and its fields."""
    names = [cls.__name__ for cls in type(error).__mro__]
    fields = {
        name: value
        for name, value in vars(error).items()
        if isinstance(value, str | int | float) and not name.startswith("_")
    }
    return {"classes": names[: names.index("ExecdrvError") + 1], "message": str(error), **fields}


def to_plain(value: Any) -> Any:
    """Fields of a spec for a report."""
    match value:
        case Mapping():
            return {str(name): to_plain(item) for name, item in value.items()}
        case list() | tuple():
            return [to_plain(item) for item in value]
        case bytes():
            return os.fsdecode(value)
        case Path():
            return str(value)
        case Bind() | Tmpfs() | Rlimit():
            return to_plain(attrs.asdict(value))
        case str() | int() | float() | None:
            return value
        case _ if hasattr(value, "fileno"):
            return "a stream"
        case _:
            return repr(value)
