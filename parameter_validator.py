"""The fate of every OpenAI parameter, as one table: taken, ignored and said so, or refused by name.

A parameter that changes what the client gets back is refused: an answer of another shape would mislead. One that tunes
the answer is ignored, and the response's `X-Claude-Ignored-Params` names it; so is one that nobody knows. A strict
server refuses these, too. Null is the same as leaving it out. The tables in COMPATIBILITY.md and README are made of it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from errors import InvalidRequestError
from models import MOST_FUNCTIONS, MOST_STOPS

Fate = Literal["supported", "mapped", "ignored", "refused"]


@dataclass(frozen=True)
class Parameter:
    """What becomes of one parameter: `becomes` is what Claude gets for it, `reason` is why it gets nothing."""

    fate: Fate
    values: str
    """What is accepted, in words."""
    becomes: str | None = None
    reason: str | None = None
    login: str | None = None
    """Under which login alone it takes effect; under any other it is ignored."""
    harmless: tuple[Any, ...] = ()
    """Values that ask for nothing beyond what is done anyway."""


@dataclass(frozen=True)
class Rules:
    """What the operator decided of parameters, and with which login."""

    is_strict: bool
    """Whether what would be ignored, or sent otherwise than it came, is refused."""
    most_choices: int
    login: str | None
    """The server's, at Claude."""


def _supported(values: str) -> Parameter:
    return Parameter("supported", values)


def _mapped(values: str, becomes: str, login: str | None = None) -> Parameter:
    return Parameter("mapped", values, becomes, login=login)


def _ignored(reason: str, harmless: tuple[Any, ...] = ()) -> Parameter:
    return Parameter("ignored", "any", reason=reason, harmless=harmless)


def _refused(reason: str, harmless: tuple[Any, ...] = ()) -> Parameter:
    values = " or ".join(map(json.dumps, harmless)) or "nothing but null"
    return Parameter("refused", values, reason=reason, harmless=harmless)


_NO_PENALTIES = "Claude's sampling has no penalties or biases."
_NO_STORE = "This server keeps no completions."
_NO_LOGPROBS = "Claude doesn't report probabilities."
_TEXT_ONLY = "Claude answers with text."
_OWN_CACHE = "Claude Code caches prompts by itself."
_NO_END_USERS = "Claude is not told of a client's own users."
_CHOICE = "none, auto, required or a function's name"

# Names are OpenAI's: https://platform.openai.com/docs/api-reference/chat/create
PARAMETERS: Mapping[str, Parameter] = {
    "model": _supported("a claude-… id, an alias of Claude Code's, or a name of MODEL_ALIASES"),
    "messages": _mapped("text, images, files, calls and results; see below", "messages and system"),
    "stream": _supported("true, false"),
    "stream_options": _supported("include_usage, in a stream"),
    "session_id": _supported("1 to 128 printable characters; an extension, see the README"),
    "enable_tools": _supported("true, false; an extension: Claude Code's own tools, see docs/agent.md"),
    "max_completion_tokens": _mapped("1 or more", "max_tokens"),
    "max_tokens": _mapped("1 or more", "max_tokens, where there is no max_completion_tokens"),
    "n": _mapped("1 to MAX_N; 1 in a session", "so many turns, side by side"),
    "stop": _mapped(f"a string, or up to {MOST_STOPS}", "stop_sequences, less blank ones"),
    "temperature": _mapped("0 to 2", "temperature, at most 1"),
    "top_p": _supported("0 to 1"),
    "tools": _supported(f"up to {MOST_FUNCTIONS} functions"),
    "tool_choice": _mapped(_CHOICE, "tool_choice"),
    "parallel_tool_calls": _mapped("true, false", "tool_choice.disable_parallel_tool_use"),
    "functions": _mapped(f"up to {MOST_FUNCTIONS}; the older form of tools", "tools, of which one is called at a time"),
    "function_call": _mapped("none, auto or a function's name", "tool_choice"),
    "response_format": _mapped(
        "text, json_object, or a json_schema that Claude can be held to, see below",
        "output_config.format; for json_object, and for models that lack it, a tool that Claude has to answer with",
    ),
    "reasoning_effort": _mapped(
        "none, minimal, low, medium, high, xhigh",
        "thinking and output_config.effort, as the model has them",
    ),
    "service_tier": _mapped(
        "auto, default; flex, scale and priority are ignored", "service_tier: auto, standard_only", login="anthropic"
    ),
    "frequency_penalty": _ignored(_NO_PENALTIES, (0, 0.0)),
    "logit_bias": _ignored(_NO_PENALTIES, ({},)),
    "metadata": _ignored(_NO_STORE, ({},)),
    "moderation": _ignored("This server runs no moderation of its own."),
    "presence_penalty": _ignored(_NO_PENALTIES, (0, 0.0)),
    "prompt_cache_key": _ignored(_OWN_CACHE),
    "prompt_cache_options": _ignored(_OWN_CACHE),
    "prompt_cache_retention": _ignored(_OWN_CACHE),
    "safety_identifier": _ignored(_NO_END_USERS),
    "seed": _ignored("Claude's sampling can't be seeded."),
    "store": _ignored(_NO_STORE, (False,)),
    "user": _ignored(_NO_END_USERS),
    "verbosity": _ignored("Claude has no such setting."),
    "audio": _refused(_TEXT_ONLY),
    "logprobs": _refused(_NO_LOGPROBS, (False,)),
    "modalities": _refused(_TEXT_ONLY, (["text"],)),
    "prediction": _refused("Claude takes no predicted output."),
    "top_logprobs": _refused(_NO_LOGPROBS),
    "web_search_options": _refused("This server doesn't let Claude search the web."),
}

