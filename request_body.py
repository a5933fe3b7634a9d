"""From the bytes of a request to its typed body, or to a 400 that names the field at fault."""

from collections.abc import AsyncIterable, Iterator, Mapping
from itertools import islice
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from errors import InvalidRequestError, RequestTooLargeError
from json_values import find_unwritable
from models import MOST_FUNCTIONS, MOST_STOPS, ChatCompletionRequest, ToolConfigRequest

# Locations in messages: ("messages", 0, role, field, …), and for content (…, "content", type, 0, part's type, …).
_FIELD_OF_MESSAGE = 4
_BRANCHES: Mapping[tuple[int | str, ...], frozenset[int]] = {(): frozenset({2}), ("content",): frozenset({2, 4, 6})}
_LONGEST_QUOTE = 64
_MOST_ITEMS: Mapping[str, int] = {
    "messages": 10_000,
    "tools": MOST_FUNCTIONS,
    "functions": MOST_FUNCTIONS,
    "stop": MOST_STOPS,
}
_DEEPEST = 200
"""Levels of a body: pydantic's limit."""
_MOST_PARTS = 10_000
"""Parts of content and calls, of all messages together."""

# OpenAI's codes for pydantic's types of error.
_LENGTHS: Mapping[str, tuple[str, str]] = {
    "too_short": ("empty_array", "empty array"),
    "too_long": ("array_above_max_length", "array too long"),
    "string_too_long": ("string_above_max_length", "string too long"),
}
_BOUNDS: Mapping[str, str] = {"greater_than_equal": "below_min_value", "less_than_equal": "above_max_value"}
_DECIMALS = frozenset({"temperature", "top_p"})
# In the locations of these the name of the branch that was taken stands behind the field's.
_UNIONS = frozenset({"tool_choice", "function_call", "response_format"})
# Of these OpenAI writes `tools[0].function`, not `tools.[0].function`.
_FUNCTION_LISTS = frozenset({"tools", "functions"})


async def read_body(stream: AsyncIterable[bytes], limit: int) -> bytes:
    """Read a body of at most `limit` bytes. Raises RequestTooLargeError as soon as there are more."""
    raw = bytearray()
    async for chunk in stream:
        raw += chunk
        if len(raw) > limit:
            raise RequestTooLargeError(f"The request body is larger than {limit} bytes.")
    return bytes(raw)


def parse_json(raw: bytes) -> Any:
    """Parse JSON. Raises InvalidRequestError; its cause says where the JSON breaks."""
    try:
        # Strict: half a surrogate pair or NaN is nothing that anybody further on could write.
        return from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequestError(
            "We could not parse the JSON body of your request. Send a JSON object, encoded as UTF-8, of no more than "
            f"{_DEEPEST} levels.",
            code="invalid_json",
        ) from error


def check_values(raw: bytes, body: Any) -> None:
    """Raise InvalidRequestError for a value, in what was parsed, that nobody further on could take."""
    if found := find_unwritable(raw, body):
        place, fault = found
        raise InvalidRequestError(f"Invalid '{place or 'body'}': {fault}.", param=place or None, code="invalid_value")


def parse_json_object(raw: bytes) -> dict[str, Any]:
    """Parse a JSON object. Raises InvalidRequestError for anything else."""
    body = as_object(parse_json(raw))
    check_values(raw, body)
    return body


def as_object(body: Any) -> dict[str, Any]:
    """Return what was parsed, if it is an object. Raises InvalidRequestError."""
    if not isinstance(body, dict):
        raise InvalidRequestError("The request body must be a JSON object.")
    return cast("dict[str, Any]", body)


def parse_chat_completion(body: Mapping[str, Any]) -> ChatCompletionRequest:
    """Check a body against the wire shape. Raises InvalidRequestError for its first fault."""
    for fault in _faults_of_length(body):
        raise fault
    try:
        return ChatCompletionRequest.model_validate(body)
    except ValidationError as error:
        raise _explain(_faults(error)[0]) from error


def parse_tool_config(body: Mapping[str, Any]) -> ToolConfigRequest:
    """Check a body against the wire shape. Raises InvalidRequestError for its first fault."""
    try:
        return ToolConfigRequest.model_validate(body)
    except ValidationError as error:
        raise _explain(error.errors(include_url=False, include_input=False)[0]) from error


