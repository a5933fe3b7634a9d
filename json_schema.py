"""What a JSON Schema may look like, as pydantic's core checks it: fast enough for whatever a client sends.

Draft 2020-12, which Claude's API holds schemas to. A keyword that it doesn't have is an annotation.
Source: https://json-schema.org/draft/2020-12/schema
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import CoreSchema, PydanticCustomError, SchemaValidator, ValidationError
from pydantic_core import core_schema as core

LONGEST = 2**18
"""Characters that a schema may have: more than OpenAI takes; to judge longer ones would hold up other requests."""

_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")


def _distinct(values: list[str]) -> list[str]:
    if len({*values}) < len(values):
        raise PydanticCustomError("not_distinct", "An item stands there twice")
    return values


def _whole(number: float) -> float:
    if not number.is_integer():
        raise PydanticCustomError("not_whole", "Input should be a whole number")
    return number


_SCHEMA = core.definition_reference_schema("schema")
_SUBSCHEMA = core.union_schema([(_SCHEMA, "schema"), (core.bool_schema(), "bool")])
_SUBSCHEMAS = core.list_schema(_SUBSCHEMA, min_length=1)
_BY_NAME = core.dict_schema(core.str_schema(), _SUBSCHEMA)
_NUMBER = core.float_schema(allow_inf_nan=False)
_COUNT = core.no_info_after_validator_function(_whole, core.float_schema(allow_inf_nan=False, ge=0))
_NAMES = core.no_info_after_validator_function(_distinct, core.list_schema(core.str_schema()))
_TYPE = core.literal_schema([*_TYPES])
_SOME_TYPES = core.no_info_after_validator_function(_distinct, core.list_schema(_TYPE, min_length=1))

_KEYWORDS: Iterable[tuple[CoreSchema, str]] = (
    (core.str_schema(), "$id $schema $ref $anchor $dynamicRef $dynamicAnchor $comment"),
    (core.str_schema(), "title description format pattern contentEncoding contentMediaType"),
    (core.bool_schema(), "deprecated readOnly writeOnly uniqueItems"),
    (_COUNT, "minLength maxLength minItems maxItems minProperties maxProperties minContains maxContains"),
    (_NUMBER, "minimum maximum exclusiveMinimum exclusiveMaximum"),
    (core.float_schema(allow_inf_nan=False, gt=0), "multipleOf"),
    (_BY_NAME, "$defs definitions properties patternProperties dependentSchemas"),
    (_SUBSCHEMAS, "allOf anyOf oneOf prefixItems"),
    (_SUBSCHEMA, "additionalProperties unevaluatedProperties propertyNames items unevaluatedItems contains"),
    (_SUBSCHEMA, "contentSchema not if then else"),
    (core.list_schema(core.any_schema()), "enum examples"),
    (core.union_schema([(_TYPE, "one"), (_SOME_TYPES, "some")]), "type"),
    (_NAMES, "required"),
    (core.dict_schema(core.str_schema(), _NAMES), "dependentRequired"),
)
_FIELDS = {name: core.typed_dict_field(schema, required=False) for schema, names in _KEYWORDS for name in names.split()}
_VALIDATOR = SchemaValidator(
    core.definitions_schema(_SCHEMA, [core.typed_dict_schema(_FIELDS, ref="schema", extra_behavior="allow")])
)
_BRANCHES = frozenset({"schema", "bool", "one", "some"})
_LONGEST_PLACE = 200


def length(schema: Mapping[str, Any]) -> float:
    """Return how long a schema is, written as JSON; infinite, where it holds what nobody can write."""
    try:
        return len(json.dumps(schema, allow_nan=False))
    except (ValueError, RecursionError):  # 1e999 is read as infinity; and of what lies too deep nothing is known.
        return math.inf


def find_fault(schema: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a JSON Schema, and where; None: nothing."""
    own_length = length(schema)
    if own_length == math.inf:
        return "it holds a number that is too large, or lies too deep."
    if own_length > LONGEST:
        return f"it is longer than {LONGEST} characters."
    return _fault_of_keywords(schema)


def _fault_of_keywords(schema: Mapping[str, Any]) -> str | None:
    try:
        _VALIDATOR.validate_python(schema, strict=True)
    except ValidationError as error:
        # Of the branches of a union, the one that came farthest is the one that was meant.
        row = max(error.errors(include_url=False, include_input=False), key=lambda each: len(each["loc"]))
        place = ".".join(str(step) for step in row["loc"] if step not in _BRANCHES)
        return f"{row['msg']} at '{place[:_LONGEST_PLACE]}'."
    return None
