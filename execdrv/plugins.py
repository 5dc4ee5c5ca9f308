"""Finding and loading plugins: the only module that knows pluggy's PluginManager.

An entry point of group `execdrv` names a plugin object. One that brings a driver has the driver's
name; so a supervisor finds the one driver it needs without importing any other plugin, and two
providers of a name are seen without importing either. Broken plugins are kept as failures, never
raised in the face of somebody who runs another driver.

Entry points are read from the `entry_points.txt` files on sys.path by an own reader:
importlib.metadata costs 40 ms at each start.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import pluggy

from execdrv import hookspecs
from execdrv.driver import CONTRACT_VERSION, Driver, DriverRef
from execdrv.errors import DriverConflictError, ExecdrvError, PluginError, UnknownDriverError
from execdrv.offers import Offers

GROUP = "execdrv"
#: The distribution whose entry points are loaded with --no-plugins too.
OWN_DISTRIBUTION = "execdrv"

_DRIVER_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


@attrs.frozen(kw_only=True, order=True)
class EntryPoint:
    """One line of a distribution's entry points."""

    name: str
    #: "module:attribute".
    value: str
    distribution: str
    version: str

    @property
    def provider(self) -> str:
        """The distribution and its version, for messages."""
        return f"{self.distribution} {self.version}".strip()


@attrs.frozen(kw_only=True)
class PluginFailure:
    """A plugin that could not be loaded, and why."""

    entry_point: EntryPoint
    error: ExecdrvError


def list_entry_points(
    group: str = GROUP, *, path: Iterable[str] | None = None, plugins: bool = True
) -> list[EntryPoint]:
    """The entry points of a group in all installed distributions, sorted by name.

    Args:
        group: the entry-point group.
        path: directories to look in; None: sys.path.
        plugins: False: only those of execdrv itself.
    """
    found: list[EntryPoint] = []
    seen: set[str] = set()
    for directory in sys.path if path is None else path:
        for info in _list_metadata(directory or "."):
            distribution, version = _split_info_name(os.path.basename(info))
            # The first of a name on the path is the one that is imported.
            if distribution in seen:
                continue
            seen.add(distribution)
            if plugins or distribution == OWN_DISTRIBUTION:
                found += [
                    EntryPoint(name=name, value=value, distribution=distribution, version=version)
                    for name, value in _read_entry_points(info, group)
                ]
    return sorted(found)


def _list_metadata(directory: str) -> list[str]:
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return [
        os.path.join(directory, name)
        for name in sorted(names)
        if name.endswith((".dist-info", ".egg-info"))
    ]


def _split_info_name(name: str) -> tuple[str, str]:
    stem = name.rpartition(".")[0]
    distribution, _, version = stem.partition("-")
    return re.sub(r"[-_.]+", "-", distribution).lower(), version


def _read_entry_points(info: str, group: str) -> list[tuple[str, str]]:
    try:
        with open(os.path.join(info, "entry_points.txt"), encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError):
        return []
    found, section = [], ""
    for line in lines:
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
        elif section == group and "=" in line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            found.append((name.strip(), value.strip()))
    return found


def find_entry_point(name: str, entry_points: Iterable[EntryPoint]) -> EntryPoint:
    """The one entry point of that name.

    Raises:
        UnknownDriverError: there is none.
        DriverConflictError: there are several.
    """
    entry_points = list(entry_points)
    matching = [point for point in entry_points if point.name == name]
    if not matching:
        known = sorted({point.name for point in entry_points})
        raise UnknownDriverError(
            f"cannot find driver {name!r}: installed are {', '.join(known) or 'none'}",
            hint="`execdrv drivers` lists them; --no-plugins hides all but execdrv's own",
            name=name,
            known=known,
        )
    if len(matching) > 1:
        providers = [point.provider for point in matching]
        raise DriverConflictError(
            f"cannot choose driver {name!r}: both {' and '.join(providers)} bring it",
            hint="uninstall one of them",
            plugin=name,
            providers=providers,
        )
    return matching[0]


def _import_object(target: str, *, provider: str) -> Any:
    """The object that "module:attribute" names, whatever its module does when imported."""
    module_name, _, attribute = target.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found
    except Exception as error:
        raise PluginError(
            f"cannot load plugin {target!r} of {provider}: {type(error).__name__}: {error}",
            hint="mend or uninstall it, or use --no-plugins",
            plugin=target,
            distribution=provider,
        ) from error


# --- drivers -----------------------------------------------------------------------------------


def load_driver(ref: DriverRef, *, plugins: bool = True) -> type[Driver]:
    """Import the one driver class that a reference names.

    Raises:
        UnknownDriverError, DriverConflictError: see `find_entry_point`.
        PluginError: it can't be imported, or is no driver of this contract.
    """
    if ":" in ref.target:
        return _load_class(ref.target)
    point = find_entry_point(ref.target, list_entry_points(plugins=plugins))
    plugin = _import_object(point.value, provider=point.provider)
    classes = drivers_of(plugin, point)
    for cls in classes:
        if cls.name == point.name:
            return cls
    brought = ", ".join(repr(cls.name) for cls in classes) or "no driver"
    raise PluginError(
        f"cannot use plugin {point.name!r} of {point.provider} as a driver: it brings {brought}",
        hint="a driver's entry point must have the driver's name",
        plugin=point.name,
        distribution=point.provider,
    )