_UNKNOWN = _ignored("No parameter of this name is known.")
_ASKS_FOR_NOTHING = Parameter("supported", "any", reason="This value asks for nothing beyond what is done anyway.")

# A name is repeated in a header, so it must be fit for one.
_LONGEST_NAME = 64
_NAME = re.compile(rf"[A-Za-z0-9_.-]{{1,{_LONGEST_NAME}}}")
_MOST_UNKNOWN = 32


def check_parameters(body: Mapping[str, Any], rules: Rules) -> tuple[str, ...]:
    """Return the names of the parameters that are ignored, in order. Raises InvalidRequestError for a refused one."""
    for refusal in find_refusals(body, rules):
        raise refusal
    return tuple(sorted(name for name, row in find_fates(body, rules).items() if row.fate == "ignored"))


def find_fates(body: Mapping[str, Any], rules: Rules) -> dict[str, Parameter]:
    """Return what becomes of each parameter of a body; one that isn't in the table is ignored.

    Nulls are left out, and so are unknown ones beyond as many as there may be.
    """
    unknown = {*islice((name for name in body if name not in PARAMETERS), _MOST_UNKNOWN)}
    named = {
        name: value for name, value in body.items() if value is not None and (name in PARAMETERS or name in unknown)
    }
    fates = {name: _fate(name, value, rules) for name, value in named.items()}
    return fates | {f"stream_options.{name}": _UNKNOWN for name in _unknown_options(body.get("stream_options"))}


def _unknown_options(options: object) -> Iterator[str]:
    for name, value in islice(options.items(), _MOST_UNKNOWN) if isinstance(options, dict) else ():
        if name != "include_usage" and value and _NAME.fullmatch(f"stream_options.{name}"):
            yield name


def find_refusals(body: Mapping[str, Any], rules: Rules) -> tuple[InvalidRequestError, ...]:
    """Return everything for which a body is refused, whatever the form of its values."""
    unknown = [name for name in body if name not in PARAMETERS]
    if len(unknown) > _MOST_UNKNOWN:
        message = "The request has too many parameters that are unknown."
        return (InvalidRequestError(message, code="unknown_parameter"),)
    found = [_strange_name(name) for name in unknown if not _NAME.fullmatch(name)]
    refused = {"refused", "ignored"} if rules.is_strict else {"refused"}
    nameable = {name: row for name, row in find_fates(body, rules).items() if _NAME.fullmatch(name)}
    found += [_refusal(name, row) for name, row in nameable.items() if row.fate in refused]
    if body.get("stream_options") is not None and not body.get("stream"):
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        found.append(InvalidRequestError(message, param="stream_options"))
    return (*found, *_refusals_of_choices(body, rules))


def _refusals_of_choices(body: Mapping[str, Any], rules: Rules) -> Iterator[InvalidRequestError]:
    choices = body.get("n")
    if not isinstance(choices, int):
        return
    if choices > rules.most_choices:
        message = f"Invalid 'n': this server gives at most {rules.most_choices} choices."
        yield InvalidRequestError(message, param="n", code="integer_above_max_value")
    elif choices > 1 and body.get("session_id") is not None:
        yield InvalidRequestError("A session continues with one answer: leave out 'n'.", param="n")
    elif choices > 1 and body.get("enable_tools"):
        yield InvalidRequestError("With Claude Code's tools there is one answer: leave out 'n'.", param="n")


def shown_name(name: str) -> str:
    """Return what an error's `param` has of a parameter's name."""
    return name[:_LONGEST_NAME]


def _fate(name: str, value: object, rules: Rules) -> Parameter:
    row = PARAMETERS.get(name, _UNKNOWN)
    if row.login not in (None, rules.login):
        return _ignored(f"It takes effect only with the login '{row.login}'.")
    # Of the same type: Python takes True for 1, JSON doesn't.
    if any(type(value) is type(harmless) and value == harmless for harmless in row.harmless):
        return _ASKS_FOR_NOTHING
    return row


def _strange_name(name: str) -> InvalidRequestError:
    message = "This can't be a parameter's name."
    return InvalidRequestError(message, param=shown_name(name), code="unknown_parameter")


def _refusal(name: str, row: Parameter) -> InvalidRequestError:
    message = f"The parameter '{name}' is not supported by this server: {row.reason} Leave it out."
    code = "unknown_parameter" if row is _UNKNOWN else "unsupported_parameter"
    return InvalidRequestError(message, param=name, code=code)
