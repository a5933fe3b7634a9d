"""What Claude gets for the parameters of a request, purely: OpenAI's names on one side, Anthropic's on the other.

What says nothing is left out: some models refuse even the values that they take by themselves.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from client_functions import to_tool_choice, to_tools
from config import LEAST_THINKING_TOKENS
from errors import InvalidRequestError
from models import (
    ChatCompletionRequest,
    ImagePart,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedSchema,
    ReasoningEffort,
    TextPart,
)
from output_schema import enforceable, find_limitation
from parameter_validator import PARAMETERS
from request_options import THINKING_HEADER
from tool_catalog import OWN_TOOLS, server_of
from turns import OUTPUT_TOOL, Binding, Effort, OutputFormat, Sampling, Thinking, ThinksWhen

# Claude's temperatures end here, OpenAI's at 2, and it is the one that either takes by itself.
_HIGHEST_TEMPERATURE = 1
_ALL = 1
"""The `top_p` that leaves nothing out."""

_EFFORTS: Mapping[ReasoningEffort, tuple[int, Effort | None]] = {
    "none": (0, None),
    "minimal": (LEAST_THINKING_TOKENS, "low"),
    "low": (4096, "low"),
    "medium": (10_000, "medium"),
    "high": (20_000, "high"),
    "xhigh": (31_999, "xhigh"),
}
"""A budget for models that have to be given one, and the level for those that have levels."""

# Claude Code's own, where the client sets none, for models that want a budget.
_USUAL_TOKEN_LIMIT = 32_000

_SERVICE_TIERS: Mapping[str, Literal["auto", "standard_only"]] = {"auto": "auto", "default": "standard_only"}

_ANY_OBJECT = OutputFormat(json.dumps({"type": "object"}))


@dataclass(frozen=True)
class Circumstances:
    """What a request's parameters meet with: its model, the server's login, and what was said beside its body."""

    model: str = ""
    """As Claude Code is to be asked for it."""
    thinks: ThinksWhen = "if told"
    holds_output: bool = True
    """Whether Claude's API holds this model to a schema."""
    login: str | None = "anthropic"
    """The server's, at Claude."""
    thinking_tokens: int | None = None
    """The request's own budget."""
    usual_thinking_tokens: int = 0
    """The server's, for requests that say nothing of thinking."""


USUAL = Circumstances()


def to_binding(body: ChatCompletionRequest, circumstances: Circumstances) -> Binding:
    """Convert all parameters. Raises InvalidRequestError, with `param`, for what can't be."""
    for fault in (*find_faults_of_output(body), *find_faults_of_own_tools(body)):
        raise fault
    binding = Binding(
        model=circumstances.model,
        system=None,
        sampling=_sampling(body, circumstances),
        tools=to_tools(body),
        tool_choice=to_tool_choice(body),
        thinking=_thinking(body, circumstances),
        output_format=_output_format(body),
    )
    if body.enable_tools:
        return _beside_own_tools(binding)
    # Claude's API has no form for an object of any kind: docs/adr/0006.
    is_beyond_the_api = binding.output_format == _ANY_OBJECT or not circumstances.holds_output
    return binding.held_by_claude_code() if binding.output_format and is_beyond_the_api else binding


def _beside_own_tools(binding: Binding) -> Binding:
    """Return what a binding is where Claude Code has tools of its own, which are called before the answer."""
    if binding.forbids_calls:
        binding = replace(binding, tools=(), tool_choice=None)
    # What is written between calls has no form: Claude Code itself holds the answer to it.
    form = binding.output_format and binding.output_format.held_by_claude_code()
    return replace(binding, has_own_tools=True, output_format=form)


def find_faults_of_own_tools(body: ChatCompletionRequest) -> Iterator[InvalidRequestError]:
    """Yield why a request can't have Claude Code's own tools beside what else it asks for."""
    if not body.enable_tools:
        return
    choice = "function_call" if body.functions else "tool_choice"
    if (asked := to_tool_choice(body)) and asked.is_forced:
        message = f"With Claude Code's tools, '{choice}' can be auto or none: it would hold for each of its steps."
        yield InvalidRequestError(message, param=choice)
    for name, place in _names_of_functions(body):
        if name in OWN_TOOLS or server_of(name):
            message = f"With Claude Code's tools no function can be called '{name}'."
            yield InvalidRequestError(message, param=f"{place}.name")


