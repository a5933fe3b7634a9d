"""The fate of every OpenAI parameter, as one table: honoured, ignored and said so, or refused by name.

A parameter that changes what the client gets back is refused: an answer of another shape would mislead. One that merely
tunes the answer is ignored, and the response's `X-Claude-Ignored-Params` names it. Null is the same as leaving it out.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from errors import InvalidRequestError
from models import ChatCompletionRequest
from turns import Sampling

Fate = Literal["honoured", "ignored", "refused"]

# Values that ask for nothing beyond what is done anyway.
_HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "logprobs": (False,),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
}

PARAMETERS: Mapping[str, Fate] = {
    "model": "honoured",
    "messages": "honoured",
    "stream": "honoured",
    "stream_options": "honoured",
    "max_completion_tokens": "honoured",
    "max_tokens": "honoured",
    "session_id": "honoured",
    "stop": "honoured",
    "temperature": "honoured",
    "top_p": "honoured",
    "audio": "refused",
    "function_call": "refused",
    "functions": "refused",
    "logprobs": "refused",
    "modalities": "refused",
    "n": "refused",
    "prediction": "refused",
    "response_format": "refused",
    "tool_choice": "refused",
    "tools": "refused",
    "top_logprobs": "refused",
    "web_search_options": "refused",
}

# Where OpenAI's scale of temperatures ends at 2, Claude's ends here.
_HIGHEST_TEMPERATURE = 1.0

# A name is repeated in a header, so it must be fit for one.
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MOST_UNKNOWN = 32


def check_parameters(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the parameters that are ignored, in order. Raises InvalidRequestError for a refused one."""
    _check_names(body)
    asked = [name for name, value in body.items() if value is not None and not _is_harmless(name, value)]
    for name in asked:
        if PARAMETERS.get(name) == "refused":
            raise InvalidRequestError(
                f"The parameter '{name}' is not supported by this server. Leave it out.",
                param=name,
                code="unsupported_parameter",
            )
    if "stream_options" in asked and not body.get("stream"):
        raise InvalidRequestError(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )
    return tuple(sorted(name for name in asked if PARAMETERS.get(name, "ignored") == "ignored"))


def to_sampling(body: ChatCompletionRequest) -> Sampling:
    """Translate what steers the model's writing."""
    return Sampling(
        temperature=None if body.temperature is None else min(body.temperature, _HIGHEST_TEMPERATURE),
        top_p=body.top_p,
        # Claude refuses blank ones.
        stop_sequences=tuple(stop for stop in body.stop or () if stop.strip()),
        max_tokens=body.max_completion_tokens or body.max_tokens,
    )


def adjusted_parameters(body: ChatCompletionRequest) -> tuple[str, ...]:
    """Return the names of the parameters that take effect, but not just as they were sent: see `to_sampling`."""
    asked = {"temperature": body.temperature, "stop": body.stop and tuple(body.stop)}
    sampling = to_sampling(body)
    sent = {"temperature": sampling.temperature, "stop": sampling.stop_sequences}
    return tuple(name for name, value in asked.items() if value and value != sent[name])


def _is_harmless(name: str, value: object) -> bool:
    # Of the same type: Python takes True for 1, JSON doesn't.
    return any(type(value) is type(harmless) and value == harmless for harmless in _HARMLESS.get(name, ()))


def _check_names(body: Mapping[str, Any]) -> None:
    unknown = [name for name in body if name not in PARAMETERS]
    strange = next((name for name in unknown if not _NAME.fullmatch(name)), None)
    if strange is not None:
        raise InvalidRequestError(
            "A parameter has a name that can't be one.", param=strange[:64], code="unknown_parameter"
        )
    if len(unknown) > _MOST_UNKNOWN:
        raise InvalidRequestError("The request has too many parameters that are unknown.", code="unknown_parameter")
