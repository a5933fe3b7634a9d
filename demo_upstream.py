"""A stand-in for Anthropic's Messages API on loopback: for `--demo`, for the tests and for the benchmark.

It says what it is, whatever it is asked. Tests script it (`Reply`: errors, delays, cuts) and read what it received
(`requests`), to compare what a model would have seen with what a client sent. It imports nothing of the server.
"""

import asyncio
import json
import re
import sys
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from socket import create_server
from typing import Any

import anyio
import uvicorn

from schema_instance import instance

Json = dict[str, Any]
_Receive = Callable[[], Any]
_Send = Callable[[Json], Any]

_CREDENTIALS = frozenset({"authorization", "x-api-key", "cookie"})
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
_OK = 200
_PIECE = 8
_CHARACTERS_A_TOKEN = 4


# Scripts and records


@dataclass(frozen=True)
class ToolCall:
    """A call to make, under an id of its own or a random one."""

    name: str
    input: Mapping[str, object]
    id: str | None = None


class Gate:
    """Holds a stream after so many deltas until a test, in any thread, opens it."""

    def __init__(self, after: int) -> None:
        """Hold after `after` deltas."""
        self.after = after
        self._lock = threading.Lock()
        self._reached = threading.Event()
        self._is_open = False
        self._wake: Callable[[], object] = lambda: None

    def open(self) -> None:
        """Let the stream go on."""
        with self._lock:
            self._is_open = True
            self._wake()

    def reached(self, timeout: float = 10) -> None:
        """Wait until the stream is held here. Raises TimeoutError."""
        if not self._reached.wait(timeout):
            raise TimeoutError

    async def wait(self) -> None:
        """Hold here; for the stand-in itself."""
        opened = asyncio.Event()
        with self._lock:
            self._reached.set()
            if self._is_open:
                return
            self._wake = partial(asyncio.get_running_loop().call_soon_threadsafe, opened.set)
        await opened.wait()


@dataclass(frozen=True)
class Reply:
    """What to do with one request.

    `text` is streamed word by word; as a sequence, each element is one delta. `more_text` has a block for each. A
    `status` other than 200 is an error in Anthropic's envelope. `cut_after`, `error_after` and `garbage_after` count
    deltas of content; without the last, `garbage` is sent in place of all. Times are in seconds.
    """

    text: str | Sequence[str] | None = None
    more_text: Sequence[str] = ()
    thinking: str | None = None
    tool_calls: Sequence[ToolCall] = ()
    stop_reason: str | None = None
    stop_sequence: str | None = None
    refusal: str | None = None
    usage: Mapping[str, int] | None = None
    model: str | None = None
    status: int = _OK
    error_type: str | None = None
    error_message: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0
    delta_delay: float = 0
    gate: Gate | None = None
    cut_after: int | None = None
    error_after: int | None = None
    garbage: str | None = None
    garbage_after: int | None = None
    hang: bool = False


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


# What is answered: pure


def last_user_text(body: Json) -> str:
    """The text of the last user message, reminders of Claude Code's left out."""
    for message in reversed(body.get("messages", [])):
        if message["role"] == "user":
            texts = [block.get("text", "") for block in _blocks(message["content"])]
            return " ".join(text for text in texts if not text.startswith("<system-reminder>")).strip()
    return ""


def _last_results(body: Json) -> str:
    """The text of the results that the last message brings."""
    results = [block for block in _blocks(body["messages"][-1]["content"]) if block["type"] == "tool_result"]
    texts = [block["text"] for result in results for block in _blocks(result.get("content") or "") if "text" in block]
    return " ".join(texts)


def _blocks(content: str | list[Json]) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def default_reply(body: Json) -> Reply:
    """Call the tool that is forced or offered, fill the schema that is asked for, or talk."""
    tool = _tool_to_call(body)
    if tool:
        return Reply(tool_calls=[ToolCall(tool["name"], _arguments(tool, last_user_text(body)))])
    output = body.get("output_config", {}).get("format") or {}
    if output.get("type") == "json_schema":
        text = json.dumps(instance(output["schema"]))
        return Reply(text=[text[i : i + _PIECE] for i in range(0, len(text), _PIECE)])
    return Reply(text=_introduction(body))


