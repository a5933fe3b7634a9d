"""Requests that use Claude Code's own tools, for the tests: what the model tries, and what came of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from chat import MODEL, send
from conftest import Server
from demo_upstream import Reply, ToolCall

Json = dict[str, Any]

QUESTION = "What files are in the current directory?"


def trying(server: Server, *steps: ToolCall | list[ToolCall], last: str = "Done.") -> None:
    """Let the model call these tools, one step after the other, and then say its last words."""
    server.upstream.reset()
    for number, step in enumerate(steps, 1):
        calls = [step] if isinstance(step, ToolCall) else step
        server.upstream.script(Reply(text=f"Step {number}.", tool_calls=calls))
    server.upstream.script(Reply(text=last), times=None)


def ask(server: Server, headers: Mapping[str, str] | None = None, **body: Any) -> httpx.Response:
    """Ask with Claude Code's tools."""
    fields: Json = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "enable_tools": True, **body}
    return send(server, fields, headers)


def bodies(server: Server) -> list[Json]:
    """What the model's API got, request by request."""
    return [record.body for record in server.upstream.messages_requests()]


def events_of(answer: Sequence[Json]) -> list[Json]:
    """What the chunks of a stream tell of Claude Code's own tools."""
    deltas = [choice["delta"] for chunk in answer for choice in chunk["choices"]]
    return [delta["claude_event"] for delta in deltas if "claude_event" in delta]


def results(server: Server, place: int = -1) -> list[str]:
    """What the model was told of the calls in its last message, in their order."""
    content = bodies(server)[place]["messages"][-1]["content"]
    blocks = [block for block in content if block["type"] == "tool_result"]
    return [_text(block["content"]) for block in blocks]


def _text(content: str | list[Json]) -> str:
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def offered(server: Server, place: int = -1) -> list[str]:
    """The tools that the model was offered."""
    return [tool["name"] for tool in bodies(server)[place].get("tools", [])]
