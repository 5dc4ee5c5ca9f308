"""Plugins: found without importlib, loaded guarded, refused when their form is wrong."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from execdrv import hookspecs, plugins
from execdrv.driver import Box, Defaults, Driver, DriverRef, Isolated, Refusal
from execdrv.errors import DriverConflictError, PluginError, UnknownDriverError
from execdrv.hookspecs import hookimpl
from execdrv.limits import Limits, Receipt
from execdrv.linux.procfs import ProcessId
from execdrv.offers import Offers, absent
from execdrv.plugins import EntryPoint, PluginHost


class NothingDriver(Driver):
    """Does nothing, in the right form."""

    name = "nothing"
    contract = 1
    offers = Offers(
        {
            profile: absent("it does nothing")
            for profile in ("base", "fs", "limits", "container", "hardened", "hostile")
        }
    )
    defaults = Defaults(uid=0, gid=0, capabilities=frozenset(), root_mode="direct", net="host")

    def check(self, box: Box) -> list[Refusal]:
        return []

    def create(self, box: Box) -> None: ...

    def isolate(self, box: Box) -> Isolated:
        return Isolated(init=None)

    def limit(self, box: Box, limits: Limits) -> list[Receipt]:
        return []

    def start(self, box: Box) -> ProcessId:
        return ProcessId(pid=0, start_time=0)

    def destroy(self, box: Box) -> None: ...


def variant(**attributes: Any) -> type[Driver]:
    return type("Variant", (NothingDriver,), attributes)


def point(
    name: str, value: str = "sample_plugin:plugin", distribution: str = "sample"
) -> EntryPoint:
    return EntryPoint(name=name, value=value, distribution=distribution, version="1.0")


@pytest.fixture
def module() -> Iterator[ModuleType]:
    """An importable module whose `plugin` a test sets."""
    made = ModuleType("sample_plugin")
    sys.modules["sample_plugin"] = made
    yield made
    del sys.modules["sample_plugin"]


def write_distribution(path: Path, name: str, text: str) -> None:
    info = path / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "entry_points.txt").write_text(text)


# --- finding -----------------------------------------------------------------------------------


def test_our_reader_agrees_with_importlib() -> None:
    ours = {(p.name, p.value) for p in plugins.list_entry_points("console_scripts")}
    theirs = importlib.metadata.entry_points(group="console_scripts")
    assert ours == {(p.name, p.value) for p in theirs}
    assert ours


def test_the_first_of_a_distribution_on_the_path_counts(tmp_path: Path) -> None:
    write_distribution(tmp_path / "a", "My_Dist", "[execdrv]\nx = one:plugin\n")
    write_distribution(tmp_path / "b", "my.dist", "[execdrv]\nx = two:plugin\n")
    found = plugins.list_entry_points(path=[str(tmp_path / "a"), str(tmp_path / "b"), "/nosuch"])
    assert [(p.name, p.value, p.provider) for p in found] == [("x", "one:plugin", "my-dist 1.0")]


def test_only_the_group_is_read(tmp_path: Path) -> None:
    text = "[other]\na = b:c\n\n[execdrv]\n# no = no:no\n x = m:p \n[more]\ny = m:p\n"
    write_distribution(tmp_path, "d", text)
    assert [p.name for p in plugins.list_entry_points(path=[str(tmp_path)])] == ["x"]


def test_without_plugins_only_our_own_are_found() -> None:
    names = {p.name for p in plugins.list_entry_points(plugins=False)}
    assert names == {"native", "lxc", "chroot"}


def test_an_unknown_driver_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UnknownDriverError, match="'nosuch': installed are chroot, lxc, native"):
        plugins.load_driver(DriverRef(target="nosuch"), plugins=False)


def test_two_providers_of_a_name_are_both_named() -> None:
    both = [point("x", distribution="one"), point("x", distribution="two")]
    with pytest.raises(DriverConflictError, match=r"one 1\.0 and two 1\.0"):
        plugins.find_entry_point("x", both)


# --- drivers -----------------------------------------------------------------------------------


def test_a_driver_is_loaded_by_module_and_class(module: ModuleType) -> None:
    module.Nothing = NothingDriver  # type: ignore[attr-defined]
    assert plugins.load_driver(DriverRef(target="sample_plugin:Nothing")) is NothingDriver


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        (variant(contract=99), "contract version 99, this execdrv speaks version 1"),
        (variant(contract=None), "contract version None"),
        (variant(name="Bad Name"), "does not match"),
        (variant(offers={}), "not execdrv.offers.Offers"),
        (variant(offers=Offers({"no.such": absent("x")})), "no.such"),
        (type("Half", (Driver,), {"name": "half"}), "lacks 'contract', 'offers', 'defaults'"),
        (SimpleNamespace, "no subclass"),
        ("text", "no subclass"),
    ],
)
def test_a_class_of_the_wrong_form_is_refused(driver: Any, reason: str) -> None:
    with pytest.raises(PluginError, match="sample") as caught:
        plugins.check_driver(driver, plugin="x", provider="sample 1.0")
    assert reason in str(caught.value)


def test_a_missing_operation_is_named() -> None:
    half = type("Half", (NothingDriver,), {"isolate": Driver.isolate})
    with pytest.raises(PluginError, match="does not implement isolate"):
        plugins.check_driver(half, plugin="x", provider="sample 1.0")


def test_a_driver_of_the_main_module_is_refused() -> None:
    with pytest.raises(PluginError, match="can't import __main__"):
        plugins.load_driver(DriverRef(target="__main__:Driver"))


@pytest.mark.parametrize(
    "target", ["no_such_module_at_all:X", "sample_plugin:nothing", "sample_plugin:Raises.x"]
)
def test_a_module_that_cannot_be_loaded_is_a_plugin_error(module: ModuleType, target: str) -> None:
    with pytest.raises(PluginError, match="cannot load plugin"):
        plugins.load_driver(DriverRef(target=target))


# --- wrappers ----------------------------------------------------------------------------------


class Audit:
    """A wrapper in the right form."""

    @hookimpl(wrapper=True)
    def execdrv_start(self, container: object) -> Any:
        return (yield)


def host_with(plugin: object, module: ModuleType) -> PluginHost:
    module.plugin = plugin  # type: ignore[attr-defined]
    return PluginHost(object(), entry_points=[point("audit")])


def test_a_wrapper_is_loaded(module: ModuleType) -> None:
    host = host_with(Audit(), module)
    assert host.failures == []
    assert host.wrappers_of("start") == ["sample:audit"]
    assert host.wrappers_of("destroy") == []


def bad_plugin(name: str, **options: bool) -> object:
    def hook(self: object, container: object) -> Any:
        return (yield) if options.get("wrapper") else None

    return type("Bad", (), {name: hookimpl(**options)(hook)})()


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        (bad_plugin("execdrv_strat", wrapper=True), "no hook 'execdrv_strat'"),
        (bad_plugin("execdrv_start"), "is no wrapper"),
        (bad_plugin("execdrv_start", tryfirst=True), "is no wrapper"),
        (SimpleNamespace(execdrv_destory=print), "no hook 'execdrv_destory'"),
    ],
)
def test_a_plugin_of_the_wrong_form_is_not_loaded(
    plugin: object, reason: str, module: ModuleType
) -> None:
    host = host_with(plugin, module)
    assert [reason in str(failure.error) for failure in host.failures] == [True]
    for operation in hookspecs.OPERATIONS:
        assert host.wrappers_of(operation) == []


def test_a_broken_plugin_does_not_keep_others_from_loading(module: ModuleType) -> None:
    module.plugin = Audit()  # type: ignore[attr-defined]
    points = [point("broken", "no_such_module_at_all:plugin"), point("audit")]
    host = PluginHost(object(), entry_points=points)
    assert [failure.entry_point.name for failure in host.failures] == ["broken"]
    assert host.wrappers_of("start") == ["sample:audit"]


def test_without_plugins_none_is_loaded(module: ModuleType) -> None:
    module.plugin = Audit()  # type: ignore[attr-defined]
    host = PluginHost(object(), plugins=False, entry_points=[point("audit")])
    assert host.wrappers_of("start") == []
