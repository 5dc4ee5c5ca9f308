"""Looking at installed drivers and plugins, each in a child of its own.

Importing a plugin runs code of others, and so does asking a driver whether it can work here: it may
crash, hang or start threads. So nothing of it happens in the command; a child answers by a pipe, in
JSON, and is killed when it takes too long.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Iterable
from typing import Any

import attrs

from execdrv import wire
from execdrv.cli.output import describe_error
from execdrv.driver import DriverRef
from execdrv.errors import ExecdrvError
from execdrv.hookspecs import OPERATIONS
from execdrv.plugins import (
    OWN_DISTRIBUTION,
    EntryPoint,
    PluginHost,
    drivers_of,
    list_entry_points,
    load_driver,
)

#: Seconds for all children together.
TIMEOUT_S = 30.0


@attrs.frozen(kw_only=True)
class Found:
    """One name of the entry-point group."""

    name: str
    #: The distributions that bring it; more than one is a conflict.
    providers: tuple[str, ...]
    #: Whether it is one of execdrv's own.
    builtin: bool
    #: Whether it brings a driver.
    is_driver: bool = False
    version: str = ""
    #: Why the driver can't work here, or why the plugin can't be loaded; None: nothing known.
    problem: str | None = None
    #: Whether it could not be loaded at all.
    broken: bool = False
    #: Operations that it wraps.
    wraps: tuple[str, ...] = ()
    #: Of a driver: catalogue, `declared` by key, `offers` by id (execdrv.offers.Offers.to_plain).
    offers: dict[str, Any] = attrs.field(factory=dict)
    defaults: dict[str, Any] = attrs.field(factory=dict)
    options: dict[str, str] = attrs.field(factory=dict)


def survey(*, plugins: bool = True) -> list[Found]:
    """Look at everything installed, all at once; sorted by name."""
    points: dict[str, list[EntryPoint]] = {}
    for point in list_entry_points(plugins=plugins):
        points.setdefault(point.name, []).append(point)
    children = [_Child(name, same, plugins=plugins) for name, same in points.items()]
    deadline = time.monotonic() + TIMEOUT_S
    return [child.finish(deadline) for child in children]


class _Child:
    """One look; `finish` waits for its answer."""

    def __init__(self, name: str, points: list[EntryPoint], *, plugins: bool) -> None:
        self._found = Found(
            name=name,
            providers=tuple(point.provider for point in points),
            builtin=any(point.distribution == OWN_DISTRIBUTION for point in points),
        )
        self._read_end, write_end = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            _answer(self._found, points, write_end, plugins=plugins)
        os.close(write_end)

    def finish(self, deadline: float) -> Found:
        data = b""
        try:
            while chunk := _read_until(self._read_end, deadline):
                data += chunk
        finally:
            os.close(self._read_end)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            _, status = os.waitpid(self._pid, 0)
        if data.endswith(b"\n"):
            return wire.decode(Found, wire.loads(data))
        how = "took too long" if time.monotonic() >= deadline else _describe_end(status)
        return attrs.evolve(
            self._found, broken=True, problem=f"cannot look at {self._found.name!r}: it {how}"
        )


def _read_until(fd: int, deadline: float) -> bytes:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        return b""
    return os.read(fd, 1 << 16)


def _describe_end(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"was ended by signal {-code}" if code < 0 else f"ended its process with status {code}"


def _answer(found: Found, points: list[EntryPoint], write_end: int, *, plugins: bool) -> None:
    """In the child: look, answer, and never return."""
    try:
        # What a plugin prints when it is imported is not the command's output.
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        data = json.dumps(wire.encode(look_at(found, points, plugins=plugins))).encode() + b"\n"
        view = memoryview(data)
        while view:
            view = view[os.write(write_end, view) :]
    finally:
        os._exit(1)


def look_at(found: Found, points: Iterable[EntryPoint], *, plugins: bool) -> Found:
    """Import what one name means, and ask it; `found` with the answers."""
    try:
        point, *others = points
        if others:
            load_driver(DriverRef(target=found.name), plugins=plugins)
        wraps: tuple[str, ...] = ()
        if not found.builtin:
            wraps = _look_at_wrappers(point)
        plugin_drivers = _drivers_of(point)
        if not plugin_drivers and wraps:
            return attrs.evolve(found, wraps=wraps)
        driver = load_driver(DriverRef(target=found.name), plugins=plugins)
        found = attrs.evolve(
            found,
            wraps=wraps,
            is_driver=True,
            version=driver.version,
            offers=driver.offers.to_plain(),
            defaults=wire.encode(driver.defaults),
            options=dict(driver.options),
        )
        return attrs.evolve(found, problem=driver().availability())
    except ExecdrvError as error:
        return attrs.evolve(found, broken=True, problem=describe_error(error))
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        return attrs.evolve(found, broken=True, problem=problem)


def _look_at_wrappers(point: EntryPoint) -> tuple[str, ...]:
    """The operations that a plugin wraps.

    Raises:
        ExecdrvError: it can't be loaded.
    """
    host = PluginHost(object(), entry_points=[point])
    for failure in host.failures:
        raise failure.error
    return tuple(operation for operation in OPERATIONS if host.wrappers_of(operation))


def _drivers_of(point: EntryPoint) -> list[Any]:
    import importlib

    module, _, attribute = point.value.partition(":")
    plugin: Any = importlib.import_module(module)
    for part in attribute.split("."):
        plugin = getattr(plugin, part)
    return list(drivers_of(plugin, point))
