"""What Claude gets for the parameters of a request, purely: OpenAI's names on one side, Anthropic's on the other.

What says nothing is left out: some models refuse even the values that they take by themselves.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from client_functions import to_tool_choice, to_tools
from config import LEAST_THINKING_TOKENS
from errors import InvalidRequestError
from models import ChatCompletionRequest, ImagePart, JsonSchemaFormat, ReasoningEffort, TextPart
from output_schema import enforceable, find_fault_of_output
from request_options import THINKING_HEADER
from turns import OUTPUT_TOOL, Binding, Effort, OutputFormat, Sampling, Thinking

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

_SERVICE_TIERS: Mapping[str, Literal["auto", "standard_only"]] = {"auto": "auto", "default": "standard_only"}

# Claude has no form for an object of any kind, so Claude Code holds it to that: docs/adr/0006.
_ANY_OBJECT = OutputFormat(json.dumps({"type": "object"}), held_by="claude_code")


@dataclass(frozen=True)
class Circumstances:
    """What a request's parameters meet with: its model, the server's login, and what was said beside its body."""

    model: str = ""
    """As Claude Code is to be asked for it."""
    can_stop_thinking: bool = True
    holds_output: bool = True
    """Whether Claude's API holds this model to a schema."""
    has_service_tiers: bool = True
    thinking_tokens: int | None = None
    """The request's own budget."""
    usual_thinking_tokens: int = 0
    """The server's, for requests that say nothing of thinking."""


USUAL = Circumstances()


def to_binding(body: ChatCompletionRequest, circumstances: Circumstances) -> Binding:
    """Convert all parameters. Raises InvalidRequestError, with `param`, for what can't be."""
    for fault in find_faults_of_output(body):
        raise fault
    tools, choice = to_tools(body), to_tool_choice(body)
    output_format = _output_format(body, circumstances)
    if output_format and output_format.held_by == "claude_code" and choice and choice.type == "none":
        tools, choice = (), None  # Or its own tool, with which the model answers, couldn't be called either.
    return Binding(
        model=circumstances.model,
        system=None,
        sampling=_sampling(body, circumstances),
        tools=tools,
        tool_choice=choice,
        thinking=_thinking(body, circumstances),
        output_format=output_format,
    )


def find_adjustments(body: ChatCompletionRequest, circumstances: Circumstances = USUAL) -> tuple[str, ...]:
    """Name the parameters that take effect, but not just as they were sent."""
    sampling, effort = _sampling(body, circumstances), body.reasoning_effort
    budget, wanted_budget = _thinking(body, circumstances).budget_tokens, circumstances.thinking_tokens
    changed = {
        THINKING_HEADER: wanted_budget not in (None, budget),
        "image_url.detail": any(part.image_url.detail not in (None, "auto") for part in _images(body)),
        "max_tokens": body.max_tokens not in (None, sampling.max_tokens),
        "reasoning_effort": not circumstances.can_stop_thinking if effort == "none" else bool(effort) and not budget,
        "service_tier": body.service_tier is not None and sampling.service_tier is None,
        "stop": len(sampling.stop_sequences) < len(body.stop or ()),
        "temperature": (body.temperature or 0) > _HIGHEST_TEMPERATURE,
    }
    return tuple(name for name, is_changed in changed.items() if is_changed)


def find_faults_of_output(body: ChatCompletionRequest) -> Iterator[InvalidRequestError]:
    """Yield why an answer can't have the form that is asked for."""
    wanted = body.response_format
    if wanted is None or wanted.type == "text":
        return
    if isinstance(wanted, JsonSchemaFormat):
        if fault := find_fault_of_output(wanted.json_schema.definition):
            message = f"Invalid schema for response_format '{wanted.json_schema.name}': {fault}"
            yield InvalidRequestError(message, param="response_format.json_schema.schema", code="invalid_json_schema")
    elif not any("json" in text.lower() for text in _texts(body)):
        message = (
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
        )
        yield InvalidRequestError(message, param="messages")
    names = [(f"tools[{index}].function", tool.function.name) for index, tool in enumerate(body.tools or ())]
    names += [(f"functions[{index}]", function.name) for index, function in enumerate(body.functions or ())]
    for place, name in names:
        if name == OUTPUT_TOOL:
            message = f"With a 'response_format' no function can be called '{OUTPUT_TOOL}'."
            yield InvalidRequestError(message, param=f"{place}.name")


def _texts(body: ChatCompletionRequest) -> Iterator[str]:
    for message in body.messages:
        if isinstance(message.content, str):
            yield message.content
        else:
            yield from (part.text for part in message.content or () if isinstance(part, TextPart))


def _images(body: ChatCompletionRequest) -> Iterator[ImagePart]:
    for message in body.messages:
        if not isinstance(message.content, str):
            yield from (part for part in message.content or () if isinstance(part, ImagePart))


def _sampling(body: ChatCompletionRequest, circumstances: Circumstances) -> Sampling:
    temperature = None if body.temperature is None else min(body.temperature, _HIGHEST_TEMPERATURE)
    return Sampling(
        temperature=None if temperature == _HIGHEST_TEMPERATURE else temperature,
        top_p=None if body.top_p == _ALL else body.top_p,
        stop_sequences=tuple(stop for stop in body.stop or () if stop.strip()),  # Claude refuses blank ones.
        max_tokens=body.max_completion_tokens or body.max_tokens,
        service_tier=_SERVICE_TIERS.get(body.service_tier or "") if circumstances.has_service_tiers else None,
    )


def _thinking(body: ChatCompletionRequest, circumstances: Circumstances) -> Thinking:
    """The request's own budget goes before the effort's, and that before the server's."""
    usual = circumstances.usual_thinking_tokens
    tokens, effort = _EFFORTS[body.reasoning_effort] if body.reasoning_effort else (usual, None)
    if circumstances.thinking_tokens is not None:
        tokens = circumstances.thinking_tokens
    if body.reasoning_effort == "none" and not circumstances.can_stop_thinking:
        effort = "low"
    most = body.max_completion_tokens or body.max_tokens
    # The budget has to be less than what may be written at all.
    budget = min(tokens, most - 1) if most else tokens
    return Thinking(budget if budget >= LEAST_THINKING_TOKENS else 0, effort, is_shown=tokens > 0)


def _output_format(body: ChatCompletionRequest, circumstances: Circumstances) -> OutputFormat | None:
    wanted = body.response_format
    if wanted is None or wanted.type == "text":
        return None
    if not isinstance(wanted, JsonSchemaFormat):
        return _ANY_OBJECT
    schema = json.dumps(enforceable(wanted.json_schema.definition), ensure_ascii=False)
    return OutputFormat(schema, "api" if circumstances.holds_output else "claude_code")
