"""A stand-in for Anthropic's Messages API on loopback: for `--demo`, for the tests and for the benchmark.

It says what it is, whatever it is asked. Tests script it (`Reply`: errors, delays, cuts) and read what it received
(`requests`), to compare what a model would have seen with what a client sent. It imports nothing of the server.
"""

import asyncio
import json
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from socket import create_server
from typing import Any

import anyio
import uvicorn

from demo_replies import (
    OK,
    Gate,
    Json,
    Reply,
    ToolCall,
    default_reply,
    error_body,
    last_user_text,
    limited_reply,
    stream_events,
    usage_of,
    whole_message,
)

# Who scripts it needs these, too.
__all__ = [
    "DemoUpstream",
    "Gate",
    "RecordedRequest",
    "Reply",
    "ToolCall",
    "default_reply",
    "last_user_text",
    "stream_events",
    "whole_message",
]

_Receive = Callable[[], Any]
_Send = Callable[[Json], Any]

_CREDENTIALS = frozenset({"authorization", "x-api-key", "cookie"})


@dataclass
class RecordedRequest:
    """One request, less its credentials; `disconnected_at` is when its client left before the answer was complete."""

    method: str
    path: str
    headers: dict[str, str]
    body: Json
    at: float = field(default_factory=time.monotonic)
    completed: bool = False
    disconnected_at: float | None = None

    @property
    def disconnected(self) -> bool:
        """Whether the client left before its answer was complete."""
        return self.disconnected_at is not None


@dataclass
class _Script:
    reply: Reply
    matches: Callable[[Json], bool]
    times: int | None


