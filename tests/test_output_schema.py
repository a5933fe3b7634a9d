"""Which schemas Claude can be held to, and how they are written for it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from output_schema import enforceable, find_limitation
from schema_instance import instance

Json = dict[str, Any]

STRING: Json = {"type": "string"}


def of(**properties: Any) -> Json:
    """An object of these properties."""
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    "schema",
    [
        of(),
        of(a={"enum": ["x", 1, None, True]}, b={"const": 1}, c={"type": ["string", "null"], "default": "x"}),
        of(a={"anyOf": [STRING, {"type": "null"}]}, b={"allOf": [of(c=STRING)]}),
        of(a={"type": "array", "items": of(b=STRING), "minItems": 1}),
        of(a={"type": "string", "format": "date-time", "description": "When.", "title": "A"}),
        {**of(a={"$ref": "#/$defs/A"}, b={"$ref": "#/$defs/B"}), "$defs": {"A": {"$ref": "#/$defs/B"}, "B": STRING}},
        {**of(a={"$ref": "#/definitions/A"}), "definitions": {"A": STRING}, "additionalProperties": False},
    ],
)
def test_what_claude_can_be_held_to_has_no_fault(schema: Json) -> None:
    """Types, enumerations, alternatives, lists, references within the schema, and annotations."""
    assert find_limitation(schema) is None


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        (of(a={"type": "integer", "minimum": 1}), "'a' has 'minimum'"),
        (of(a={"type": "number", "multipleOf": 2}), "'a' has 'multipleOf'"),
        (of(a={"type": "string", "maxLength": 5}), "'a' has 'maxLength'"),
        (of(a={"type": "array", "items": STRING, "minItems": 2}), "'minItems' above 1"),
        (of(a={"type": "array", "items": STRING, "uniqueItems": True}), "'uniqueItems'"),
        (of(a={"type": "array", "items": of(b={"minLength": 1})}), "'b' has 'minLength'"),
        (of(a={"oneOf": [STRING]}), "'oneOf'"),
        (of(a={"not": STRING}), "'not'"),
        (of(a={"type": "string", "format": "binary"}), "'binary'"),
        ({**of(), "additionalProperties": True}, "'additionalProperties'"),
        ({**of(), "additionalProperties": STRING}, "'additionalProperties'"),
        ({**of(), "patternProperties": {"^a": STRING}}, "'patternProperties'"),
        (of(a=True), "'a' is true or false"),
        (of(a={"anyOf": [STRING, False]}), "'a' is true or false"),
        (of(a={"$ref": "https://example.com/schema"}), "'$ref'"),
        (of(a={"$ref": "#/$defs/A"}), "'$ref'"),
        (of(a={"$ref": "#"}), "'$ref'"),
        ({**of(a={"$ref": "#/$defs/A"}), "$defs": {"A": of(b={"$ref": "#/$defs/A"})}}, "contains itself"),
        (
            {
                **of(a={"$ref": "#/$defs/A"}),
                "$defs": {
                    "A": of(b={"$ref": "#/$defs/B"}),
                    "B": of(c={"type": "array", "items": {"$ref": "#/$defs/A"}}),
                },
            },
            "contains itself",
        ),
        (STRING, "'type: \"object\"'"),
        ({}, "'type: \"object\"'"),
        ({"anyOf": [of(a=STRING)]}, "'type: \"object\"'"),
        ({**of(a=STRING), "type": "string"}, "'type: \"object\"'"),
        ({**of(a=STRING), "type": ["object", "null"]}, "'type: \"object\"'"),
        ({**of(a=STRING), "required": ["b"]}, "requires 'b'"),
        ({**of(r={"$ref": "#/$defs/A", "required": ["z"]}), "$defs": {"A": of(a=STRING)}}, "requires 'z'"),
        ({"type": "object"}, "without 'properties'"),
        (of(a={"type": ["object", "null"]}), "without 'properties'"),
        ({**of(a=STRING), "anyOf": [of(b=STRING)]}, "one of them"),
        (of(a={"$ref": "#/$defs/A", "anyOf": [STRING]}), "one of them"),
        (of(o={"allOf": [of(a=STRING), of(b=STRING)]}), "'allOf' of several"),
        ({"type": "thing"}, "Input should be"),
        (of(a={"const": float("inf")}), "too large"),
        (of(a={"enum": ["x" * 300_000]}), "longer than"),
        ({"properties": []}, "dictionary"),
    ],
)
def test_what_claude_cant_be_held_to_is_named(schema: Json, fault: str) -> None:
    """Each keyword beyond it is told with the property that has it."""
    assert fault in (find_limitation(schema) or "")


def test_objects_are_told_to_have_no_other_properties() -> None:
    """At every depth, and nothing else is changed, the schema that was given least of all."""
    inner, closed = of(b=STRING), {"additionalProperties": False}
    expected = {**inner, **closed}
    schema = {
        **of(a=inner, l={"type": "array", "items": inner}, u={"anyOf": [inner, STRING]}, r={"allOf": [inner]}),
        "$defs": {"A": inner},
        "title": "T",
    }
    assert enforceable(schema) == {
        **schema,
        **closed,
        "properties": {
            "a": expected,
            "l": {"type": "array", "items": expected},
            "u": {"anyOf": [expected, STRING]},
            "r": {"allOf": [expected]},
        },
        "$defs": {"A": expected},
    }
    assert "additionalProperties" not in schema
    assert enforceable(STRING) == STRING
    # Claude Code would take no notice of a schema that says which dialect it is of.
    assert enforceable({"$schema": "https://json-schema.org/draft/2020-12/schema", **inner}) == expected


values = st.recursive(
    st.sampled_from([None, True, 1, "x"]),
    lambda children: st.lists(children, max_size=2) | st.dictionaries(st.sampled_from("ab"), children, max_size=2),
    max_leaves=6,
)
schemas = st.recursive(
    st.sampled_from([STRING, {"type": "integer"}, {"type": "null"}, {"const": 1}, {"$ref": "#/$defs/A"}]),
    lambda children: st.one_of(
        st.builds(of, a=children, b=children),
        st.builds(lambda a: {**of(a=a), "required": ["a"]}, children),
        st.builds(lambda items: {"type": "array", "items": items}, children),
        st.builds(lambda *branches: {"anyOf": [*branches]}, children, children),
        st.builds(lambda *branches: {"allOf": [*branches]}, children, children),
        st.builds(lambda one: {"allOf": [one]}, children),
        st.builds(lambda whole, branch: {**whole, "anyOf": [branch]}, children, children),
    ),
    max_leaves=8,
)


@given(schemas, st.lists(values, max_size=8))
def test_what_is_held_to_is_what_was_asked_for(schema: Json, candidates: list[Any]) -> None:
    """What is valid for the schema that Claude gets is valid for the client's, and the other way for what fills it."""
    whole = {**of(a=schema), "$defs": {"A": of(a=STRING)}}
    if find_limitation(whole):
        return
    written = enforceable(whole)
    for value in [*candidates, instance(whole)]:
        if is_valid(written, value):
            assert is_valid(whole, value)
    if is_valid(whole, instance(whole)):
        assert is_valid(written, instance(whole))


def is_valid(schema: Json, value: Any) -> bool:
    """Whether the reference implementation takes a value for valid."""
    return bool(Draft202012Validator(schema).is_valid(value))


names = st.text(max_size=3)
keywords = st.sampled_from(
    ["type", "properties", "items", "anyOf", "allOf", "$ref", "$defs", "enum", "minItems", "format", "x"]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["object", "string", "#/$defs/x", "date"]) | names,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(keywords, children, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(keywords, json_values, max_size=5))
def test_any_schema_is_judged(schema: Json) -> None:
    """Whatever a client sends, it is a fault or can be written: nothing raises."""
    if find_limitation(schema) is None:
        assert isinstance(enforceable(schema), dict)
