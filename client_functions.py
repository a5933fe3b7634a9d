"""The client's functions: from OpenAI's form to the Messages API's tools, and from Claude's calls back; purely.

Names that Claude's API doesn't take are sent in a form that it does, always the same one for a name, and come back as
the client's own. Tools keep their order and their schemas, so that Claude's API finds them in its cache.
Source: https://platform.openai.com/docs/guides/function-calling
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

from answer_models import FinishReason, finish_reason
from errors import InvalidRequestError
from json_schema import find_fault, length
from models import ChatCompletionRequest, FunctionDefinition, FunctionName, NamedToolChoice
from turns import Tool, ToolChoice, TurnEnded

_NATIVE_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NOT_NATIVE = re.compile(r"[^a-zA-Z0-9_-]")
_ROOM_BEFORE_DIGEST = 55
_LONGEST_TOGETHER = 2**20
_TOO_LONG_TOGETHER = f"with it all schemas together are longer than {_LONGEST_TOGETHER} characters."
_CHOICES: Mapping[str, Literal["none", "auto", "any"]] = {"none": "none", "auto": "auto", "required": "any"}


@dataclass(frozen=True)
class CallStyle:
    """How a client is told of calls: under which names, and whether as `tool_calls` or, of old, as `function_call`.

    `own_names` are the client's, by the ones that Claude has; `is_forced` where the client named what to call.
    """

    own_names: Mapping[str, str]
    is_legacy: bool = False
    is_forced: bool = False
    tells_own_tools: bool = False
    """Whether to tell of calls of Claude Code's own tools, too."""

    def own_name(self, name: str) -> str:
        """Return the client's name of what Claude calls."""
        return self.own_names.get(name, name)

    def finish_reason(self, ended: TurnEnded, *, has_spoken: bool) -> FinishReason:
        """Translate Claude's `stop_reason`.

        At OpenAI a call that was forced is no reason of the model's to stop, and a refusal is an answer: only where the
        client has got something else of it, which it cut off, content was filtered.
        """
        reason = finish_reason(ended.stop_reason)
        if reason == "content_filter" and not has_spoken:
            return "stop"
        if reason != "tool_calls":
            return reason
        return "stop" if self.is_forced else "function_call" if self.is_legacy else reason


def native_name(name: str) -> str:
    """Return the name that Claude's API takes for a function: its own, where that will do."""
    if _NATIVE_NAME.fullmatch(name):
        return name
    digest = blake2b(name.encode(), digest_size=4).hexdigest()
    return f"{_NOT_NATIVE.sub('_', name)[:_ROOM_BEFORE_DIGEST]}_{digest}"


def call_style(body: ChatCompletionRequest) -> CallStyle:
    """Return how to tell this request's client of calls."""
    form = _Form.of(body)
    own_names = {native_name(function.name): function.name for function in form.functions}
    return CallStyle(own_names, form.is_legacy, form.named is not None)


def to_tools(body: ChatCompletionRequest) -> tuple[Tool, ...]:
    """Convert a request's functions. Raises InvalidRequestError, with `param`, for what can't be one."""
    for fault in _faults(body):
        raise fault
    return tuple(map(_tool, _Form.of(body).functions))


def to_tool_choice(body: ChatCompletionRequest) -> ToolChoice | None:
    """Convert what a request says of whether and what to call; None where it says nothing."""
    form = _Form.of(body)
    one_at_most = body.parallel_tool_calls is False or form.is_legacy
    if form.named is not None:
        return ToolChoice("tool", native_name(form.named), one_at_most)
    if not form.functions or (form.choice is None and not one_at_most):
        return None
    choice = _CHOICES[form.choice if isinstance(form.choice, str) else "auto"]
    return ToolChoice(choice, disable_parallel_tool_use=one_at_most and choice != "none")


def find_faults_of_functions(body: ChatCompletionRequest) -> tuple[InvalidRequestError, ...]:
    """Return what `to_tools` refuses, all of it."""
    return tuple(_faults(body))


@dataclass(frozen=True)
class _Form:
    """What a request has of functions, and the form that it has it in: `tools`, or of old `functions`."""

    functions: Sequence[FunctionDefinition]
    choice: str | NamedToolChoice | FunctionName | None
    is_legacy: bool

    @classmethod
    def of(cls, body: ChatCompletionRequest) -> "_Form":
        """Look at a request."""
        if body.functions and not body.tools:
            return cls(body.functions, body.function_call, is_legacy=True)
        return cls([tool.function for tool in body.tools or ()], body.tool_choice, is_legacy=False)

    @property
    def named(self) -> str | None:
        """The function that has to be called."""
        if isinstance(self.choice, NamedToolChoice):
            return self.choice.function.name
        return self.choice.name if isinstance(self.choice, FunctionName) else None

    def place(self, index: int) -> str:
        """Where a function stands in the request."""
        return f"functions[{index}]" if self.is_legacy else f"tools[{index}].function"


def _tool(function: FunctionDefinition) -> Tool:
    name = native_name(function.name)
    definition = {
        "name": name,
        **({"description": function.description} if function.description else {}),
        "input_schema": _input_schema(function),
        **({"strict": True} if function.strict else {}),
    }
    return Tool(name, json.dumps(definition, ensure_ascii=False))


def _input_schema(function: FunctionDefinition) -> Mapping[str, Any]:
    """The schema as it came, but for the type, which Claude's API wants to be told; arguments are always an object."""
    if not function.parameters:
        return {"type": "object", "properties": {}}
    return function.parameters if "type" in function.parameters else {"type": "object", **function.parameters}


def _faults(body: ChatCompletionRequest) -> Iterator[InvalidRequestError]:
    if body.tools and body.functions:
        message = "Send either 'tools' or, in the older form, 'functions'; not both."
        yield InvalidRequestError(message, param="functions")
    for choice, functions in (("tool_choice", "tools"), ("function_call", "functions")):
        if getattr(body, choice) is not None and getattr(body, functions) is None:
            message = f"'{choice}' is only allowed when '{functions}' are specified."
            yield InvalidRequestError(message, param=choice)
    form = _Form.of(body)
    yield from _faults_of_definitions(form)
    names = [function.name for function in form.functions]
    if names and form.named is not None and form.named not in names:
        message = f"There is no function '{form.named}' among those of the request."
        yield InvalidRequestError(message, param="function_call" if form.is_legacy else "tool_choice")


def _faults_of_definitions(form: _Form) -> Iterator[InvalidRequestError]:
    seen: set[str] = set()
    total = 0.0
    for index, function in enumerate(form.functions):
        if (name := native_name(function.name)) in seen:
            message = f"There are two functions '{function.name}'; each needs a name of its own."
            yield InvalidRequestError(message, param=f"{form.place(index)}.name")
        seen.add(name)
        own_length = length(function.parameters or {})
        total += own_length if own_length < math.inf else 0
        fault = _fault_of_schema(function.parameters or {}) if total <= _LONGEST_TOGETHER else _TOO_LONG_TOGETHER
        if fault:
            message = f"Invalid schema for function '{function.name}': {fault}"
            param = f"{form.place(index)}.parameters"
            yield InvalidRequestError(message, param=param, code="invalid_function_parameters")
        if fault == _TOO_LONG_TOGETHER:
            return


def _fault_of_schema(schema: Mapping[str, Any]) -> str | None:
    if fault := find_fault(schema):
        return fault
    if schema.get("type", "object") != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema['type']}\"'."
    return None
