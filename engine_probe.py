"""Tries out, on a stand-in for the model, whether the installed Claude Code does what using a process again relies on.

What it relies on is undocumented (docs/adr/0003), so another version may do otherwise; nothing is sent to Claude.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio

from claude_process import ClaudeProcess
from demo_upstream import DemoUpstream, Reply
from errors import ApiError
from turns import Binding, LaunchProfile, Message, Sampling, TextBlock, TurnRequest

_PATIENCE_SECONDS = 30
_ANSWER = "Fine."
_API_TEMPERATURE = 1
"""What the API takes where none is sent; Claude Code sends it to some models."""
_FIRST = Binding("claude-sonnet-4-5", "You are the first.")
_SECOND = Binding("claude-opus-4-1", "You are the second.", Sampling(0.5, 0.9, ("Stop",), 77))
_THIRD = Binding("claude-opus-4-1", "You are the third.")


def _request(binding: Binding, *texts: str) -> TurnRequest:
    messages = [Message("assistant" if index % 2 else "user", (TextBlock(text),)) for index, text in enumerate(texts)]
    return TurnRequest(binding, tuple(messages[:-1]), messages[-1])


# Seeded at the start, gone on with, edited, regenerated; recycled for another model, prompt, sampling and history, for
# the prompt alone, and back.
_REQUESTS = (
    _request(_FIRST, "One", _ANSWER, "Two"),
    _request(_FIRST, "One", _ANSWER, "Two", _ANSWER, "Three"),
    _request(_FIRST, "One", _ANSWER, "Another"),
    _request(_FIRST, "One", _ANSWER, "Another"),
    _request(_SECOND, "Other", "Answer.", "More"),
    _request(_THIRD, "More"),
    _request(_FIRST, "Last"),
)


async def find_fault(cli_path: Path, search_path: str, directory: Path) -> str | None:
    """Return what the Claude Code at `cli_path` does otherwise than it should; None: nothing.

    It runs in `directory`, with an environment made from nothing but `search_path`, and a dummy login.
    """
    upstream = DemoUpstream()
    upstream.script(Reply(text=_ANSWER), times=None)
    async with upstream.serve() as url:
        login = {"ANTHROPIC_API_KEY": "sk-ant-dummy-loopback-only", "ANTHROPIC_BASE_URL": url}
        environment = {"PATH": search_path, "HOME": str(directory), "CLAUDE_CONFIG_DIR": str(directory), **login}
        profile = LaunchProfile(cli_path, tuple(environment.items()), directory, bare=True)
        try:
            with anyio.fail_after(_PATIENCE_SECONDS):
                return await _first_fault(await ClaudeProcess.launch(profile), upstream)
        except (ApiError, TimeoutError, LookupError, TypeError) as error:
            # A request of a shape that we don't know is a fault as well.
            return repr(error)


async def _first_fault(process: ClaudeProcess, upstream: DemoUpstream) -> str | None:
    try:
        for number, request in enumerate(_REQUESTS, 1):
            await process.prepare(request)
            async for _ in process.turn(request.prompt):
                pass
            received = [_seen(record.body) for record in upstream.messages_requests()]
            if len(received) != number:
                return f"after {number} turns it had asked the model {len(received)} times"
            if received[-1] != _expected(request):
                return f"instead of {_expected(request)} the model saw {received[-1]}"
    finally:
        await process.close()
    return None


def _expected(request: TurnRequest) -> list[Any]:
    messages, binding = [*request.history, request.prompt], request.binding
    temperature, stops = binding.sampling.temperature, [*binding.sampling.stop_sequences]
    sampling = [_API_TEMPERATURE if temperature is None else temperature, binding.sampling.top_p, stops]
    return [binding.model, binding.system, sampling, *((each.role, _texts(each.content)) for each in messages)]


def _seen(body: dict[str, Any]) -> list[Any]:
    messages = [(message["role"], [block["text"] for block in message["content"]]) for message in body["messages"]]
    # Before our system prompt stand the two lines in which Claude Code says what it is.
    sampling = [body.get("temperature", _API_TEMPERATURE), body.get("top_p"), body.get("stop_sequences", [])]
    return [body["model"], "".join(block["text"] for block in body["system"][2:]), sampling, *messages]


def _texts(content: Sequence[object]) -> list[str]:
    return [block.text for block in content if isinstance(block, TextBlock)]
