"""Functions of a client's and conversations that call them, for the tests of function calling."""

import json
import os
from collections.abc import Sequence
from typing import Any

import pytest

from conftest import Server
from demo_upstream import RecordedRequest, Reply, ToolCall

Json = dict[str, Any]

MODEL = "claude-sonnet-4-5"
GO: list[Json] = [{"role": "user", "content": "Go"}]
needs_reuse = pytest.mark.skipif(os.environ.get("PROCESS_REUSE") == "off", reason="each process serves one turn")


def tool(name: str = "weather", parameters: Json | None = None, **more: Any) -> Json:
    """A function of the client's."""
    schema = parameters or {"type": "object", "properties": {"city": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "description": "Ours.", "parameters": schema, **more}}


def native(name: str = "weather", parameters: Json | None = None, **more: Any) -> Json:
    """What the model should see of such a function."""
    schema = parameters or {"type": "object", "properties": {"city": {"type": "string"}}}
    return {"name": name, "description": "Ours.", "input_schema": schema, **more}


def scripted(server: Server, *replies: Reply) -> None:
    """Let the upstream give these replies, one a request, then "Fine."."""
    server.upstream.reset()
    for reply in replies:
        server.upstream.script(reply)
    server.upstream.script(Reply(text="Fine."), times=None)


def calling(*names: str, **more: Any) -> Reply:
    """A reply that calls functions, each with its number."""
    calls = [ToolCall(name, {"city": f"Zürich {number}"}) for number, name in enumerate(names)]
    fields: Json = {"text": "Let me look.", "tool_calls": calls, **more}
    return Reply(**fields)


def completions(server: Server) -> Any:
    """The published client's, which here takes messages and tools as they come."""
    return server.client().chat.completions


def create(server: Server, messages: Sequence[Json], **more: Any) -> Any:
    """Have a conversation answered; return the response's headers and the completion."""
    body: Json = {"model": MODEL, "messages": messages, "tools": [tool()], **more}
    raw = completions(server).with_raw_response.create(
        **{name: value for name, value in body.items() if value is not None}
    )
    return raw.headers, raw.parse()


def called(server: Server, *names: str, messages: Sequence[Json] = GO, **more: Any) -> list[Json]:
    """Let the model call functions; return the conversation with its calls."""
    scripted(server, calling(*names))
    _, completion = create(server, messages, **{"tools": [tool(name) for name in sorted({*names})], **more})
    return [*messages, completion.choices[0].message.model_dump(exclude_none=True)]


def calls_of(messages: Sequence[Json]) -> list[str]:
    """The ids of the calls that stand last."""
    return [call["id"] for call in messages[-1]["tool_calls"]]


def results(calls: Sequence[str], *contents: str | list[Json]) -> list[Json]:
    """The messages that answer calls."""
    return [
        {"role": "tool", "tool_call_id": call, "content": content}
        for call, content in zip(calls, contents, strict=True)
    ]


def text(content: str) -> Json:
    """A block, or a part, of text."""
    return {"type": "text", "text": content}


def result_block(call: str, *contents: str) -> Json:
    """What the model sees of a result."""
    return {"type": "tool_result", "tool_use_id": call, "content": [text(content) for content in contents]}


def plain(block: Json) -> Json:
    """A block less the cache marks."""
    return {name: value for name, value in block.items() if name != "cache_control"}


def seen(server: Server, place: int = -1) -> list[list[Json]]:
    """The messages that the model saw, each as its blocks."""
    record: RecordedRequest = server.upstream.messages_requests()[place]
    contents = [message["content"] for message in record.body["messages"] if message["role"] != "system"]
    return [[text(each)] if isinstance(each, str) else [plain(block) for block in each] for each in contents]


def expected(messages: Sequence[Json]) -> list[list[Json]]:
    """What the model should see of a conversation, as its messages' blocks."""
    merged: list[tuple[str, list[Json]]] = []
    for message in messages:
        if message["role"] == "system":
            continue
        role = "assistant" if message["role"] == "assistant" else "user"
        if message["role"] == "tool":
            blocks = [result_block(message["tool_call_id"], message["content"])]
        else:
            blocks = [text(message["content"])]
        for call in message.get("tool_calls", []):
            function = call["function"]
            arguments = json.loads(function["arguments"])
            blocks.append({"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments})
        if merged and merged[-1][0] == role:
            merged[-1][1].extend(blocks)
        else:
            merged.append((role, blocks))
    return [blocks for _, blocks in merged]
