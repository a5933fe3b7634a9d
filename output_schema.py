"""Which JSON Schemas Claude's API can hold an answer to, and how it wants them written; purely.

Whatever it couldn't hold an answer to is a fault: an answer that may break its schema would mislead.
Source: https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations
"""

from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from typing import Any

from json_schema import find_fault

_Schema = Mapping[str, Any]

_ANNOTATIONS = frozenset({"$comment", "$id", "$schema", "default", "deprecated", "description", "examples", "title"})
_DEFINITIONS = ("$defs", "definitions")
_SCHEMAS_BY_NAME = frozenset({*_DEFINITIONS, "properties"})
_HELD = frozenset({"$ref", "additionalProperties", "const", "enum", "format", "items", "minItems", "required", "type"})
_BRANCHES = frozenset({"anyOf", "allOf"})
_FORMATS = frozenset(
    {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"},
)


def find_limitation(schema: _Schema) -> str | None:
    """Return why Claude can't be held to a schema, and where; None: it can."""
    if fault := find_fault(schema):
        return fault
    if schema.get("type") != "object":
        return "the schema has to be one of 'type: \"object\"', as at OpenAI."
    return next(chain(_faults(schema, schema, "the schema"), _circles(schema)), None)


def enforceable(schema: _Schema) -> dict[str, Any]:
    """Write a schema without faults as Claude's API wants it: it is to be told that an object has no other properties.

    What is valid for the one is valid for the other, as the client doesn't ask for properties that it doesn't name.
    """
    written = {keyword: value for keyword, value in schema.items() if keyword != "$schema"}
    for keyword in _SCHEMAS_BY_NAME & schema.keys():
        written[keyword] = {name: enforceable(each) for name, each in schema[keyword].items()}
    for keyword in _BRANCHES & schema.keys():
        written[keyword] = [enforceable(each) for each in schema[keyword]]
    if "items" in schema:
        written["items"] = enforceable(schema["items"])
    if _is_object(schema):
        written["additionalProperties"] = False
    return written


def _is_object(schema: _Schema) -> bool:
    return "object" in (schema.get("type") or ()) or "properties" in schema


def _faults(schema: object, root: _Schema, place: str) -> Iterator[str]:
    if not isinstance(schema, dict):
        yield f"{place} is true or false, and has to be an object."
        return
    yield from _faults_of_combination(schema, place)
    for keyword, value in schema.items():
        yield from _faults_of_keyword(keyword, value, root, place)


def _faults_of_combination(schema: _Schema, place: str) -> Iterator[str]:
    # Each branch is told to have no other properties: two of them, or one beside properties, would rule each other out.
    if sum([_is_object(schema), *(keyword in schema for keyword in ("$ref", "anyOf", "allOf"))]) > 1:
        yield f"{place} has several of 'properties', '$ref', 'anyOf' and 'allOf'; Claude can be held to one of them."
    if len(schema.get("allOf", ())) > 1:
        yield f"{place} has an 'allOf' of several schemas, which Claude can't be held to."
    unknown = [name for name in schema.get("required", ()) if name not in schema.get("properties", {})]
    if unknown:
        yield f"{place} requires '{unknown[0][:64]}', which isn't among its 'properties'."
    if _is_object(schema) and "properties" not in schema:
        yield f"{place} is an object without 'properties', which would have to stay empty."


def _faults_of_keyword(keyword: str, value: Any, root: _Schema, place: str) -> Iterator[str]:
    if keyword in _SCHEMAS_BY_NAME:
        for name, each in value.items():
            yield from _faults(each, root, f"'{name}'")
    elif keyword in _BRANCHES:
        for each in value:
            yield from _faults(each, root, place)
    elif keyword == "items":
        yield from _faults(value, root, f"the items of {place}")
    elif keyword not in _HELD and keyword not in _ANNOTATIONS:
        yield f"{place} has '{keyword}', which Claude can't be held to."
    elif check := _CHECKS.get(keyword):
        yield from (f"{place} has {fault}" for fault in check(value, root))


def _fault_of_reference(reference: str, root: _Schema) -> Iterator[str]:
    if not _is_known(reference, root):
        yield f"a '$ref' to {reference[:64]!r}; only '#/$defs/…' of the schema itself can be referred to."


def _is_known(reference: str, root: _Schema) -> bool:
    hash_sign, *steps = reference.split("/")
    is_local = hash_sign == "#" and len(steps) == 2 and steps[0] in _DEFINITIONS  # noqa: PLR2004 - where, and which
    return is_local and steps[1] in root.get(steps[0], {})


def _circles(root: _Schema) -> Iterator[str]:
    """Yield the fault where references lead back to where they began."""
    graph = {
        f"#/{keyword}/{name}": {*_references(definition)}
        for keyword in _DEFINITIONS
        for name, definition in root.get(keyword, {}).items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = " → ".join(error.args[1])
        yield f"the schema contains itself ({circle[:200]}), which Claude can't be held to."


def _references(schema: object) -> Iterator[str]:
    if isinstance(schema, list):
        for each in schema:
            yield from _references(each)
    elif isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for each in schema.values():
            yield from _references(each)


def _fault_of_extras(value: object, _root: _Schema) -> Iterator[str]:
    if value is not False:
        yield "'additionalProperties', which has to be false."


def _fault_of_count(value: float, _root: _Schema) -> Iterator[str]:
    if value > 1:
        yield "a 'minItems' above 1, which Claude can't be held to."


def _fault_of_format(value: str, _root: _Schema) -> Iterator[str]:
    if value not in _FORMATS:
        yield f"the 'format' {value[:64]!r}, which Claude can't be held to."


_CHECKS: Mapping[str, Callable[[Any, _Schema], Iterator[str]]] = {
    "$ref": _fault_of_reference,
    "additionalProperties": _fault_of_extras,
    "format": _fault_of_format,
    "minItems": _fault_of_count,
}
