"""From the bytes of a request to its typed body, or to a 400 that names the field at fault."""

from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from errors import InvalidRequestError, RequestTooLargeError
from models import ChatCompletionRequest


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
        # A union reports a fault once a branch: the branch that came farthest is the one that was meant.
        worst = max(error.errors(include_url=False), key=lambda row: len(list(_path(row["loc"], body))))
        raise _explain(worst, body) from error


def _explain(row: ErrorDetails, body: Mapping[str, Any]) -> InvalidRequestError:
    param = ".".join(_path(row["loc"], body))
    if row["type"] == "union_tag_invalid":
        context = row.get("ctx", {})
        return InvalidRequestError(
            f"Invalid value: '{context['tag']}'. Supported roles are: {context['expected_tags']}.",
            param=f"{param}.role",
            code="invalid_value",
        )
    if row["type"] in ("missing", "union_tag_not_found"):
        lacking = "role" if row["type"] == "union_tag_not_found" else str(row["loc"][-1])
        param = ".".join(filter(None, [param, lacking]))
        return InvalidRequestError(
            f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
        )
    if row["type"] == "too_short":
        return InvalidRequestError(f"Invalid '{param}': empty array.", param=param, code="empty_array")
    return InvalidRequestError(f"Invalid value for '{param}': {row['msg']}.", param=param, code="invalid_type")


def _path(location: Iterable[str | int], body: object) -> Iterable[str]:
    """The steps of a pydantic location that exist in the body: names of union branches don't."""
    value = body
    for step in location:
        if isinstance(value, Mapping) and step in value:
            value = value[step]
            yield str(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
            yield f"[{step}]"
