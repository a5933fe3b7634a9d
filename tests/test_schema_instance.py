"""Values made for schemas are valid for them."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from schema_instance import instance

Json = dict[str, Any]
PYDANTICS: Json = {
    "$defs": {"Size": {"enum": ["S", "M"]}, "a/b~c": {"type": "object", "properties": {"n": {"type": "integer"}}}},
    "type": "object",
    "properties": {
        "size": {"$ref": "#/$defs/Size"},
        "odd": {"$ref": "#/$defs/a~1b~0c"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "minItems": 2},
        "both": {"allOf": [{"$ref": "#/$defs/a~1b~0c"}, {"properties": {"m": {"const": 1}}, "required": ["m"]}]},
    },
    "required": ["size", "odd", "note", "tags", "both"],
    "additionalProperties": False,
}


def check(schema: Json) -> Any:
    """Make a value for a schema and let jsonschema judge it."""
    Draft202012Validator.check_schema(schema)
    made = instance(schema)
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(made)
    return made


def bounded(kind: str, low: str, high: str) -> st.SearchStrategy[Json]:
    """Schemas of a type with both bounds."""
    pairs = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted)
    return pairs.map(lambda pair: {"type": kind, low: pair[0], high: pair[1]})


def closed_object(properties: dict[str, Json]) -> Json:
    """A schema of objects with these properties, every other of them required."""
    required = sorted(properties)[::2]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


LEAVES = st.one_of(
    st.sampled_from(["string", "integer", "number", "boolean", "null"]).map(lambda kind: {"type": kind}),
    st.sampled_from(["date", "date-time", "email", "uuid"]).map(lambda name: {"type": "string", "format": name}),
    bounded("string", "minLength", "maxLength"),
    bounded("integer", "minimum", "maximum"),
    st.lists(st.text(max_size=3) | st.integers(), min_size=1, unique=True).map(lambda values: {"enum": values}),
    st.integers().map(lambda value: {"const": value}),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda each: st.one_of(
        each.map(lambda schema: {"type": "array", "items": schema, "minItems": 2}),
        each.map(lambda schema: {"anyOf": [schema, {"type": "null"}]}),
        st.dictionaries(st.text(max_size=4), each, max_size=3).map(closed_object),
    ),
    max_leaves=6,
)


@given(SCHEMAS)
def test_an_instance_is_valid_for_its_schema(schema: Json) -> None:
    """Whatever simple schema a tool or an output format has, jsonschema accepts what is made for it."""
    before = copy.deepcopy(schema)
    check({"type": "object", "properties": {"value": schema}, "required": ["value"]})
    assert schema == before


def test_a_schema_as_pydantic_writes_it_is_filled() -> None:
    """References, defaults, bounds and joined schemas are all heeded at once."""
    made = check(PYDANTICS)
    assert made == {"size": "S", "odd": {"n": 3}, "note": None, "tags": ["str", "str"], "both": {"m": 1}}


TREE: Json = {"type": "object", "properties": {"child": {"$ref": "#"}}}
LIST: Json = {
    "type": "object",
    "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
    "required": ["next"],
}


@pytest.mark.parametrize(
    "schema",
    [
        TREE,
        LIST,
        {"type": "integer", "minimum": 10},
        {"type": "number", "minimum": 0, "maximum": 1},
        {"type": "array", "items": {"type": "string"}, "maxItems": 0},
        {
            "allOf": [
                {"properties": {"a": {"type": "integer"}}},
                {"properties": {"a": {"minimum": 7}}, "required": ["a"]},
            ]
        },
        {"type": "object", "properties": {"a": {"type": "integer"}}, "anyOf": [{"required": ["a"]}]},
        {"anyOf": [{"$ref": "#/anyOf/1"}, {"type": "boolean"}]},
    ],
)
def test_a_schema_with_a_catch_is_filled(schema: Json) -> None:
    """Schemas that contain themselves end; bounds, joined constraints and references through lists are heeded."""
    check(schema)


def test_a_reference_to_elsewhere_is_filled_with_anything() -> None:
    """Nothing is fetched."""
    assert instance({"$ref": "https://example.com/schema"}) == "string"