def _tool_to_call(body: Json) -> Json | None:
    tools, choice = body.get("tools") or [], body.get("tool_choice") or {}
    if choice.get("type") == "tool":
        return next((tool for tool in tools if tool["name"] == choice["name"]), None)
    answered = any(block["type"] == "tool_result" for block in _blocks(body["messages"][-1]["content"]))
    offered = choice.get("type") == "any" or (choice.get("type") != "none" and not answered)
    return tools[0] if tools and offered else None


def _arguments(tool: Json, prompt: str) -> Json:
    schema = tool.get("input_schema") or {}
    if not schema.get("properties"):
        # An object of any kind: it has the keys that the prompt quotes.
        return dict.fromkeys(re.findall(r"[`'\"](\w+)[`'\"]", prompt), "string")
    arguments: Json = instance(schema)
    if tool["name"] == "Glob":
        return {"pattern": "*"}  # Claude Code's own: what else would one look for?
    if tool["name"].endswith("unicode_customer"):
        # The test of this name wants the customer's name back, letter by letter.
        named = re.search(r"(?:named|name is)\s+['\"]?([^\s.,!?'\"]+)", prompt)
        return {key: named[1] if named and value == "string" else value for key, value in arguments.items()}
    return arguments


def _introduction(body: Json) -> str:
    prompt = last_user_text(body) or _last_results(body)
    shown = prompt if len(prompt) <= 200 else prompt[:200] + "…"  # noqa: PLR2004 - enough to recognise
    system = sum(len(block["text"]) for block in _blocks(body.get("system") or []))
    return (
        "This is claude-wrapper's demo upstream: no model is behind it. "
        f"It received {len(body['messages'])} message(s) and {system} characters of system prompt for "
        f"{body.get('model')}; the last one says: {shown}"
    )


def _deltas(text: str | Sequence[str] | None) -> list[str]:
    return re.findall(r"\s*\S+\s*", text) or ([text] if text else []) if isinstance(text, str) else list(text or ())


def _limited(body: Json, reply: Reply) -> Reply:
    """Stop where the request's stop sequences or its `max_tokens` (here: deltas) say so; scripts say it themselves."""
    deltas = _deltas(reply.text)
    text = "".join(deltas)
    found = {text.index(stop): stop for stop in body.get("stop_sequences") or [] if stop and stop in text}
    if found:
        return Reply(text=text[: min(found)], stop_reason="stop_sequence", stop_sequence=found[min(found)])
    if len(deltas) > body.get("max_tokens", len(deltas)):
        return Reply(text=deltas[: body["max_tokens"]], stop_reason="max_tokens")
    return reply