class _Quiet(uvicorn.Server):
    """A server inside another program: signals are that program's."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class DemoUpstream:
    """The stand-in. Script it and read it from any thread."""

    def __init__(self) -> None:
        """Begin with nothing scripted and nothing recorded."""
        self.requests: list[RecordedRequest] = []
        self._scripts: list[_Script] = []
        self._changed = threading.Condition()

    def messages_requests(self) -> list[RecordedRequest]:
        """The requests for a message: what a model would have seen."""
        return [request for request in self.requests if request.path.endswith("/v1/messages")]

    def script(self, reply: Reply, *, when: Callable[[Json], bool] | str | None = None, times: int | None = 1) -> None:
        """Answer the next `times` requests (None: all) with `reply`: those whose body, or last user text, matches."""
        matches = when if callable(when) else lambda body: when is None or when in last_user_text(body)
        with self._changed:
            self._scripts.append(_Script(reply, matches, times))

    def reset(self) -> None:
        """Forget scripts and records."""
        with self._changed:
            self._scripts.clear()
            self.requests = []

    def wait_for(self, condition: Callable[["DemoUpstream"], bool], timeout: float = 30) -> None:
        """Wait until a condition on the records holds. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), timeout):
                raise TimeoutError

    @asynccontextmanager
    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> AsyncGenerator[str, None]:
        """Serve in this event loop; yields the base URL."""
        with create_server((host, port), backlog=1024) as listener:
            config = uvicorn.Config(
                self, access_log=False, lifespan="off", log_config=None, timeout_graceful_shutdown=1
            )
            server = _Quiet(config)
            serving = asyncio.create_task(server.serve([listener]))
            try:
                yield f"http://{host}:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True
                with anyio.CancelScope(shield=True):
                    await serving

    async def __call__(self, scope: Json, receive: _Receive, send: _Send) -> None:
        """Serve one request (ASGI)."""
        body = await _read_json(receive)
        record = self._record(scope, body)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._notice_disconnect, record, receive, tasks.cancel_scope)
            try:
                await self._answer(record, send)
            finally:
                tasks.cancel_scope.cancel()

    def _record(self, scope: Json, body: Json | None) -> RecordedRequest:
        headers = {key.decode().lower(): value.decode("latin-1") for key, value in scope["headers"]}
        kept = {key: value for key, value in headers.items() if key not in _CREDENTIALS}
        record = RecordedRequest(scope["method"], scope["path"], kept, {} if body is None else body)
        with self._changed:
            self.requests.append(record)
            self._changed.notify_all()
        return record

    def _mark(self, record: RecordedRequest, name: str, value: float | bool) -> None:  # noqa: FBT001 - a field's value
        with self._changed:
            setattr(record, name, value)
            self._changed.notify_all()

    async def _notice_disconnect(self, record: RecordedRequest, receive: _Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if not record.completed:
            self._mark(record, "disconnected_at", time.monotonic())
        scope.cancel()

    async def _answer(self, record: RecordedRequest, send: _Send) -> None:
        if record.path.endswith("/v1/messages/count_tokens"):
            await _send_json(send, OK, {"input_tokens": usage_of(record.body, Reply())["input_tokens"]})
        elif not record.path.endswith("/v1/messages"):
            await _send_json(send, OK if record.path == "/" else 404, {})
        elif not record.body.get("messages"):
            await _send_json(send, 400, error_body(Reply(status=400, error_message="messages: field required")))
        else:
            await self._answer_message(record.body, self._next_reply(record.body), send)
        self._mark(record, "completed", value=True)

    def _next_reply(self, body: Json) -> Reply:
        with self._changed:
            script = next((script for script in self._scripts if script.matches(body)), None)
            if script is None:
                return limited_reply(body, default_reply(body))
            if script.times is not None:
                script.times -= 1
                if not script.times:
                    self._scripts.remove(script)
            return script.reply

    async def _answer_message(self, body: Json, reply: Reply, send: _Send) -> None:
        if reply.hang:
            await anyio.sleep_forever()
        if reply.delay:
            await anyio.sleep(reply.delay)
        if reply.status != OK:
            await _send_json(send, reply.status, error_body(reply), reply.headers)
        elif reply.garbage is not None and reply.garbage_after is None:
            await _send_head(send, OK, {"content-type": "text/event-stream", **reply.headers})
            await send({"type": "http.response.body", "body": reply.garbage.encode()})
        elif not body.get("stream"):
            await _send_json(send, OK, whole_message(body, reply), reply.headers)
        else:
            await _stream(body, reply, send)


async def _read_json(receive: _Receive) -> Json | None:
    raw, more = bytearray(), True
    while more:
        message = await receive()
        raw += message.get("body", b"")
        more = message.get("more_body", False)
    try:
        body = json.loads(raw)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


async def _send_json(send: _Send, status: int, value: Json, headers: Mapping[str, str] | None = None) -> None:
    await _send_head(send, status, {"content-type": "application/json", **(headers or {})})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})


async def _send_head(send: _Send, status: int, headers: Mapping[str, str]) -> None:
    pairs = [(key.encode(), value.encode()) for key, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


async def _stream(body: Json, reply: Reply, send: _Send) -> None:
    await _send_head(send, OK, {"content-type": "text/event-stream; charset=utf-8", **reply.headers})
    deltas = 0
    for event in stream_events(body, reply):
        if event["type"] in ("content_block_delta", "message_delta"):
            if reply.gate and deltas == reply.gate.after:
                await reply.gate.wait()
            if deltas == reply.cut_after:
                return  # the server closes the connection of an answer that isn't complete
            if reply.garbage and deltas == reply.garbage_after:
                await send({"type": "http.response.body", "body": reply.garbage.encode(), "more_body": True})
            if deltas == reply.error_after:
                await _send_event(send, error_body(reply, "overloaded_error"))
                break
            if reply.delta_delay and (deltas or event["type"] == "message_delta"):
                await anyio.sleep(reply.delta_delay)
            deltas += 1
        await _send_event(send, event)
    await send({"type": "http.response.body", "body": b""})


async def _send_event(send: _Send, event: Json) -> None:
    data = f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"
    await send({"type": "http.response.body", "body": data.encode(), "more_body": True})


async def _alone(port: int) -> None:
    async with DemoUpstream().serve(port=port) as url:
        print(url, flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(_alone, int(sys.argv[1]) if len(sys.argv) > 1 else 0)