def _load_class(target: str) -> type[Driver]:
    if target.startswith("__main__:"):
        raise PluginError(
            f"cannot load driver {target!r}: a supervisor can't import __main__",
            hint="put the driver into a module of its own",
            plugin=target,
        )
    found = _import_object(target, provider="the caller")
    return check_driver(found, plugin=target, provider="the caller")


def drivers_of(plugin: object, point: EntryPoint) -> list[type[Driver]]:
    """The driver classes a plugin object brings, each checked."""
    bring = getattr(plugin, "execdrv_drivers", None)
    if bring is None:
        return []
    try:
        classes = list(bring())
    except Exception as error:
        raise PluginError(
            f"cannot ask plugin {point.name!r} of {point.provider} for its drivers: "
            f"{type(error).__name__}: {error}",
            plugin=point.name,
            distribution=point.provider,
        ) from error
    return [check_driver(cls, plugin=point.name, provider=point.provider) for cls in classes]


def check_driver(found: object, *, plugin: str, provider: str) -> type[Driver]:
    """`found` as a driver class of this contract.

    Raises:
        PluginError: it is none; the message says what is wrong.
    """

    def refuse(reason: str, hint: str = "") -> PluginError:
        return PluginError(
            f"cannot use driver {plugin!r} of {provider}: {reason}",
            hint=hint,
            plugin=plugin,
            distribution=provider,
        )

    if not isinstance(found, type) or not issubclass(found, Driver):
        raise refuse(f"{found!r} is no subclass of execdrv.driver.Driver")
    missing = [
        name for name in ("name", "contract", "offers", "defaults") if not hasattr(found, name)
    ]
    if missing:
        raise refuse(f"class {found.__name__} lacks {', '.join(map(repr, missing))}")
    if found.contract != CONTRACT_VERSION:
        raise refuse(
            f"it was written for contract version {found.contract!r}, "
            f"this execdrv speaks version {CONTRACT_VERSION}",
            "install a version of the driver, or of execdrv, that fits",
        )
    if not isinstance(found.name, str) or not _DRIVER_NAME.fullmatch(found.name):
        raise refuse(f"its name {found.name!r} does not match {_DRIVER_NAME.pattern}")
    if inspect.isabstract(found):
        left_out = ", ".join(sorted(found.__abstractmethods__))
        raise refuse(f"class {found.__name__} does not implement {left_out}")
    if not isinstance(found.offers, Offers):
        raise refuse(f"its offers are {type(found.offers).__name__}, not execdrv.offers.Offers")
    try:
        found.offers.validate()
    except PluginError as error:
        raise refuse(str(error)) from error
    return found


# --- wrappers ----------------------------------------------------------------------------------


class PluginHost:
    """The hooks of one Host: its dispatcher, and the wrappers that other distributions bring.

    Args:
        dispatcher: the object that implements each operation's hook.
        plugins: False: no third-party plugin is loaded.
        entry_points: what to load; None: what is installed.
    """

    def __init__(
        self,
        dispatcher: object,
        *,
        plugins: bool = True,
        entry_points: Iterable[EntryPoint] | None = None,
    ) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._manager.register(dispatcher, name="execdrv:dispatcher")
        #: Plugins that could not be loaded.
        self.failures: list[PluginFailure] = []
        if plugins:
            points = list_entry_points() if entry_points is None else entry_points
            for point in points:
                # execdrv's own plugins bring drivers only; supervisors load those.
                if point.distribution != OWN_DISTRIBUTION:
                    self._load(point)

    def _load(self, point: EntryPoint) -> None:
        try:
            plugin = _import_object(point.value, provider=point.provider)
            self.register(plugin, point)
        except PluginError as error:
            self.failures.append(PluginFailure(entry_point=point, error=error))

    def register(self, plugin: object, point: EntryPoint) -> None:
        """Add a plugin's wrappers.

        Raises:
            PluginError: its hooks are misspelt, or it implements an operation itself.
        """
        name = f"{point.distribution}:{point.name}"

        def refuse(reason: str) -> PluginError:
            return PluginError(
                f"cannot load plugin {point.name!r} of {point.provider}: {reason}",
                hint="mend or uninstall it, or use --no-plugins",
                plugin=point.name,
                distribution=point.provider,
            )

        known = {hook for hook in dir(hookspecs) if hook.startswith("execdrv_")}
        for attribute in dir(plugin):
            if attribute.startswith("execdrv_") and attribute not in known:
                raise refuse(
                    f"there is no hook {attribute!r}; known are {', '.join(sorted(known))}"
                )
        try:
            self._manager.register(plugin, name=name)
            self._manager.check_pending()
        except (pluggy.PluginValidationError, ValueError, TypeError) as error:
            self._manager.unregister(name=name)
            raise refuse(str(error).strip().splitlines()[-1]) from error
        for operation in hookspecs.OPERATIONS:
            caller = getattr(self._manager.hook, f"execdrv_{operation}")
            if any(impl.plugin is plugin and not impl.wrapper for impl in caller.get_hookimpls()):
                self._manager.unregister(name=name)
                raise refuse(
                    f"its execdrv_{operation} is no wrapper; only the host implements operations"
                )

    def caller(self, operation: str) -> Callable[..., Any]:
        """The hook of an operation."""
        return getattr(self._manager.hook, f"execdrv_{operation}")  # type: ignore[no-any-return]

    def wrappers_of(self, operation: str) -> list[str]:
        """Names of the plugins that wrap an operation."""
        caller = getattr(self._manager.hook, f"execdrv_{operation}")
        return [impl.plugin_name for impl in caller.get_hookimpls() if impl.wrapper]
