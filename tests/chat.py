"""Chat completions as they come and go, for the tests: raw bodies, streams, and what the model saw."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
from openai.types.chat import ChatCompletionMessageParam

from conftest import Server
from demo_upstream import DemoUpstream

MODEL = "claude-sonnet-4-5"
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
CONVERSATION: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "You are terse."},
    {"role": "user", "content": "One"},
    {"role": "assistant", "content": "Uno"},
    {"role": "user", "content": "Two"},
    {"role": "assistant", "content": "Dos"},
    {"role": "user", "content": "Three"},
]


def send(server: Server, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> httpx.Response:
    """Send a body as it is."""
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=60)


def post(server: Server, **body: Any) -> httpx.Response:
    """Send a body of these fields."""
    return send(server, body)


def sse_data(response: httpx.Response) -> list[str]:
    """The data of every event of a stream."""
    return [line.removeprefix("data: ") for line in response.text.split("\n") if line.startswith("data: ")]


def chunks(response: httpx.Response) -> list[dict[str, Any]]:
    """The chunks of a stream, which has to end well."""
    *data, done = sse_data(response)
    assert done == "[DONE]"
    return [json.loads(each) for each in data]


def sent_messages(upstream: DemoUpstream) -> list[tuple[str, list[str]]]:
    """What the model saw in the one request that was made: role and texts of each message."""
    (request,) = upstream.messages_requests()
    return [(message["role"], texts(message["content"])) for message in request.body["messages"]]


def texts(content: str | list[dict[str, Any]]) -> list[str]:
    """The texts of a message's blocks."""
    return [content] if isinstance(content, str) else [block["text"] for block in content]


def system_texts(upstream: DemoUpstream) -> list[str]:
    """The system blocks, less the two that Claude Code identifies itself with."""
    (request,) = upstream.messages_requests()
    billing, identity, *rest = [block["text"] for block in request.body["system"]]
    assert billing.startswith("x-anthropic-billing-header")
    assert identity.startswith("You are a Claude agent")
    return rest


def a_client_left(upstream: DemoUpstream) -> bool:
    """Whether the upstream saw a connection close before its answer was complete."""
    return any(request.disconnected for request in upstream.messages_requests())
