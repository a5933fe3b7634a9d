"""From the bytes of a request to its typed body, or to a 400 that names the field at fault."""

from collections.abc import AsyncIterable, Mapping, Sequence
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from errors import InvalidRequestError, RequestTooLargeError
from models import ChatCompletionRequest

# Locations in messages: ("messages", 0, role, field, …), and for content (…, "content", type, 0, part's type, …).
_FIELD_OF_MESSAGE = 4
_BRANCHES: Mapping[tuple[int | str, ...], frozenset[int]] = {(): frozenset({2}), ("content",): frozenset({2, 4, 6})}
_LONGEST_QUOTE = 64

# OpenAI's codes for pydantic's types of error.
_LENGTHS: Mapping[str, tuple[str, str]] = {
    "too_short": ("empty_array", "empty array"),
    "too_long": ("array_above_max_length", "array too long"),
}
_BOUNDS: Mapping[str, str] = {"greater_than_equal": "below_min_value", "less_than_equal": "above_max_value"}
_DECIMALS = frozenset({"temperature", "top_p"})


async def read_json_object(stream: AsyncIterable[bytes], limit: int) -> dict[str, Any]:
    """Read a JSON object of at most `limit` bytes.

    Raises RequestTooLargeError as soon as there are more, InvalidRequestError for anything but a JSON object.
    """
    raw = bytearray()
    async for chunk in stream:
        raw += chunk
        if len(raw) > limit:
            raise RequestTooLargeError(f"The request body is larger than {limit} bytes.")
    return _json_object(bytes(raw))


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        # Strict: half a surrogate pair or NaN is nothing that anybody further on could write.
        body = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequestError(
            "We could not parse the JSON body of your request. Send a JSON object, encoded as UTF-8.",
            code="invalid_json",
        ) from error
    if not isinstance(body, dict):
        raise InvalidRequestError("The request body must be a JSON object.")
    return cast("dict[str, Any]", body)


def parse_chat_completion(body: Mapping[str, Any]) -> ChatCompletionRequest:
    """Check a body against the wire shape. Raises InvalidRequestError for its first fault."""
    try:
        return ChatCompletionRequest.model_validate(body)
    except ValidationError as error:
        raise _explain(_first_fault(error.errors(include_url=False, include_input=False))) from error


def _first_fault(rows: Sequence[ErrorDetails]) -> ErrorDetails:
    """A union reports a fault once a branch: the branch that came farthest is the one that was meant."""
    first = rows[0]["loc"][:_FIELD_OF_MESSAGE]
    return max((row for row in rows if row["loc"][:_FIELD_OF_MESSAGE] == first), key=lambda row: len(row["loc"]))


def _explain(row: ErrorDetails) -> InvalidRequestError:
    param = _param(row["loc"])
    if row["type"] == "union_tag_invalid":
        context = row.get("ctx", {})
        return InvalidRequestError(
            f"Invalid value: '{context['tag'][:_LONGEST_QUOTE]}'. Supported roles are: {context['expected_tags']}.",
            param=f"{param}.role",
            code="invalid_value",
        )
    if row["type"] in ("missing", "union_tag_not_found"):
        param = f"{param}.role" if row["type"] == "union_tag_not_found" else param
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
    return InvalidRequestError(f"Invalid value for '{param}': {row['msg']}.", param=param, code="invalid_type")


def _param(location: tuple[int | str, ...]) -> str:
    """Write a pydantic location as OpenAI does, less the names of the union branches that pydantic went through."""
    branches = _BRANCHES.get(location[_FIELD_OF_MESSAGE - 1 : _FIELD_OF_MESSAGE], _BRANCHES[()])
    steps = [step for place, step in enumerate(location) if location[0] != "messages" or place not in branches]
    return ".".join(f"[{step}]" if isinstance(step, int) else step for step in steps)
