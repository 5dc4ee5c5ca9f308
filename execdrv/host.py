"""The Python API: a Host runs commands in containers, by any installed driver.

    with Host() as host:
        exit = host.run("native", ["true"], memory="64M")

Runs in the user's process and threads. Driver code never does: see execdrv.supervisor. What a Host
made and did not detach ends with it, with the process, or with the process's death.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from execdrv import wire
from execdrv.container import Container
from execdrv.dispatch import Dispatcher
from execdrv.driver import Driver, DriverRef, Exit, Refusal
from execdrv.errors import (
    CleanupError,
    ContainerNotFoundError,
    ExecdrvError,
    SpecError,
    UnsupportedError,
)
from execdrv.linux.leases import sweep_leases
from execdrv.plugins import PluginFailure, PluginHost, list_entry_points, load_driver
from execdrv.registry import Registry
from execdrv.spec import UNSET, ContainerSpec, value_or
from execdrv.state import new_id
from execdrv.supervisor.launch import (
    Collect,
    Launch,
    close_all,
    open_descriptors,
    own_rlimits,
    stdio_or_null,
)
from execdrv.supervisor.launcher import Launcher, ServerLauncher
from execdrv.units import parse_bytes

if TYPE_CHECKING:
    from types import TracebackType
    from typing import IO

    Stream = int | IO[Any] | None

#: Seconds that the end of a Host waits for its containers.
CLOSE_TIMEOUT_S = 15.0

_hosts: weakref.WeakSet[Host] = weakref.WeakSet()


class Host:
    """Makes containers, finds them, and ends them.

    Args:
        plugins: whether plugins of other distributions are loaded.
        root: the state directory; None: EXECDRV_ROOT, else /run/execdrv.
        deadline_s: most seconds for one method of a driver.
        launcher: how supervisors are started; None: by a fork server.
        progress: called with a line for each step of making the default root file system.
    """

    def __init__(
        self,
        *,
        plugins: bool = True,
        root: str | None = None,
        deadline_s: float = 30.0,
        launcher: Launcher | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self.registry = Registry(root)
        self.deadline_s = deadline_s
        self._use_plugins = plugins
        self._progress = progress
        self._launcher = ServerLauncher() if launcher is None else launcher
        self._dispatcher = Dispatcher()
        self._lock = threading.Lock()
        self._plugin_host: PluginHost | None = None
        self._containers: set[Container] = set()
        _hosts.add(self)

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- running -------------------------------------------------------------------------------

    def run(
        self, driver: str | DriverRef, argv_or_spec: Iterable[Any] | ContainerSpec, **fields: Any
    ) -> Exit:
        """Run a command to its end; nothing is left of it afterwards.

        Args:
            driver: the name of an installed driver, "MODULE:CLASS", or a DriverRef.
            argv_or_spec: the command, or a whole spec.
            fields: fields of ContainerSpec, and `stdin`, `stdout`, `stderr`, `capture` as for
                `container`.
        Raises:
            SpecError, UnsupportedError, OperationError: the command was not run; see errors.py.
        """
        with self.start(driver, argv_or_spec, **fields) as container:
            return container.wait()

    def start(
        self, driver: str | DriverRef, argv_or_spec: Iterable[Any] | ContainerSpec, **fields: Any
    ) -> Container:
        """Create, isolate, limit and start; the container is destroyed if any of them fails.

        Args, Raises: as `run`.
        """
        container = self.container(driver, argv_or_spec, **fields)
        try:
            container.create()
            container.isolate()
            container.limit()
            container.start()
        except BaseException:
            with contextlib.suppress(CleanupError):
                container.destroy()
            raise
        return container

    def container(
        self,
        driver: str | DriverRef,
        argv_or_spec: Iterable[Any] | ContainerSpec,
        *,
        stdin: Stream = None,
        stdout: Stream = 1,
        stderr: Stream = 2,
        capture: int | str | None = None,
        **fields: Any,
    ) -> Container:
        """A container whose steps the caller takes: create, isolate, limit, start.

        Args:
            driver, argv_or_spec, fields: as `run`.
            stdin, stdout, stderr: a descriptor or file that the job gets; None: /dev/null.
            capture: keep that many bytes (or "1M") of stdout and of stderr for the Exit, drop the
                rest.
        """
        spec = make_spec(argv_or_spec, fields)
        if capture is not None:
            capture = parse_bytes(capture, field="capture", minimum=0)
        ref = driver if isinstance(driver, DriverRef) else DriverRef(target=driver)
        rootfs, shared, lock_fd = self._find_root(spec)
        streams = [_descriptor(stdin), _descriptor(stdout), _descriptor(stderr)]
        launch = Launch(
            root=self.registry.root,
            id=value_or(spec.name, new_id()),
            driver=ref,
            spec=spec,
            plugins=self._use_plugins,
            caller_pid=os.getpid(),
            rootfs=rootfs,
            shared_root=shared,
            capture_bytes=capture or 0,
            rlimits=own_rlimits(),
            affinity=tuple(sorted(os.sched_getaffinity(0))),
            deadline_s=self.deadline_s,
        )
        with contextlib.ExitStack() as opened:
            if lock_fd is not None:
                opened.callback(os.close, lock_fd)
            stdio = [
                None if capture is not None and number > 0 else _open_stream(fd, opened)
                for number, fd in enumerate(streams)
            ]
            fds = open_descriptors(spec, rootfs, stdio)
            opened.callback(close_all, fds)
            if lock_fd is not None:
                fds = {**fds, "root-lock": lock_fd}
            starter = self._launcher.launch(launch, fds)
        container = Container(self, launch.id, starter=starter, spec=spec)
        with self._lock:
            self._containers.add(container)
        return container

    def check(
        self, driver: str | DriverRef, argv_or_spec: Iterable[Any] | ContainerSpec, **fields: Any
    ) -> list[Refusal]:
        """Everything that stands against a container; empty if it can be made. Changes nothing."""
        container = self.container(driver, argv_or_spec, **fields)
        try:
            return wire.decode(list[Refusal], container.ask_starter("check"))
        finally:
            container.release()

    def plan(
        self, driver: str | DriverRef, argv_or_spec: Iterable[Any] | ContainerSpec, **fields: Any
    ) -> dict[str, Any]:
        """What would be made, as plain data, with all refusals. Changes nothing."""
        container = self.container(driver, argv_or_spec, **fields)
        try:
            plan: dict[str, Any] = container.ask_starter("plan")
            return plan
        finally:
            container.release()

    def _find_root(self, spec: ContainerSpec) -> tuple[bytes, bool, int | None]:
        """The root's path, whether it is a shared one, and a lock that keeps it from removal."""
        from execdrv import rootfs

        if spec.rootfs is not UNSET:
            return spec.rootfs, rootfs.is_cached_root(os.fsdecode(spec.rootfs)), None
        root = rootfs.default_root(progress=self._progress)
        return os.fsencode(root.path), True, rootfs.use_root(root)

    # --- containers ----------------------------------------------------------------------------

    def containers(self) -> list[Container]:
        """All containers of this state directory, whoever made them; lost ones too."""
        return [Container(self, name) for name in self.registry.names()]

    def get(self, id: str) -> Container:
        """The container of that id.

        Raises:
            ContainerNotFoundError: there is none.
        """
        if self.registry.entry(id) is None:
            raise ContainerNotFoundError(
                f"cannot find container {id!r}: there is none of that name",
                hint="`execdrv ps` lists them",
                container=id,
            )
        return Container(self, id)

    def destroy(self, id: str) -> None:
        """End and remove a container, also one whose supervisor is gone.

        Raises:
            ContainerNotFoundError: there is none.
            CleanupError: something is left.
        """
        self.get(id).destroy()

    def gc(self) -> dict[str, ExecdrvError | None]:
        """Destroy every container whose supervisor is gone.

        Returns:
            The ids, each with None or the error of what could not be removed.
        """
        done: dict[str, ExecdrvError | None] = {}
        for entry in self.registry.entries():
            if entry.alive:
                continue
            try:
                self.collect(entry.id)
            except ContainerNotFoundError:
                continue
            except ExecdrvError as error:
                done[entry.id] = error
            else:
                done[entry.id] = None
        kept = [entry.record.process.uid for entry in self.registry.entries() if entry.record]
        sweep_leases(self.registry.leases_path, keep=kept)
        return done

    # --- plugins -------------------------------------------------------------------------------

    @property
    def plugin_host(self) -> PluginHost:
        """The hooks; plugins are loaded when it is first asked for."""
        with self._lock:
            if self._plugin_host is None:
                self._plugin_host = PluginHost(self._dispatcher, plugins=self._use_plugins)
            return self._plugin_host

    @property
    def plugin_failures(self) -> list[PluginFailure]:
        """Plugins that could not be loaded."""
        return list(self.plugin_host.failures)

    def drivers(self) -> dict[str, type[Driver] | ExecdrvError]:
        """Every installed driver's class by name, or the error of one that can't be loaded."""
        found: dict[str, type[Driver] | ExecdrvError] = {}
        brought_none = {failure.entry_point.name: failure for failure in self.plugin_failures}
        for point in list_entry_points(plugins=self._use_plugins):
            try:
                found[point.name] = load_driver(
                    DriverRef(target=point.name), plugins=self._use_plugins
                )
            except ExecdrvError as error:
                # A plugin of wrappers only brings no driver, and that is no fault.
                if point.name in brought_none or "brings no driver" not in str(error):
                    found[point.name] = error
        return found

    def explain(self, error: ExecdrvError, spec: ContainerSpec | None) -> ExecdrvError:
        """Add to a refusal which installed drivers could do what was asked."""
        if not isinstance(error, UnsupportedError) or not error.refusals or spec is None:
            return error
        wanted = {refusal["guarantee"] for refusal in error.refusals if refusal["guarantee"]}
        if not wanted:
            return error
        able = [
            name
            for name, cls in self.drivers().items()
            if name != error.driver
            and not isinstance(cls, ExecdrvError)
            and _can(cls, wanted, spec)
        ]
        error.alternatives = able
        offered = ", ".join(able) if able else "none of those installed"
        error.hint = error.hint or f"drivers that could: {offered}"
        return error

    # --- for Container -------------------------------------------------------------------------

    def operate(self, operation: str, container: Container, **arguments: Any) -> Any:
        """Call an operation's hook."""
        return self._dispatcher.operate(self.plugin_host, operation, container, **arguments)

    def collect(self, id: str) -> list[str]:
        """Destroy a lost container; see execdrv.supervisor.collector."""
        return self._launcher.collect(
            Collect(
                root=self.registry.root,
                id=id,
                plugins=self._use_plugins,
                deadline_s=self.deadline_s,
            )
        )

    def end_orphans(self) -> None:
        """End what a dead supervisor has left below this process."""
        self._launcher.end_orphans()

    def forget(self, container: Container) -> None:
        """The container is gone."""
        with self._lock:
            self._containers.discard(container)

    # --- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Destroy what this Host made, and wait until it is gone. Repeatable."""
        with self._lock:
            containers = list(self._containers)
        for container in containers:
            with contextlib.suppress(ExecdrvError):
                container.destroy()
        self._launcher.close()
        for container in containers:
            container.wait_gone(CLOSE_TIMEOUT_S)
            container.close()
        _hosts.discard(self)

    def forget_parent(self) -> None:
        """In a forked child of the user's program: its containers are the parent's."""
        self._lock = threading.Lock()
        for container in self._containers:
            container.forget_parent()
        self._containers = set()
        if isinstance(self._launcher, ServerLauncher):
            self._launcher.forget()


