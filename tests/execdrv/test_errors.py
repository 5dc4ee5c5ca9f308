"""Every error survives pickle, copy and the wire, and carries its exit status."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from execdrv import errors, wire

CLASSES = sorted(errors.error_classes().values(), key=lambda cls: cls.__name__)


def _filled(cls: type[errors.ExecdrvError]) -> errors.ExecdrvError:
    # errno is a number; every other field crosses as text here.
    fields = {name: 7 if name == "errno" else f"a {name}" for name in cls.field_names}
    error = cls("cannot do it: \udcff", hint="try harder", **fields)
    error.add_note("seen there")
    return error


def test_every_class_of_the_module_is_known() -> None:
    defined = {
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, errors.ExecdrvError)
    }
    assert set(CLASSES) == defined
    assert len(CLASSES) > 20


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize(
    "send",
    [
        copy.copy,
        copy.deepcopy,
        lambda error: pickle.loads(pickle.dumps(error)),  # noqa: S301 - our own
        lambda error: wire.decode_error(wire.loads(wire.dumps(wire.encode_error(error)))),
    ],
    ids=["copy", "deepcopy", "pickle", "wire"],
)
def test_an_error_survives(cls: type[errors.ExecdrvError], send: object) -> None:
    error = _filled(cls)
    found = send(error)  # type: ignore[operator]
    assert type(found) is cls
    assert (found.message, found.hint, found.fields()) == (
        error.message,
        error.hint,
        error.fields(),
    )


def test_an_error_without_fields_is_whole() -> None:
    for cls in CLASSES:
        assert str(cls("text")) == "text"
        assert cls("text").fields() == {}


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        errors.SpecError("x", colour="red")


def test_exit_statuses_are_those_of_chroot() -> None:
    others = {cls.exit_status for cls in CLASSES} - {126, 127}
    assert others == {125}
    assert errors.CommandNotFoundError.exit_status == 127
    assert errors.CommandNotExecutableError.exit_status == 126


def test_an_unknown_class_reads_as_its_nearest_known_base() -> None:
    data = wire.encode_error(errors.LimitError("no"))
    data["errors"] = ["NewerLimitError", *data["errors"]]
    assert type(wire.decode_error(data)) is errors.LimitError


def test_a_bare_exception_becomes_a_driver_bug() -> None:
    found = wire.decode_error(wire.encode_error(KeyError("x")))
    assert type(found) is errors.DriverBugError
    assert "KeyError" in str(found)