@dataclass(frozen=True)
class Adjustment:
    """A parameter that takes effect, but not just as it was sent: its name in the header, its place, and why."""

    name: str
    why: str
    param: str | None = None
    """Where it stands in the body; None: nowhere, for it is a header."""

    @property
    def parameter(self) -> str | None:
        """The body's parameter that it is a part of."""
        return self.param and self.param.partition(".")[0]

    @property
    def refusal(self) -> InvalidRequestError:
        """What a strict server says."""
        return InvalidRequestError(
            f"'{self.name}' can't take effect just as it was sent: {self.why}",
            param=self.param,
            code="unsupported_value",
        )


def find_adjustments(body: ChatCompletionRequest, circumstances: Circumstances = USUAL) -> tuple[Adjustment, ...]:
    """Return the parameters that take effect, but not just as they were sent, in the order of their names."""
    sampling, thinking = _sampling(body, circumstances), _thinking(body, circumstances)
    changed = {
        "max_tokens": body.max_tokens not in (None, sampling.max_tokens),
        "reasoning_effort": _is_effort_changed(body.reasoning_effort, thinking, circumstances),
        "service_tier": body.service_tier not in (None, *_SERVICE_TIERS),
        "stop": len(sampling.stop_sequences) < len(body.stop or ()),
        "temperature": (body.temperature or 0) > _HIGHEST_TEMPERATURE,
    }
    found = [Adjustment(name, _REASONS[name], name) for name, is_changed in changed.items() if is_changed]
    found += [Adjustment("image_url.detail", _NO_DETAILS, place) for place in _places_of_details(body)]
    found += [Adjustment("tools.function.strict", _NOT_STRICT, place) for place in _places_of_strict(body)]
    if _is_budget_changed(thinking, circumstances):
        found.append(Adjustment(THINKING_HEADER, _NO_ROOM if circumstances.thinking_tokens else _ALWAYS_THINKS))
    return tuple(found)


def find_lost_thoughts(body: ChatCompletionRequest, circumstances: Circumstances) -> Adjustment | None:
    """Return what to call it where a turn goes on without thinking; None: the client didn't ask for any."""
    if body.reasoning_effort not in (None, "none"):
        return Adjustment("reasoning_effort", _LOST_THOUGHTS, "reasoning_effort")
    return Adjustment(THINKING_HEADER, _LOST_THOUGHTS) if circumstances.thinking_tokens else None


_LOST_THOUGHTS = "what the model thought before its call is lost."
_NO_DETAILS = "Claude sees every image alike."
_NOT_STRICT = "beside Claude Code's own tools functions can't be strict."
_NO_ROOM = "the limit of tokens leaves less room to think, or this model never thinks."
_ALWAYS_THINKS = "this model always thinks."
_REASONS = {
    "max_tokens": "max_completion_tokens says otherwise.",
    "reasoning_effort": "this model always thinks, or never, or there is no room for it, or the header says otherwise.",
    "service_tier": "Claude has no such tier.",
    "stop": "Claude takes no blank stop sequence.",
    "temperature": "Claude's temperatures end at 1.",
}


def _is_effort_changed(effort: ReasoningEffort | None, thinking: Thinking, circumstances: Circumstances) -> bool:
    if effort == "none":
        return thinking.budget_tokens > 0 or circumstances.thinks == "always"
    return effort is not None and (not thinking.budget_tokens or circumstances.thinks == "never")


def _is_budget_changed(thinking: Thinking, circumstances: Circumstances) -> bool:
    wanted = circumstances.thinking_tokens
    if circumstances.thinks == "if told":
        return wanted not in (None, thinking.budget_tokens)
    # A model that judges by itself takes any budget for a yes.
    return wanted == 0 if circumstances.thinks == "always" else bool(wanted)


def _places_of_details(body: ChatCompletionRequest) -> Iterator[str]:
    for index, message in enumerate(body.messages):
        for number, part in enumerate(message.content if isinstance(message.content, list) else ()):
            if isinstance(part, ImagePart) and part.image_url.detail not in (None, "auto"):
                yield f"messages.[{index}].content.[{number}].image_url.detail"


def _places_of_strict(body: ChatCompletionRequest) -> Iterator[str]:
    for index, tool in enumerate((body.enable_tools and body.tools) or ()):
        if tool.function.strict:
            yield f"tools.[{index}].function.strict"


