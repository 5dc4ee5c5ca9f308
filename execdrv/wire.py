"""Values to plain data and back, strictly: for the socket, the record and reports.

Types come from the annotations of attrs classes. Unknown or missing fields, wrong types and NaN
are refused with the path to the fault. Bytes are written as text where they are UTF-8, else as
{"base64": ...}. UNSET fields are left out. Errors cross as the names of their execdrv classes,
nearest first, with message, hint and fields. Never pickle or marshal.
"""

from __future__ import annotations

import base64
import binascii
import collections.abc
import functools
import json
import math
import struct
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs

from execdrv.errors import DriverBugError, ExecdrvError, UsageError, error_classes
from execdrv.spec import UNSET, Unset

T = TypeVar("T")
Plain = Any
Decoder = Callable[[Plain, str], Any]


class WireError(UsageError):
    """Raised when plain data does not have the form of the type it should become."""


def encode(value: Any) -> Plain:
    """A value as plain data: dict, list, str, int, float, bool or None.

    Raises:
        WireError: the value holds something that has no plain form.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise WireError(f"cannot encode {value!r}: not a finite number")
        return value
    if isinstance(value, bytes):
        return _encode_bytes(value)
    if attrs.has(type(value)):
        fields = ((field.name, getattr(value, field.name)) for field in attrs.fields(type(value)))
        return {name: encode(item) for name, item in fields if item is not UNSET}
    if isinstance(value, Mapping):
        return {_key(key): encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [encode(item) for item in items]
    raise WireError(f"cannot encode {value!r}: {type(value).__name__} has no plain form")


def _key(key: Any) -> str:
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise WireError(f"cannot encode the key {key!r}: neither text nor a whole number")
    return str(key)


def _encode_bytes(value: bytes) -> Plain:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode("ascii")}


def decode(cls: type[T], data: Plain) -> T:
    """Plain data as a value of type `cls`.

    Raises:
        WireError: the data has another form; the message gives the path.
        SpecError: a value is out of its range.
    """
    return typing.cast(T, _decoder(typing.cast(Any, cls))(data, getattr(cls, "__name__", str(cls))))


def _mismatch(path: str, wanted: str, data: Plain) -> WireError:
    shown = repr(data)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return WireError(f"cannot decode {path}: wanted {wanted}, got {shown}")


@functools.cache
def _decoder(kind: Any) -> Decoder:
    """The decoder of a type, built once."""
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if kind is Any:
        return lambda data, path: data
    if kind in (str, int, float, bool, bytes, type(None)):
        return functools.partial(_decode_scalar, kind)
    if origin in (typing.Union, types.UnionType):
        return _union_decoder(arguments)
    if origin is typing.Literal:
        return functools.partial(_decode_literal, arguments)
    if origin in (tuple, list, frozenset, collections.abc.Sequence):
        return _sequence_decoder(origin, arguments)
    if origin in (dict, collections.abc.Mapping, collections.abc.MutableMapping):
        return _mapping_decoder(arguments)
    if isinstance(kind, type) and attrs.has(kind):
        return _attrs_decoder(kind)
    raise WireError(f"cannot decode {kind!r}: this type has no plain form")


def _decode_scalar(kind: type, data: Plain, path: str) -> Any:
    if kind is bytes:
        return _decode_bytes(data, path)
    if kind is float and type(data) is int:
        return float(data)
    # bool is an int to Python, not here.
    if type(data) is not kind:
        raise _mismatch(path, kind.__name__, data)
    if isinstance(data, float) and not math.isfinite(data):
        raise _mismatch(path, "a finite number", data)
    return data


def _decode_bytes(data: Plain, path: str) -> bytes:
    if isinstance(data, str):
        try:
            return data.encode("utf-8")
        except UnicodeEncodeError:
            raise _mismatch(path, "UTF-8 text", data) from None
    if isinstance(data, dict) and set(data) == {"base64"} and isinstance(data["base64"], str):
        try:
            return base64.b64decode(data["base64"], validate=True)
        except (binascii.Error, ValueError):
            pass
    raise _mismatch(path, 'text or {"base64": ...}', data)


def _decode_literal(allowed: tuple[Any, ...], data: Plain, path: str) -> Any:
    for value in allowed:
        if type(data) is type(value) and data == value:
            return data
    raise _mismatch(path, " or ".join(map(repr, allowed)), data)


def _union_decoder(members: tuple[Any, ...]) -> Decoder:
    """The first member that fits; members differ in their plain form, so at most one does."""
    decoders = [_decoder(member) for member in members if member is not Unset]

    def run(data: Plain, path: str) -> Any:
        problems = []
        for decoder in decoders:
            try:
                return decoder(data, path)
            except WireError as error:
                problems.append(error)
        # The deepest problem says most: the others did not even begin to fit.
        raise max(problems, key=lambda error: len(error.message.partition(":")[0]))

    return run


def _sequence_decoder(origin: type, arguments: tuple[Any, ...]) -> Decoder:
    if origin is tuple and (len(arguments) != 2 or arguments[1] is not Ellipsis):
        members = [_decoder(argument) for argument in arguments]

        def run_fixed(data: Plain, path: str) -> Any:
            if not isinstance(data, list) or len(data) != len(members):
                raise _mismatch(path, f"a list of {len(members)}", data)
            pairs = zip(members, data, strict=True)
            return tuple(member(item, f"{path}[{i}]") for i, (member, item) in enumerate(pairs))

        return run_fixed
    item_decoder = _decoder(arguments[0])
    build: Callable[[Any], Any] = tuple if origin is collections.abc.Sequence else origin

    def run(data: Plain, path: str) -> Any:
        if not isinstance(data, list):
            raise _mismatch(path, "a list", data)
        return build(item_decoder(item, f"{path}[{i}]") for i, item in enumerate(data))

    return run


def _mapping_decoder(arguments: tuple[Any, ...]) -> Decoder:
    key_type, item_decoder = arguments[0], _decoder(arguments[1])

    def run(data: Plain, path: str) -> Any:
        if not isinstance(data, dict):
            raise _mismatch(path, "an object", data)
        return {
            _decode_key(key_type, key, path): item_decoder(item, f"{path}.{key}")
            for key, item in data.items()
        }

    return run


def _decode_key(key_type: Any, key: Plain, path: str) -> Any:
    if key_type is int:
        try:
            return int(key)
        except ValueError:
            raise _mismatch(path, "a whole number as key", key) from None
    return key


def _attrs_decoder(cls: type) -> Decoder:
    hints = typing.get_type_hints(cls)
    fields = {
        field.name: (_decoder(hints[field.name]), field.default is attrs.NOTHING)
        for field in attrs.fields(cls)
    }

    def run(data: Plain, path: str) -> Any:
        if not isinstance(data, dict):
            raise _mismatch(path, "an object", data)
        for name in data:
            if name not in fields:
                raise WireError(f"cannot decode {path}: unknown field {name!r}")
        for name, (_, needed) in fields.items():
            if needed and name not in data:
                raise WireError(f"cannot decode {path}: field {name!r} is missing")
        values = {name: fields[name][0](item, f"{path}.{name}") for name, item in data.items()}
        return cls(**values)

    return run


# --- errors ------------------------------------------------------------------------------------


def encode_error(error: BaseException) -> Plain:
    """An error as plain data; one that is no execdrv error becomes a DriverBugError."""
    if not isinstance(error, ExecdrvError):
        error = DriverBugError(f"{type(error).__name__}: {error}")
    known = error_classes()
    names = [base.__name__ for base in type(error).__mro__ if base.__name__ in known]
    notes = [str(note) for note in getattr(error, "__notes__", ())]
    fields = {name: _plain_or_text(value) for name, value in error.fields().items()}
    return {
        "errors": names,
        "message": error.message,
        "hint": error.hint,
        "fields": fields,
        "notes": notes,
    }


def _plain_or_text(value: Any) -> Plain:
    try:
        return encode(value)
    except WireError:
        return repr(value)


def decode_error(data: Plain) -> ExecdrvError:
    """The error that `encode_error` wrote; unknown classes read as their nearest known base."""
    known = error_classes()
    cls = next((known[name] for name in data["errors"] if name in known), ExecdrvError)
    fields = {name: value for name, value in data["fields"].items() if name in cls.field_names}
    error = cls(data["message"], hint=data["hint"], **fields)
    for note in data["notes"]:
        error.add_note(note)
    return error


# --- text and frames ---------------------------------------------------------------------------

#: Frames are a 32-bit length in network order, then that much JSON.
HEADER = struct.Struct("!I")
#: The largest frame taken: argv and env may be 2 MiB each, base64 and captured output add to it.
MAX_FRAME_BYTES = 1 << 30


def dumps(data: Plain) -> bytes:
    """Plain data as one line of JSON; NaN is refused."""
    return json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "backslashreplace"
    )


def loads(text: bytes | str) -> Plain:
    """JSON as plain data.

    Raises:
        WireError: not JSON, or NaN, Infinity or a key twice in it.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        if isinstance(error, WireError):
            raise
        raise WireError(f"cannot read JSON: {error}") from None


def _refuse_constant(name: str) -> Any:
    raise WireError(f"cannot read JSON: {name} is not a number")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise WireError(f"cannot read JSON: key {twice!r} stands twice")
    return found