def content_of(reply: Reply) -> list[tuple[Json, list[Json]]]:
    """The answer's blocks: each with its start and its deltas."""
    blocks: list[tuple[Json, list[Json]]] = []
    if reply.thinking is not None:
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _deltas(reply.thinking)]
        signature = {"type": "signature_delta", "signature": "c2lnbmF0dXJl"}
        blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, [*deltas, signature]))
    if texts := _deltas(reply.text):
        blocks.append(({"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in texts]))
    blocks += [({"type": "text", "text": ""}, [{"type": "text_delta", "text": text}]) for text in reply.more_text]
    for call in reply.tool_calls:
        arguments = json.dumps(call.input, ensure_ascii=False)
        pieces = [arguments[i : i + _PIECE] for i in range(0, len(arguments), _PIECE)]
        start = {"type": "tool_use", "id": call.id or _call_id(), "name": call.name, "input": {}}
        blocks.append((start, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]))
    return blocks


def _call_id() -> str:
    return f"toolu_{uuid.uuid4().hex[:24]}"


def _usage(body: Json, reply: Reply) -> Json:
    """Token counts: a token for every four characters of the request and of the answer."""
    written = "".join([*_deltas(reply.text), reply.thinking or "", *(str(call.input) for call in reply.tool_calls)])
    counted = {
        "input_tokens": max(1, len(json.dumps(body.get("messages", []))) // _CHARACTERS_A_TOKEN),
        "output_tokens": max(1, len(written) // _CHARACTERS_A_TOKEN),
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 0,
    }
    return {**counted, **(reply.usage or {})}


def _stop(reply: Reply) -> Json:
    reason = reply.stop_reason or ("tool_use" if reply.tool_calls else "end_turn")
    details = {"stop_details": {"type": "refusal", "explanation": reply.refusal}} if reply.refusal else {}
    return {"stop_reason": reason, "stop_sequence": reply.stop_sequence, **details}


def _message(body: Json, reply: Reply) -> Json:
    """A message that has begun and holds nothing yet."""
    message_id, model = f"msg_{uuid.uuid4().hex[:24]}", reply.model or body.get("model")
    stop = {"stop_reason": None, "stop_sequence": None}
    return {"id": message_id, "type": "message", "role": "assistant", "model": model, "content": [], **stop}


def stream_events(body: Json, reply: Reply) -> Iterator[Json]:
    """The Messages API's events for an answer, in order."""
    usage = _usage(body, reply)
    yield {"type": "message_start", "message": {**_message(body, reply), "usage": {**usage, "output_tokens": 1}}}
    yield {"type": "ping"}
    for index, (start, deltas) in enumerate(content_of(reply)):
        yield {"type": "content_block_start", "index": index, "content_block": start}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    yield {"type": "message_delta", "delta": _stop(reply), "usage": {"output_tokens": usage["output_tokens"]}}
    yield {"type": "message_stop"}


def whole_message(body: Json, reply: Reply) -> Json:
    """The same answer in one piece."""
    content: list[Json] = []
    for start, deltas in content_of(reply):
        written: dict[str, str] = {}
        for delta in deltas:
            ((name, piece),) = ((key, value) for key, value in delta.items() if key != "type")
            written[name] = written.get(name, "") + piece
        arguments = written.pop("partial_json", None)
        content.append({**start, **written, **({"input": json.loads(arguments)} if arguments else {})})
    return {**_message(body, reply), "content": content, **_stop(reply), "usage": _usage(body, reply)}


def _error(reply: Reply, default_type: str) -> Json:
    kind = reply.error_type or default_type
    return {"type": "error", "error": {"type": kind, "message": reply.error_message or f"demo {kind}"}}


# The server


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

    def wait_for(self, condition: Callable[["DemoUpstream"], bool], timeout: float = 10) -> None:
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
            await _send_json(send, _OK, {"input_tokens": _usage(record.body, Reply())["input_tokens"]})
        elif not record.path.endswith("/v1/messages"):
            await _send_json(send, _OK if record.path == "/" else 404, {})
        elif not record.body.get("messages"):
            await _send_json(send, 400, _error(Reply(error_message="messages: field required"), _ERROR_TYPES[400]))
        else:
            await self._answer_message(record.body, self._next_reply(record.body), send)
        self._mark(record, "completed", value=True)

    def _next_reply(self, body: Json) -> Reply:
        with self._changed:
            script = next((script for script in self._scripts if script.matches(body)), None)
            if script is None:
                return _limited(body, default_reply(body))
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
        if reply.status != _OK:
            error = _error(reply, _ERROR_TYPES.get(reply.status, "api_error"))
            await _send_json(send, reply.status, error, reply.headers)
        elif reply.garbage is not None and reply.garbage_after is None:
            await _send_head(send, _OK, {"content-type": "text/event-stream", **reply.headers})
            await send({"type": "http.response.body", "body": reply.garbage.encode()})
        elif not body.get("stream"):
            await _send_json(send, _OK, whole_message(body, reply), reply.headers)
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
    await _send_head(send, _OK, {"content-type": "text/event-stream; charset=utf-8", **reply.headers})
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
                await _send_event(send, _error(reply, "overloaded_error"))
                break
            if deltas and reply.delta_delay:
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
