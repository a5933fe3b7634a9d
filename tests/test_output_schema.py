"""Which schemas Claude can be held to, and how they are written for it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from output_schema import enforceable, find_fault_of_output

Json = dict[str, Any]

STRING: Json = {"type": "string"}


def of(**properties: Any) -> Json:
    """An object of these properties."""
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    "schema",
    [
        STRING,
        {},
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
    assert find_fault_of_output(schema) is None


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
        (of(a=True), "'a' allows anything"),
        (of(a={"anyOf": [STRING, False]}), "'a' allows anything"),
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
        ({"type": "thing"}, "Input should be"),
        (of(a={"const": float("inf")}), "too large"),
        (of(a={"enum": ["x" * 300_000]}), "longer than"),
        ({"properties": []}, "dictionary"),
    ],
)
def test_what_claude_cant_be_held_to_is_named(schema: Json, fault: str) -> None:
    """Each keyword beyond it is told with the property that has it."""
    assert fault in (find_fault_of_output(schema) or "")


def test_objects_are_told_to_have_no_other_properties() -> None:
    """At every depth, and nothing else is changed, the schema that was given least of all."""
    inner, closed = of(b=STRING), {"additionalProperties": False}
    schema = {**of(a=inner, l={"type": "array", "items": inner}), "anyOf": [inner], "$defs": {"A": inner}, "title": "T"}
    written = enforceable(schema)
    expected = {**inner, **closed}
    assert written == {
        **schema,
        **closed,
        "properties": {"a": expected, "l": {"type": "array", "items": expected}},
        "anyOf": [expected],
        "$defs": {"A": expected},
    }
    assert "additionalProperties" not in schema
    assert enforceable({"type": ["object", "null"]}) == {"type": ["object", "null"], **closed}
    assert enforceable(STRING) == STRING


names = st.text(max_size=3)
keywords = st.sampled_from(["type", "properties", "items", "anyOf", "$ref", "$defs", "enum", "minItems", "format", "x"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["object", "string", "#/$defs/x", "date"]) | names,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(keywords, children, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(keywords, json_values, max_size=5))
def test_any_schema_is_judged(schema: Json) -> None:
    """Whatever a client sends, it is a fault or can be written: nothing raises."""
    if find_fault_of_output(schema) is None:
        assert isinstance(enforceable(schema), dict)
