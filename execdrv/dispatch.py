"""One operation, through its hook: the host's dispatcher inside, plugins' wrappers around it.

The dispatcher is the only plain implementation of every operation's hook; it asks the container's
supervisor, where the driver's method runs. It keeps the true outcome, so that a wrapper which
replaces a result, or turns a failure into success, is found out. Runs in the caller's thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from execdrv.driver import Isolated
from execdrv.errors import ContractViolationError, ExecdrvError
from execdrv.hookspecs import hookimpl
from execdrv.limits import Limits, Receipt
from execdrv.linux.procfs import ProcessId
from execdrv.plugins import PluginHost

if TYPE_CHECKING:
    from execdrv.container import Container


@attrs.define(eq=False)
class Outcome:
    """What the supervisor answered, if it was asked."""

    asked: bool = False
    result: Any = None
    error: ExecdrvError | None = None


class Dispatcher:
    """Implements every operation's hook by asking the container's supervisor."""

    def __init__(self) -> None:
        # Hooks run in the thread that called them, and may be nested.
        self._local = threading.local()

    @property
    def _outcomes(self) -> list[Outcome]:
        if not hasattr(self._local, "outcomes"):
            self._local.outcomes = []
        return self._local.outcomes  # type: ignore[no-any-return]

    def operate(
        self, plugins: PluginHost, operation: str, container: Container, **arguments: Any
    ) -> Any:
        """Call an operation's hook.

        Returns:
            What the supervisor answered.
        Raises:
            ExecdrvError: what the supervisor answered, or what a wrapper raised.
            ContractViolationError: a wrapper hid an error, replaced the result, or kept `destroy`
                from being done.
        """
        outcome = Outcome()
        self._outcomes.append(outcome)
        try:
            result = plugins.caller(operation)(container=container, **arguments)
        except BaseException:
            if operation == "destroy" and not outcome.asked:
                # Nobody may keep a container from being destroyed.
                container.perform("destroy")
            elif outcome.asked and outcome.error is None and operation != "destroy":
                # It was done, and its caller will never know: nothing of it may stay.
                container.perform("destroy")
            raise
        finally:
            self._outcomes.pop()
        self._check_outcome(plugins, operation, container, outcome, result)
        return result

    def _check_outcome(
        self,
        plugins: PluginHost,
        operation: str,
        container: Container,
        outcome: Outcome,
        result: Any,
    ) -> None:
        suspects = ", ".join(map(repr, plugins.wrappers_of(operation))) or "none"
        if outcome.error is not None:
            raise ContractViolationError(
                f"cannot {operation} container {container.id!r}: a wrapper hid the error "
                f"{str(outcome.error)!r} (wrappers: {suspects})",
                hint="a wrapper must let the error through; --no-plugins runs without it",
                plugin=suspects,
            ) from outcome.error
        if result is not outcome.result:
            if operation != "destroy":
                container.perform("destroy")
            raise ContractViolationError(
                f"cannot trust the result of {operation} for container {container.id!r}: "
                f"a wrapper replaced it by {result!r} (wrappers: {suspects})",
                hint="a wrapper ends with `return (yield)`; --no-plugins runs without it",
                plugin=suspects,
            )

    def _perform(self, operation: str, container: Container, argument: Any = None) -> Any:
        outcome = self._outcomes[-1]
        outcome.asked = True
        ask: Callable[..., Any] = container.perform
        try:
            outcome.result = ask(operation, argument)
        except ExecdrvError as error:
            outcome.error = error
            raise
        return outcome.result

    @hookimpl
    def execdrv_create(self, container: Container) -> bool:
        return self._perform("create", container)  # type: ignore[no-any-return]

    @hookimpl
    def execdrv_isolate(self, container: Container) -> Isolated:
        return self._perform("isolate", container)  # type: ignore[no-any-return]

    @hookimpl
    def execdrv_limit(self, container: Container, limits: Limits) -> tuple[Receipt, ...]:
        return self._perform("limit", container, limits)  # type: ignore[no-any-return]

    @hookimpl
    def execdrv_start(self, container: Container) -> ProcessId:
        return self._perform("start", container)  # type: ignore[no-any-return]

    @hookimpl
    def execdrv_signal(self, container: Container, signum: int) -> bool:
        return self._perform("signal", container, signum)  # type: ignore[no-any-return]

    @hookimpl
    def execdrv_destroy(self, container: Container) -> bool:
        return self._perform("destroy", container)  # type: ignore[no-any-return]
