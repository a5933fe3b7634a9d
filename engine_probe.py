"""Tries out, on a stand-in for the model, whether the installed Claude Code does what using a process again relies on.

What it relies on is undocumented (docs/adr/0003), so another version may do otherwise; nothing is sent to Claude.
"""

import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import anyio

from claude_process import ClaudeProcess
from demo_upstream import DemoUpstream, Gate, Reply, ToolCall
from turns import (
    Binding,
    LaunchProfile,
    Message,
    OutputFormat,
    Sampling,
    TextBlock,
    TextDelta,
    Thinking,
    Tool,
    ToolChoice,
    ToolResultBlock,
    ToolUseBlock,
    TurnRequest,
)

_PATIENCE_SECONDS = 30
_ANSWER = "Fine."
_API_TEMPERATURE = 1
"""What the API takes where none is sent; Claude Code sends it to some models."""
_FEW, _MANY = 2, 777
_LEFT, _CUT, _CALLING = "Leave me.", "Cut me short.", "Call two."
_FIRST = Binding("claude-sonnet-4-5", "You are the first.")
_SECOND = Binding("claude-opus-4-1", "You are the second.", Sampling(0.5, 0.9, ("Stop",), _MANY))
_THIRD = Binding("claude-opus-4-1", "You are the third.")
_THOUGHTFUL = replace(_THIRD, thinking=Thinking(2048, "high", is_shown=True))
_HELD = replace(_THIRD, output_format=OutputFormat('{"type": "object"}'))
_TOOLS = tuple(Tool(name, json.dumps({"name": name, "input_schema": {"type": "object"}})) for name in ("two", "one"))
_WITH_TOOLS = replace(_FIRST, tools=_TOOLS, tool_choice=ToolChoice("any"))
_CALLS = (ToolUseBlock("toolu_1", "one", {"x": 1}), ToolUseBlock("toolu_2", "two", {}))
_RESULTS = tuple(ToolResultBlock(call.id, (TextBlock(call.name),)) for call in reversed(_CALLS))


def _request(binding: Binding, *texts: str) -> TurnRequest:
    messages = [Message("assistant" if index % 2 else "user", (TextBlock(text),)) for index, text in enumerate(texts)]
    return TurnRequest(binding, tuple(messages[:-1]), messages[-1])


def _results(binding: Binding) -> TurnRequest:
    history = (Message("user", (TextBlock(_CALLING),)), Message("assistant", (TextBlock(_ANSWER), *_CALLS)))
    return TurnRequest(binding, history, Message("user", _RESULTS))


async def find_fault(cli_path: Path, search_path: str, directory: Path) -> str | None:
    """Return what the Claude Code at `cli_path` does otherwise than it should; None: nothing.

    It runs in `directory`, with an environment made from nothing but `search_path`, and a dummy login.
    """
    upstream = DemoUpstream()
    upstream.script(Reply(text=["Wait ", "for it"], delta_delay=0.2, gate=Gate(after=1)), when=_LEFT)
    # Slowly enough to be barred from asking on.
    upstream.script(Reply(text=["Half an ", "ans"], stop_reason="max_tokens", delta_delay=0.2), when=_CUT)
    calls = [ToolCall(call.name, call.input, call.id) for call in _CALLS]
    upstream.script(Reply(text=_ANSWER, tool_calls=calls), when=_CALLING)
    upstream.script(Reply(text=_ANSWER), times=None)
    async with upstream.serve() as url:
        login = {"ANTHROPIC_API_KEY": "sk-ant-dummy-loopback-only", "ANTHROPIC_BASE_URL": url}
        environment = {"PATH": search_path, "HOME": str(directory), "CLAUDE_CONFIG_DIR": str(directory), **login}
        profile = LaunchProfile(cli_path, tuple(environment.items()), directory, bare=True)
        try:
            with anyio.fail_after(_PATIENCE_SECONDS):
                return await _first_fault(await ClaudeProcess.launch(profile), upstream)
        except Exception as error:  # noqa: BLE001 - the process's edge: whatever an unknown version does is a fault
            return repr(error)


