"""The dispatcher: the true outcome reaches the caller, whatever wrappers do.

Containers here are stand-ins that record what was asked of their supervisor.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from execdrv.dispatch import Dispatcher
from execdrv.errors import ContractViolationError, LimitError, StartError
from execdrv.hookspecs import hookimpl
from execdrv.plugins import EntryPoint, PluginHost


class StandIn:
    """A container whose supervisor answers as told."""

    id = "c"

    def __init__(self, *, error: Exception | None = None) -> None:
        self.asked: list[str] = []
        self._error = error

    def perform(self, operation: str, argument: Any = None) -> Any:
        self.asked.append(operation)
        if self._error is not None and operation != "destroy":
            raise self._error
        return {"result of": operation}


@pytest.fixture
def operate() -> Iterator[Callable[..., Any]]:
    """operate(plugin, operation, container): one operation below that plugin's wrapper."""
    module = ModuleType("dispatch_plugin")
    sys.modules["dispatch_plugin"] = module

    def run(plugin: object, operation: str, container: StandIn, **arguments: Any) -> Any:
        module.plugin = plugin  # type: ignore[attr-defined]
        dispatcher = Dispatcher()
        point = EntryPoint(name="w", value="dispatch_plugin:plugin", distribution="d", version="1")
        host = PluginHost(dispatcher, entry_points=[point])
        assert host.failures == []
        return dispatcher.operate(host, operation, container, **arguments)  # type: ignore[arg-type]

    yield run
    del sys.modules["dispatch_plugin"]


def wrapper(body: Callable[[], Any], *operations: str) -> object:
    """A plugin whose wrappers of `operations` are generators made by `body`."""

    def hook(self: object, container: object) -> Any:
        return (yield from body())

    return type("W", (), {f"execdrv_{name}": hookimpl(wrapper=True)(hook) for name in operations})()


def honest() -> Any:
    return (yield)


def forgets_to_return() -> Any:
    yield


def replaces() -> Any:
    yield
    return "something else"


def hides_errors() -> Any:
    try:
        return (yield)
    except StartError:
        return None


def forbids() -> Any:
    raise PermissionError("by policy")
    yield


def fails_afterwards() -> Any:
    yield
    raise RuntimeError("the audit log is full")


def test_an_honest_wrapper_changes_nothing(operate: Callable[..., Any]) -> None:
    container = StandIn()
    assert operate(wrapper(honest, "start"), "start", container) == {"result of": "start"}
    assert container.asked == ["start"]


@pytest.mark.parametrize("body", [forgets_to_return, replaces])
def test_a_replaced_result_is_found_out(operate: Callable[..., Any], body: Any) -> None:
    container = StandIn()
    with pytest.raises(ContractViolationError, match="'d:w'"):
        operate(wrapper(body, "start"), "start", container)
    # Who called believes that it failed: nothing may live on.
    assert container.asked == ["start", "destroy"]


def test_a_hidden_error_is_found_out(operate: Callable[..., Any]) -> None:
    container = StandIn(error=StartError("no"))
    with pytest.raises(ContractViolationError, match="hid the error 'no'") as caught:
        operate(wrapper(hides_errors, "start"), "start", container)
    assert isinstance(caught.value.__cause__, StartError)


def test_a_wrapper_may_forbid(operate: Callable[..., Any]) -> None:
    container = StandIn()
    with pytest.raises(PermissionError, match="by policy"):
        operate(wrapper(forbids, "start"), "start", container)
    assert container.asked == []


def test_what_was_done_is_undone_when_a_wrapper_fails_afterwards(
    operate: Callable[..., Any],
) -> None:
    container = StandIn()
    with pytest.raises(RuntimeError, match="audit log"):
        operate(wrapper(fails_afterwards, "start"), "start", container)
    assert container.asked == ["start", "destroy"]


def test_destroy_cannot_be_forbidden(operate: Callable[..., Any]) -> None:
    container = StandIn()
    with pytest.raises(PermissionError):
        operate(wrapper(forbids, "destroy"), "destroy", container)
    assert container.asked == ["destroy"]


def test_destroy_is_done_once_when_a_wrapper_fails_afterwards(operate: Callable[..., Any]) -> None:
    container = StandIn()
    with pytest.raises(RuntimeError):
        operate(wrapper(fails_afterwards, "destroy"), "destroy", container)
    assert container.asked == ["destroy"]


def test_an_error_passes_through_unchanged(operate: Callable[..., Any]) -> None:
    error = LimitError("too much")
    with pytest.raises(LimitError) as caught:
        operate(wrapper(honest, "create"), "create", StandIn(error=error))
    assert caught.value is error
