"""What a request for a completion says in headers of our own, beside its body."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from config import LEAST_THINKING_TOKENS, MOST_THINKING_TOKENS
from errors import InvalidRequestError

THINKING_HEADER = "X-Claude-Max-Thinking-Tokens"
USAGE_HEADER = "X-Claude-Usage"

_NUMBER = re.compile(r"[0-9]{1,7}")


@dataclass(frozen=True)
class RequestOptions:
    """Tokens that the model may think, where the request says so, and whether usage comes as Claude Code counts it."""

    thinking_tokens: int | None = None
    usage_in_full: bool = False


def read_options(headers: Mapping[str, str]) -> RequestOptions:
    """Read the headers. Raises InvalidRequestError for a value that they can't have."""
    usage = headers.get(USAGE_HEADER)
    if usage not in (None, "full"):
        raise InvalidRequestError(f"The header {USAGE_HEADER} accepts one value: full.", code="invalid_header")
    return RequestOptions(_thinking_tokens(headers.get(THINKING_HEADER)), usage == "full")


def _thinking_tokens(value: str | None) -> int | None:
    if value is None:
        return None
    number = int(value) if _NUMBER.fullmatch(value) else -1
    if number != 0 and not LEAST_THINKING_TOKENS <= number <= MOST_THINKING_TOKENS:
        range_ = f"{LEAST_THINKING_TOKENS} to {MOST_THINKING_TOKENS}, or 0 for none"
        raise InvalidRequestError(f"{THINKING_HEADER} is a number of tokens: {range_}.", code="invalid_header")
    return number
