"""What a stand-in for Anthropic's Messages API answers, scripted or by itself, and the form of it. Pure."""

import asyncio
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from schema_instance import instance

Json = dict[str, Any]

OK = 200
_PIECE = 8
_CHARACTERS_A_TOKEN = 4
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

    def reached(self, timeout: float = 30) -> None:
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
    status: int = OK
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


def limited_reply(body: Json, reply: Reply) -> Reply:
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


def usage_of(body: Json, reply: Reply) -> Json:
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
    usage = usage_of(body, reply)
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
    return {**_message(body, reply), "content": content, **_stop(reply), "usage": usage_of(body, reply)}


def error_body(reply: Reply, default_type: str | None = None) -> Json:
    """An error in Anthropic's envelope."""
    kind = reply.error_type or default_type or _ERROR_TYPES.get(reply.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": reply.error_message or f"demo {kind}"}}
