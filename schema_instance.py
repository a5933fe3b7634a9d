"""Makes a value that is valid for a JSON schema, as far as tools and structured outputs use them. Always the same one.

For the demo upstream, whose scripted model fills the schemas that it is given. https://json-schema.org/draft/2020-12
"""

import copy
import math
import uuid
from collections.abc import Callable, Mapping
from typing import Any

Json = dict[str, Any]

# A schema that contains itself has to end somewhere: from here on only what is required, and null where it may be.
_DEEP = 4
_DEEPEST = 64

_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "email": "a@b.example",
    "uuid": str(uuid.UUID(int=3)),
}


def instance(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """Make a value for `schema`; references are looked up in `root` (default: the schema). Integers are 3 by choice."""
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return "string" if depth else {}
    root = schema if root is None else root
    for keyword, make in _BY_KEYWORD.items():
        if keyword in schema:
            return make(schema, root, depth + 1)
    return _BY_TYPE[_type_of(schema, depth)](schema, root, depth + 1)


def _type_of(schema: Json, depth: int) -> str:
    kind = schema.get("type") or ("object" if depth == 0 or "properties" in schema else "string")
    return str(kind[0] if isinstance(kind, list) else kind)


def _referenced(reference: str, root: Any) -> Any:
    if not reference.startswith("#"):
        return {}
    for step in reference.removeprefix("#").split("/")[1:]:
        root = root[int(step)] if isinstance(root, list) else root[step.replace("~1", "/").replace("~0", "~")]
    return root


def _one_of(schema: Json, root: Any, depth: int) -> Any:
    keyword = "anyOf" if "anyOf" in schema else "oneOf"
    options = schema[keyword]
    if depth > _DEEP and {"type": "null"} in options:
        return None
    rest = {key: value for key, value in schema.items() if key != keyword}
    return instance({"allOf": [rest, options[0]]} if "properties" in rest else options[0], root, depth)


def _all_of(schema: Json, root: Any, depth: int) -> Any:
    parts: list[Json] = [{key: value for key, value in schema.items() if key != "allOf"}, *schema["allOf"]]
    merged: Json = {}
    for part in parts:
        merged = _merged(merged, _referenced(part["$ref"], root) if "$ref" in part else part)
    return instance(merged, root, depth)


def _merged(first: Json, second: Json) -> Json:
    """Put two schemas together that hold both: objects key by key, lists one after the other."""
    merged = {**first, **second}
    for key in first.keys() & second.keys():
        if isinstance(first[key], dict) and isinstance(second[key], dict):
            merged[key] = _merged(first[key], second[key])
        elif key == "required":
            merged[key] = [*first[key], *second[key]]
    return merged


def _object(schema: Json, root: Any, depth: int) -> Json:
    properties = schema.get("properties", {})
    needed: list[str] = schema.get("required", [*properties] if depth < _DEEP else [])
    return {name: instance(properties.get(name, {}), root, depth) for name in needed}


def _array(schema: Json, root: Any, depth: int) -> list[Any]:
    count = min(max(1 if depth < _DEEP else 0, schema.get("minItems", 0)), schema.get("maxItems", math.inf))
    return [instance(schema.get("items", {}), root, depth) for _ in range(int(count))]


def _bounded(schema: Json, favourite: float) -> float:
    return float(min(max(favourite, schema.get("minimum", -math.inf)), schema.get("maximum", math.inf)))


def _string(schema: Json, _root: Any, _depth: int) -> str:
    text = _FORMATS.get(schema.get("format", ""), "string").ljust(schema.get("minLength", 0), "x")
    return text[: schema.get("maxLength", len(text))]


_Make = Callable[[Json, Any, int], Any]
_BY_KEYWORD: Mapping[str, _Make] = {
    "const": lambda schema, _root, _depth: schema["const"],
    "default": lambda schema, _root, _depth: copy.deepcopy(schema["default"]),
    "enum": lambda schema, _root, _depth: schema["enum"][0],
    "$ref": lambda schema, root, depth: instance(_referenced(schema["$ref"], root), root, depth),
    "allOf": _all_of,
    "anyOf": _one_of,
    "oneOf": _one_of,
}
_BY_TYPE: Mapping[str, _Make] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": lambda schema, _root, _depth: math.ceil(_bounded(schema, 3)),
    "number": lambda schema, _root, _depth: _bounded(schema, 3.5),
    "boolean": lambda _schema, _root, _depth: True,
    "null": lambda _schema, _root, _depth: None,
}
