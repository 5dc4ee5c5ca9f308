"""Every error execdrv raises.

    ExecdrvError                      message, hint; exit status for the command line
      UsageError                      found before anything changed
        SpecError                     a field of the spec has a value that can't be right
        UnknownDriverError            no installed driver has that name
        ContainerExistsError          the id is in use
        ContainerNotFoundError        no container has that id
        RecordError                   a record on disk can't be read
      PluginError                     a plugin can't be loaded or breaks the contract's form
        DriverConflictError           two distributions bring a driver of the same name
        ContractViolationError        a wrapper or driver broke a rule of the contract while running
      UnsupportedError                the driver or this machine lacks what was asked
      StateError                      the operation is not legal in the container's state
      OperationError                  an operation failed and was undone
        CreateError, IsolationError, LimitError, CleanupError (leftovers)
        StartError
          CommandNotFoundError        exit status 127
          CommandNotExecutableError   exit status 126
        SupervisorLostError           the process that owned the container died
        DeadlineError                 a driver method took longer than its deadline
        DriverBugError                a driver raised something that is no execdrv error

Messages read ``cannot <verb> <object>: <reason>``: lower case, values quoted, no full stop; the
hint is one line that says what to do. Fields are optional keywords, so that every error survives
pickle, copy and the wire. This module imports nothing of execdrv.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar


class ExecdrvError(Exception):
    """Base of all execdrv errors.

    Args:
        message: one line, values quoted.
        hint: one line that says what to do, or an empty string.
        fields: values for the names in `field_names`; a name left out reads None.
    """

    #: Exit status of the command line for this error.
    exit_status: ClassVar[int] = 125
    #: Names of the attributes that belong to this class, its bases' included.
    field_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: str = "", *, hint: str = "", **fields: Any) -> None:
        super().__init__(message)
        unknown = set(fields) - set(self.field_names)
        if unknown:
            raise TypeError(f"{type(self).__name__} has no field {sorted(unknown)[0]!r}")
        self.message = message
        self.hint = hint
        for name in self.field_names:
            setattr(self, name, fields.get(name))

    def __str__(self) -> str:
        return self.message

    def fields(self) -> dict[str, Any]:
        """The fields that are set, by name."""
        values = {name: getattr(self, name) for name in self.field_names}
        return {name: value for name, value in values.items() if value is not None}

    def __reduce__(self) -> tuple[Callable[..., ExecdrvError], tuple[Any, ...]]:
        return _rebuild, (type(self), self.message, self.hint, self.fields())


def _rebuild(cls: type[ExecdrvError], message: str, hint: str, fields: dict[str, Any]) -> Any:
    return cls(message, hint=hint, **fields)


class UsageError(ExecdrvError, ValueError):
    """Raised when what was asked can't be right; nothing has changed."""


class SpecError(UsageError):
    """Raised when a field of a spec has a value outside its range."""

    field_names: ClassVar[tuple[str, ...]] = ("field", "value")
    field: str | None
    value: str | None


class UnknownDriverError(UsageError):
    """Raised when no installed driver has the name asked for."""

    field_names: ClassVar[tuple[str, ...]] = ("name", "known")
    name: str | None
    known: list[str] | None


class ContainerExistsError(UsageError):
    """Raised when a container of that id is there already."""

    field_names: ClassVar[tuple[str, ...]] = ("container",)
    container: str | None


class ContainerNotFoundError(UsageError):
    """Raised when no container has that id."""

    field_names: ClassVar[tuple[str, ...]] = ("container",)
    container: str | None


class RecordError(UsageError):
    """Raised when a container's record can't be read."""

    field_names: ClassVar[tuple[str, ...]] = ("container", "path")
    container: str | None
    path: str | None


class PluginError(ExecdrvError):
    """Raised when a plugin can't be loaded or has the wrong form."""

    field_names: ClassVar[tuple[str, ...]] = ("plugin", "distribution")
    plugin: str | None
    distribution: str | None


class DriverConflictError(PluginError):
    """Raised when two providers bring a driver of the same name."""

    field_names: ClassVar[tuple[str, ...]] = ("plugin", "distribution", "providers")
    providers: list[str] | None


class ContractViolationError(PluginError):
    """Raised when a wrapper replaced a result or hid an error."""


class UnsupportedError(ExecdrvError):
    """Raised when the driver, or this machine, can't do what was asked; nothing has changed."""

    field_names: ClassVar[tuple[str, ...]] = (
        "driver",
        "guarantee",
        "reason",
        "alternatives",
        "refusals",
    )
    driver: str | None
    guarantee: str | None
    reason: str | None
    alternatives: list[str] | None
    #: execdrv.driver.Refusal values as plain data.
    refusals: list[dict[str, str]] | None


class StateError(ExecdrvError):
    """Raised when an operation is not legal in the container's present state."""

    field_names: ClassVar[tuple[str, ...]] = ("container", "operation", "state", "allowed")
    container: str | None
    operation: str | None
    state: str | None
    allowed: list[str] | None


class OperationError(ExecdrvError, RuntimeError):
    """Raised when an operation failed; what it had made is undone."""

    field_names: ClassVar[tuple[str, ...]] = ("driver", "container", "operation", "errno")
    driver: str | None
    container: str | None
    operation: str | None
    errno: int | None


class CreateError(OperationError):
    """Raised when the container could not be created; nothing is left of it."""


class IsolationError(OperationError):
    """Raised when a wall could not be built; nothing was run."""


class LimitError(OperationError):
    """Raised when a limit could not be applied; no limit has changed."""

    field_names: ClassVar[tuple[str, ...]] = (*OperationError.field_names, "receipts")
    #: execdrv.limits.Receipt values of the limits that could be applied.
    receipts: list[Any] | None


class CleanupError(OperationError):
    """Raised when something is left after a destroy."""

    field_names: ClassVar[tuple[str, ...]] = (*OperationError.field_names, "leftovers")
    #: What is left, each in words that name it.
    leftovers: list[str] | None


class StartError(OperationError):
    """Raised when the command could not be started."""


class CommandNotFoundError(StartError):
    """Raised when the command, or its interpreter, is not in the root file system."""

    exit_status = 127


class CommandNotExecutableError(StartError):
    """Raised when the command was found but can't be executed."""

    exit_status = 126


class SupervisorLostError(OperationError):
    """Raised when the process that owned the container has died."""


class DeadlineError(OperationError, TimeoutError):
    """Raised when a driver method did not return within its deadline."""


class DriverBugError(OperationError):
    """Raised when a driver raised an exception that is no execdrv error."""


def error_classes() -> dict[str, type[ExecdrvError]]:
    """Every error class of this module, by name (what the wire can carry)."""
    found = {ExecdrvError.__name__: ExecdrvError}
    pending: list[type[ExecdrvError]] = [ExecdrvError]
    while pending:
        for cls in pending.pop().__subclasses__():
            if cls.__module__ == __name__:
                found[cls.__name__] = cls
                pending.append(cls)
    return found