def find_faults_of_output(body: ChatCompletionRequest) -> Iterator[InvalidRequestError]:
    """Yield why an answer can't have the form that is asked for."""
    if isinstance(body.response_format, JsonSchemaFormat):
        yield from _faults_of_schema(body.response_format.json_schema)
    # A session may have said it before.
    if isinstance(body.response_format, JsonObjectFormat) and body.session_id is None:
        yield from _fault_of_missing_word(body)
    if isinstance(body.response_format, JsonSchemaFormat | JsonObjectFormat):
        yield from _faults_of_names(body)


def _faults_of_schema(schema: NamedSchema) -> Iterator[InvalidRequestError]:
    if limitation := find_limitation(schema.definition):
        message = f"Invalid schema for response_format '{schema.name}': {limitation}"
        yield InvalidRequestError(message, param="response_format.json_schema.schema", code="invalid_json_schema")


def _fault_of_missing_word(body: ChatCompletionRequest) -> Iterator[InvalidRequestError]:
    if not any("json" in text.lower() for text in _texts(body)):
        wanted = "to use 'response_format' of type 'json_object'."
        yield InvalidRequestError(f"'messages' must contain the word 'json' in some form, {wanted}", param="messages")


def _faults_of_names(body: ChatCompletionRequest) -> Iterator[InvalidRequestError]:
    for name, place in _names_of_functions(body):
        if name == OUTPUT_TOOL:
            message = f"With a 'response_format' no function can be called '{OUTPUT_TOOL}'."
            yield InvalidRequestError(message, param=f"{place}.name")


def _names_of_functions(body: ChatCompletionRequest) -> Iterator[tuple[str, str]]:
    """Yield the name of each function, and where it stands."""
    yield from ((tool.function.name, f"tools[{index}].function") for index, tool in enumerate(body.tools or ()))
    yield from ((function.name, f"functions[{index}]") for index, function in enumerate(body.functions or ()))


def _texts(body: ChatCompletionRequest) -> Iterator[str]:
    for message in body.messages:
        if isinstance(message.content, str):
            yield message.content
        else:
            yield from (part.text for part in message.content or () if isinstance(part, TextPart))


def _sampling(body: ChatCompletionRequest, circumstances: Circumstances) -> Sampling:
    temperature = None if body.temperature is None else min(body.temperature, _HIGHEST_TEMPERATURE)
    has_tiers = PARAMETERS["service_tier"].login == circumstances.login
    return Sampling(
        temperature=None if temperature == _HIGHEST_TEMPERATURE else temperature,
        top_p=None if body.top_p == _ALL else body.top_p,
        stop_sequences=tuple(stop for stop in body.stop or () if stop.strip()),  # Claude refuses blank ones.
        max_tokens=body.token_limit,
        service_tier=_SERVICE_TIERS.get(body.service_tier or "") if has_tiers else None,
    )


def _thinking(body: ChatCompletionRequest, circumstances: Circumstances) -> Thinking:
    """The request's own budget goes before the effort's, and that before the server's."""
    tokens, effort = _usual_tokens(body, circumstances), None
    if body.reasoning_effort:
        tokens, effort = _EFFORTS[body.reasoning_effort]
    if circumstances.thinking_tokens is not None:
        tokens = circumstances.thinking_tokens
    if circumstances.thinks == "always":
        # No budget, and no way to do without.
        return Thinking(tokens, "low" if body.reasoning_effort == "none" else effort, is_shown=tokens > 0)
    # The budget has to be less than what may be written at all.
    budget = min(tokens, (body.token_limit or _USUAL_TOKEN_LIMIT) - 1)
    return Thinking(budget if budget >= LEAST_THINKING_TOKENS else 0, effort, is_shown=tokens > 0)


def _usual_tokens(body: ChatCompletionRequest, circumstances: Circumstances) -> int:
    """What a request gets that doesn't say how to think: nothing, where it says what goes with no thinking."""
    choice = to_tool_choice(body)
    is_forced = choice is not None and choice.is_forced
    says_otherwise = is_forced or (body.temperature, body.top_p) != (None, None)
    return 0 if says_otherwise else circumstances.usual_thinking_tokens


def _output_format(body: ChatCompletionRequest) -> OutputFormat | None:
    if isinstance(body.response_format, JsonSchemaFormat):
        asked = body.response_format.json_schema
        schema = {**({"description": asked.description} if asked.description else {}), **enforceable(asked.definition)}
        return OutputFormat(json.dumps(schema, ensure_ascii=False))
    return _ANY_OBJECT if isinstance(body.response_format, JsonObjectFormat) else None