def make_spec(
    argv_or_spec: Iterable[Any] | ContainerSpec, fields: Mapping[str, Any]
) -> ContainerSpec:
    """A spec from a command, or from a spec whose fields others override.

    Raises:
        SpecError: a field is unknown or out of range.
    """
    known = {field.name for field in attrs.fields(ContainerSpec)}
    for name in fields:
        if name not in known or name == "argv":
            raise SpecError(
                f"cannot use field {name!r}: a spec has no such field",
                hint=f"fields are {', '.join(sorted(known))}",
                field=name,
            )
    if isinstance(argv_or_spec, ContainerSpec):
        return attrs.evolve(argv_or_spec, **fields)
    return ContainerSpec(argv=argv_or_spec, **fields)


def _descriptor(stream: Stream) -> int | None:
    if stream is None or isinstance(stream, int):
        return stream
    return stream.fileno()


def _open_stream(fd: int | None, opened: contextlib.ExitStack) -> int:
    """The descriptor, or /dev/null where there is none or it is closed."""
    if fd is not None and fd > 2:
        return fd
    found = stdio_or_null(-1 if fd is None else fd)
    if found != fd:
        opened.callback(os.close, found)
    return found


def _can(driver: type[Driver], wanted: Iterable[str], spec: ContainerSpec) -> bool:
    """Whether a driver's offers would let a spec pass; a user's name is not looked up for this."""
    from execdrv.supervisor.refusals import spec_facts

    number = value_or(spec.user, "").partition(":")[0]
    uid = int(number) if number.isdigit() else driver.defaults.uid
    facts = spec_facts(spec, driver, uid=uid)
    return all(driver.offers.refusal_for(guarantee, facts) is None for guarantee in wanted)


def _close_all_hosts() -> None:
    for host in list(_hosts):
        with contextlib.suppress(ExecdrvError, OSError):
            host.close()


def _forget_all_parents() -> None:
    for host in list(_hosts):
        host.forget_parent()


atexit.register(_close_all_hosts)
os.register_at_fork(after_in_child=_forget_all_parents)
