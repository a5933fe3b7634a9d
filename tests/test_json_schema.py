"""What is a JSON Schema and what isn't: just what the reference implementation says, in a fraction of its time."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, SchemaError

from json_schema import find_fault

SOME = "type enum const $ref $defs properties required items prefixItems anyOf allOf oneOf not if then else"
MORE = "additionalProperties minimum maximum exclusiveMinimum multipleOf minLength maxItems uniqueItems contains"
OTHERS = "description title examples deprecated dependentRequired propertyNames default mine"
KEYWORDS = [keyword for keywords in (SOME, MORE, OTHERS) for keyword in keywords.split()]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.sampled_from([0.5, 2.0])
    | st.sampled_from(["string", "object", "null", "a", "#/$defs/a"]),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.sampled_from([*KEYWORDS, "a", "b"]), children, max_size=3)
    ),
    max_leaves=12,
)
SCHEMAS = st.dictionaries(st.sampled_from(KEYWORDS), VALUES, max_size=4)


def is_valid(schema: dict[str, Any]) -> bool:
    """What the reference says."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError:
        return False
    return True


@given(SCHEMAS)
def test_any_schema_is_judged_as_the_reference_judges_it(schema: dict[str, Any]) -> None:
    """Neither is anything let through that is wrong, nor anything refused that isn't."""
    assert (find_fault(schema) is None) == is_valid(schema)


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"type": "strin"}, "at 'type'."),
        ({"properties": {"a": {"items": {"type": ["string", "string"]}}}}, "at 'properties.a.items.type'."),
        ({"required": ["a", "a"]}, "An item stands there twice at 'required'."),
        ({"minLength": 0.5}, "Input should be a whole number at 'minLength'."),
        ({"maximum": float("inf")}, "too large, or lies too deep."),
    ],
)
def test_a_fault_is_told_with_its_place(schema: dict[str, Any], fault: str) -> None:
    """What is wrong, and where in the schema."""
    assert (find_fault(schema) or "").endswith(fault)


def test_depth_is_no_danger() -> None:
    """A schema that is nested as deeply as nobody can check is a fault, and told briefly."""
    schema: dict[str, Any] = {}
    for _ in range(5000):
        schema = {"items": schema}
    assert 0 < len(find_fault(schema) or "") < 300