def find_faults_of_shape(body: Mapping[str, Any]) -> tuple[InvalidRequestError, ...]:
    """Return where a body isn't of the wire shape, the first fault first; one that is too long isn't looked into."""
    if too_long := tuple(_faults_of_length(body)):
        return too_long
    try:
        ChatCompletionRequest.model_validate(body)
    except ValidationError as error:
        return tuple(map(_explain, _faults(error)))
    return ()


def _faults_of_length(body: Mapping[str, Any]) -> Iterator[InvalidRequestError]:
    """Yield the first list that has too many items: to find what is wrong with each would hold up other requests."""
    for place in islice(_places_of_excess(body), 1):
        code, message = _LENGTHS["too_long"]
        yield InvalidRequestError(f"Invalid '{place}': {message}.", param=place, code=code)


def _places_of_excess(body: Mapping[str, Any]) -> Iterator[str]:
    yield from (name for name, most in _MOST_ITEMS.items() if _length(body.get(name)) > most)
    messages: Any = body.get("messages") if _length(body.get("messages")) else ()
    parts = 0
    for index, message in enumerate(messages):
        for name in ("content", "tool_calls") if isinstance(message, dict) else ():
            parts += _length(message.get(name))
            if parts > _MOST_PARTS:
                yield f"messages.[{index}].{name}"


def _length(value: object) -> int:
    return len(value) if isinstance(value, list) else 0


def _faults(error: ValidationError) -> list[ErrorDetails]:
    """Return the faults in order, less those of branches of a union that weren't meant.

    A union, which content is, reports a fault once a branch: the branch that came farthest is the one that was meant.
    """
    rows = error.errors(include_url=False, include_input=False)
    meant: dict[tuple[int | str, ...], tuple[int | str, ...]] = {}
    for row in rows:
        if len(row["loc"]) > len(meant.get(_field(row), ())):
            meant[_field(row)] = row["loc"]
    return [row for row in rows if not _is_content(row) or _branch(row["loc"]) == _branch(meant[_field(row)])]


def _field(row: ErrorDetails) -> tuple[int | str, ...]:
    return row["loc"][:_FIELD_OF_MESSAGE]


def _branch(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    return location[: _FIELD_OF_MESSAGE + 1]


def _is_content(row: ErrorDetails) -> bool:
    return row["loc"][0] == "messages" and _field(row)[_FIELD_OF_MESSAGE - 1 :] == ("content",)


def _explain(row: ErrorDetails) -> InvalidRequestError:
    param = _param(row["loc"])
    tag = "role" if param.startswith("messages") else "type"
    if row["type"] == "union_tag_invalid":
        context = row.get("ctx", {})
        return InvalidRequestError(
            f"Invalid value: '{context['tag'][:_LONGEST_QUOTE]}'. Supported {tag}s are: {context['expected_tags']}.",
            param=f"{param}.{tag}",
            code="invalid_value",
        )
    if row["type"] in ("missing", "union_tag_not_found"):
        param = f"{param}.{tag}" if row["type"] == "union_tag_not_found" else param
        return InvalidRequestError(
            f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
        )
    if row["type"] in _LENGTHS:
        code, message = _LENGTHS[row["type"]]
        return InvalidRequestError(f"Invalid '{param}': {message}.", param=param, code=code)
    if row["type"] in _BOUNDS:
        number = "decimal" if param in _DECIMALS else "integer"
        return InvalidRequestError(
            f"Invalid '{param}': {row['msg']}.", param=param, code=f"{number}_{_BOUNDS[row['type']]}"
        )
    code = "invalid_value" if row["type"] == "literal_error" else "invalid_type"
    reason = row["msg"].removeprefix("Value error, ")
    return InvalidRequestError(f"Invalid value for '{param}': {reason}.", param=param, code=code)


def _param(location: tuple[int | str, ...]) -> str:
    """Write a pydantic location as OpenAI does, less the names of the union branches that pydantic went through."""
    field = location[0]
    if field in _FUNCTION_LISTS and len(location) > 1:
        return ".".join([f"{field}[{location[1]}]", *map(str, location[2:])])
    branches = _BRANCHES.get(location[_FIELD_OF_MESSAGE - 1 : _FIELD_OF_MESSAGE], _BRANCHES[()])
    dropped = branches if field == "messages" else {1} if field in _UNIONS else ()
    steps = [step for place, step in enumerate(location) if place not in dropped]
    return ".".join(f"[{step}]" if isinstance(step, int) else step for step in steps)