async def _first_fault(process: ClaudeProcess, upstream: DemoUpstream) -> str | None:
    try:
        for number, (request, play) in enumerate(_TURNS, 1):
            await process.prepare(request)
            await play(process, request.prompt)
            await process.settle()
            received = [_seen(record.body) for record in upstream.messages_requests()]
            if len(received) != number:
                return f"after {number} turns it had asked the model {len(received)} times"
            if received[-1] != _expected(request):
                return f"instead of {_expected(request)} the model saw {received[-1]}"
    finally:
        await process.close()
    return None


async def _hear(process: ClaudeProcess, prompt: Message) -> None:
    async for _ in process.turn(prompt):
        pass


async def _leave(process: ClaudeProcess, prompt: Message) -> None:
    async with aclosing(process.turn(prompt)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                return


# Seeded at the start, gone on with, edited, regenerated; left, and cut short; recycled for another model, prompt,
# sampling and history, for thinking, a schema, the prompt alone, functions, which are called and answered, and back.
_TURNS: tuple[tuple[TurnRequest, Callable[[ClaudeProcess, Message], Awaitable[None]]], ...] = (
    (_request(_FIRST, "One", _ANSWER, "Two"), _hear),
    (_request(_FIRST, "One", _ANSWER, "Two", _ANSWER, "Three"), _hear),
    (_request(_FIRST, "One", _ANSWER, "Another"), _hear),
    (_request(_FIRST, "One", _ANSWER, "Another"), _hear),
    (_request(_FIRST, "One", _ANSWER, _LEFT), _leave),
    (_request(replace(_FIRST, sampling=Sampling(max_tokens=_FEW)), "One", _ANSWER, _CUT), _hear),
    (_request(_SECOND, "Other", "Answer.", "More"), _hear),
    (_request(_THOUGHTFUL, "More"), _hear),
    (_request(_HELD, "More"), _hear),
    (_request(_THIRD, "More"), _hear),
    (_request(_WITH_TOOLS, _CALLING), _hear),
    (_results(replace(_WITH_TOOLS, tool_choice=None)), _hear),
    (_request(_FIRST, "Last"), _hear),
)


def _expected(request: TurnRequest) -> list[Any]:
    messages, binding = [*request.history, request.prompt], request.binding
    temperature = binding.sampling.temperature
    sampling = replace(binding.sampling, temperature=_API_TEMPERATURE if temperature is None else temperature)
    tools = [json.loads(tool.definition) for tool in binding.tools], binding.tool_choice and binding.tool_choice.type
    blocks = ((each.role, json.loads(json.dumps([asdict(block) for block in each.content]))) for each in messages)
    schema = json.loads(binding.output_format.schema) if binding.output_format else None
    return [binding.model, binding.system, sampling, tools, binding.thinking.budget_tokens, schema, *blocks]


def _seen(body: dict[str, Any]) -> list[Any]:
    messages = [(message["role"], [*map(_plain, message["content"])]) for message in body["messages"]]
    tools = body.get("tools"), body.get("tool_choice", {}).get("type")
    sampling = Sampling(
        body.get("temperature", _API_TEMPERATURE),
        body.get("top_p"),
        tuple(body.get("stop_sequences", ())),
        # Where we set none, Claude Code has one of its own for each model.
        body["max_tokens"] if body["max_tokens"] in (_FEW, _MANY) else None,
    )
    # Before our system prompt stand the two lines in which Claude Code says what it is.
    system = "".join(block["text"] for block in body["system"][2:])
    schema = body.get("output_config", {}).get("format", {}).get("schema")
    return [body["model"], system, sampling, tools, body.get("thinking", {}).get("budget_tokens", 0), schema, *messages]


def _plain(block: dict[str, Any]) -> dict[str, Any]:
    """Return a block less Claude Code's cache mark."""
    return {name: value for name, value in block.items() if name != "cache_control"}
