"""The fate of every OpenAI parameter, as one table: taken, ignored and said so, or refused by name.

A parameter that changes what the client gets back is refused: an answer of another shape would mislead. One that merely
tunes the answer is ignored, and the response's `X-Claude-Ignored-Params` names it; so is one that nobody knows. Null is
the same as leaving it out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from errors import InvalidRequestError

Fate = Literal["supported", "mapped", "ignored", "refused"]


@dataclass(frozen=True)
class Parameter:
    """What becomes of one parameter: `becomes` is what Claude gets for it, `reason` is why it gets nothing."""

    fate: Fate
    becomes: str | None = None
    reason: str | None = None
    harmless: tuple[Any, ...] = ()
    """Values that ask for nothing beyond what is done anyway."""


_NO_PENALTIES = Parameter("ignored", reason="Claude's sampling has no penalties or biases.")
_NO_STORE = Parameter("ignored", reason="This server keeps no completions.")
_NO_LOGPROBS = "Claude tells no probabilities."
_TEXT_ONLY = "Claude answers with text."
_OWN_CACHE = Parameter("ignored", reason="Claude Code caches prompts by itself.")
_NO_END_USERS = Parameter("ignored", reason="Claude is not told of a client's own users.")

# Names are OpenAI's: https://platform.openai.com/docs/api-reference/chat/create
PARAMETERS: Mapping[str, Parameter] = {
    "model": Parameter("supported"),
    "messages": Parameter("mapped", "messages and system"),
    "stream": Parameter("supported"),
    "stream_options": Parameter("supported"),
    "session_id": Parameter("supported"),
    "max_completion_tokens": Parameter("mapped", "max_tokens"),
    "max_tokens": Parameter("mapped", "max_tokens, where there is no max_completion_tokens"),
    "stop": Parameter("mapped", "stop_sequences, less blank ones"),
    "temperature": Parameter("mapped", "temperature, at most 1"),
    "top_p": Parameter("supported"),
    "tools": Parameter("supported"),
    "tool_choice": Parameter("mapped", "tool_choice"),
    "parallel_tool_calls": Parameter("mapped", "tool_choice.disable_parallel_tool_use"),
    "functions": Parameter("mapped", "tools, of which one is called at a time"),
    "function_call": Parameter("mapped", "tool_choice"),
    "frequency_penalty": _NO_PENALTIES,
    "logit_bias": _NO_PENALTIES,
    "metadata": _NO_STORE,
    "moderation": Parameter("ignored", reason="This server runs no moderation of its own."),
    "presence_penalty": _NO_PENALTIES,
    "prompt_cache_key": _OWN_CACHE,
    "prompt_cache_options": _OWN_CACHE,
    "prompt_cache_retention": _OWN_CACHE,
    "reasoning_effort": Parameter("ignored", reason="The model's own default holds."),
    "safety_identifier": _NO_END_USERS,
    "seed": Parameter("ignored", reason="Claude's sampling can't be seeded."),
    "service_tier": Parameter("ignored", reason="The tier is that of the server's login."),
    "store": _NO_STORE,
    "user": _NO_END_USERS,
    "verbosity": Parameter("ignored", reason="Claude has no such setting."),
    "audio": Parameter("refused", reason=_TEXT_ONLY),
    "logprobs": Parameter("refused", reason=_NO_LOGPROBS, harmless=(False,)),
    "modalities": Parameter("refused", reason=_TEXT_ONLY, harmless=(["text"],)),
    "n": Parameter("refused", reason="A turn has one answer.", harmless=(1,)),
    "prediction": Parameter("refused", reason="Claude takes no predicted output."),
    "response_format": Parameter(
        "refused", reason="This server can't hold Claude to a format.", harmless=({"type": "text"},)
    ),
    "top_logprobs": Parameter("refused", reason=_NO_LOGPROBS),
    "web_search_options": Parameter("refused", reason="This server doesn't let Claude search the web."),
}

_UNKNOWN = Parameter("ignored", reason="No parameter of this name is known.")
_ASKS_FOR_NOTHING = Parameter("supported", reason="This value asks for nothing beyond what is done anyway.")

# A name is repeated in a header, so it must be fit for one.
_LONGEST_NAME = 64
_NAME = re.compile(rf"[A-Za-z0-9_.-]{{1,{_LONGEST_NAME}}}")
_MOST_UNKNOWN = 32


def check_parameters(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the parameters that are ignored, in order. Raises InvalidRequestError for a refused one."""
    for refusal in find_refusals(body):
        raise refusal
    return tuple(sorted(name for name, row in find_fates(body).items() if row.fate == "ignored"))


def find_fates(body: Mapping[str, Any]) -> dict[str, Parameter]:
    """Return what becomes of each parameter of a body; one that isn't in the table is ignored. Nulls are left out."""
    return {name: _fate(name, value) for name, value in body.items() if value is not None}


def find_refusals(body: Mapping[str, Any]) -> tuple[InvalidRequestError, ...]:
    """Return everything for which a body is refused, whatever the form of its values."""
    unknown = [name for name in body if name not in PARAMETERS]
    found = [_strange_name(name) for name in unknown if not _NAME.fullmatch(name)]
    if len(unknown) > _MOST_UNKNOWN:
        found.append(
            InvalidRequestError("The request has too many parameters that are unknown.", code="unknown_parameter")
        )
    found += [_refusal(name, row) for name, row in find_fates(body).items() if row.fate == "refused"]
    if body.get("stream_options") is not None and not body.get("stream"):
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        found.append(InvalidRequestError(message, param="stream_options"))
    return tuple(found)


def shown_name(name: str) -> str:
    """Return what an error's `param` has of a parameter's name."""
    return name[:_LONGEST_NAME]


def _fate(name: str, value: object) -> Parameter:
    row = PARAMETERS.get(name, _UNKNOWN)
    # Of the same type: Python takes True for 1, JSON doesn't.
    if any(type(value) is type(harmless) and value == harmless for harmless in row.harmless):
        return _ASKS_FOR_NOTHING
    return row


def _strange_name(name: str) -> InvalidRequestError:
    message = "A parameter has a name that can't be one."
    return InvalidRequestError(message, param=shown_name(name), code="unknown_parameter")


def _refusal(name: str, row: Parameter) -> InvalidRequestError:
    message = f"The parameter '{name}' is not supported by this server: {row.reason} Leave it out."
    return InvalidRequestError(message, param=name, code="unsupported_parameter")
