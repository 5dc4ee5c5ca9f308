"""The published schema of reports, and a reader of the part of JSON Schema that it uses.

`schema.json` is for everybody (JSON Schema, draft 2020-12); the kit itself needs no other package
to look at a report's form. Pure, but for the file.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
#: More faults than this help nobody.
_MOST = 20


@functools.cache
def load_schema() -> dict[str, Any]:
    """The schema as data."""
    text = Path(__file__).with_name("schema.json").read_text()
    schema: dict[str, Any] = json.loads(text)
    return schema


def find_faults(report: Any) -> list[str]:
    """Where a value does not have the schema's form; empty: it has."""
    schema = load_schema()
    found = []
    for fault in _walk(report, schema, schema["$defs"], "report"):
        found.append(fault)
        if len(found) == _MOST:
            break
    return found


def _walk(value: Any, schema: Mapping[str, Any], defs: Mapping[str, Any], at: str) -> Iterator[str]:
    if "$ref" in schema:
        schema = defs[schema["$ref"].rpartition("/")[2]]
    if "type" in schema and not _is_of(value, schema["type"]):
        yield f"{at} is no {schema['type']}"
        return
    if "const" in schema and value != schema["const"]:
        yield f"{at} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at} is {value!r}, not one of {', '.join(map(str, schema['enum']))}"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{at} is {value!r}, not of the form {schema['pattern']}"
    if isinstance(value, dict):
        yield from _walk_object(value, schema, defs, at)
    if isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            yield from _walk(item, schema["items"], defs, f"{at}[{number}]")


def _walk_object(
    value: Mapping[str, Any], schema: Mapping[str, Any], defs: Mapping[str, Any], at: str
) -> Iterator[str]:
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{at} has no {name!r}"
    more = schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in known:
            yield from _walk(item, known[name], defs, f"{at}.{name}")
        elif more is False:
            yield f"{at} has an unknown {name!r}"
        elif isinstance(more, dict):
            yield from _walk(item, more, defs, f"{at}.{name}")


def _is_of(value: Any, names: str | list[str]) -> bool:
    for name in [names] if isinstance(names, str) else names:
        # bool is an int to Python, and none to JSON.
        if isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool)):
            return True
    return False
