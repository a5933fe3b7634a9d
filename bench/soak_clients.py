"""The clients of the soak: each sends one request, or a few that belong together, and says what came of it."""

import json
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Literal

import anyio
import httpx

from demo_upstream import DemoUpstream, Gate, Reply

MODEL = "claude-sonnet-4-5"
Json = dict[str, Any]
Result = Literal["answered", "expected error", "killed", "left", "lost", "mixed up", "unexpected"]

FAULTS: Mapping[str, Reply] = {
    "400": Reply(status=400),
    "429": Reply(status=429, headers={"retry-after": "30"}),
    "500": Reply(status=500),
    "529": Reply(status=529),
    "cut": Reply(text=["One ", "two ", "three"], cut_after=2),
    "error": Reply(text=["One ", "two ", "three"], error_after=2),
    "garbage": Reply(garbage="<html>"),
    "hang": Reply(hang=True),
    "stop": Reply(text=["One ", "two"], gate=Gate(after=1)),
}
"""What the upstream does with a prompt that names one of these."""
_OK = 200
_KILLED = "claude_code_error"
_EXPECTED: Mapping[str, set[str | None]] = {
    "400": {None},
    "429": {"rate_limit_exceeded"},
    "hang": {"upstream_timeout"},
    "stop": {"upstream_timeout"},
}
_MARK = re.compile(r"⟦\d+⟧")
_marks = (f"⟦{number}⟧" for number in count(1))


@dataclass(frozen=True)
class Outcome:
    """What came of a request."""

    result: Result
    detail: str = ""
    kind: str = ""

    def of(self, kind: str) -> "Outcome":
        """Say which kind of client it was."""
        return replace(self, kind=kind)


@dataclass
class Answer:
    """What a client has got."""

    text: str = ""
    code: str | None = None
    has_error: bool = False
    is_whole: bool = False
    message: Json | None = None


class Clients:
    """What all clients need."""

    def __init__(self, http: httpx.AsyncClient, upstream: DemoUpstream, keys: Sequence[str]) -> None:
        """Use one client's connections, and these keys."""
        self._http, self._upstream, self._keys = http, upstream, keys

    def forget_records(self) -> None:
        """Let the upstream's records not fill the memory."""
        if len(self._upstream.requests) > 1000:  # noqa: PLR2004 - enough
            self._upstream.requests = []

    def headers(self, key: str | None = None) -> dict[str, str]:
        """Show a key."""
        return {"Authorization": f"Bearer {key or random.choice(self._keys)}"}

    async def ask(self, body: Json, headers: Mapping[str, str] | None = None, *, pause: float = 0) -> Answer:
        """Have a completion made; read its stream with a pause after each piece."""
        body = {"model": MODEL, **body}
        request = self._http.build_request("POST", "/v1/chat/completions", json=body, headers=headers or self.headers())
        response = await self._http.send(request, stream=True)
        try:
            if response.status_code == _OK and body.get("stream"):
                return await _streamed(response.aiter_lines(), pause)
            return _whole(json.loads(await response.aread()))
        finally:
            await response.aclose()

    async def leave(self, body: Json, after: float) -> None:
        """Ask, and hang up before the answer is there."""
        with anyio.move_on_after(after):
            await self.ask(body)

    async def send(self, content: bytes | AsyncIterator[bytes], headers: Mapping[str, str] | None = None) -> int:
        """Send any content; return the status."""
        response = await self._http.post(
            "/v1/chat/completions", content=content, headers=self.headers() if headers is None else headers
        )
        return response.status_code

    async def get(self, path: str) -> int:
        """Get a page; return the status."""
        return (await self._http.get(path, headers=self.headers())).status_code


def _whole(body: Json) -> Answer:
    if "error" in body:
        return Answer(code=body["error"]["code"], has_error=True, is_whole=True)
    message = body["choices"][0]["message"]
    return Answer(text=message["content"] or "", is_whole=True, message=message)


async def _streamed(lines: AsyncIterator[str], pause: float) -> Answer:
    answer = Answer()
    async for line in lines:
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            answer.is_whole = True
        elif line.startswith("data: "):
            chunk = json.loads(data)
            if "error" in chunk:
                return Answer(answer.text, chunk["error"]["code"], has_error=True, is_whole=True)
            answer.text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
            await anyio.sleep(pause)
    return answer


def judged(answer: Answer, mark: str, expected: set[str | None] | None = None) -> Outcome:
    """Say whether an answer is the right one; `expected` are the codes of errors that would be."""
    if not answer.is_whole:
        return Outcome("lost", f"{mark} {answer}")
    found = set(_MARK.findall(answer.text)) - {mark}
    if found:
        return Outcome("mixed up", f"{mark} {answer}")
    if answer.has_error:
        if expected and answer.code in expected:
            return Outcome("expected error")
        return Outcome("killed" if answer.code == _KILLED else "unexpected", f"{mark} {answer}")
    if expected or mark not in answer.text:
        return Outcome("unexpected", f"{mark} {expected} {answer}")
    return Outcome("answered")


def _said(text: str) -> Json:
    return {"role": "user", "content": text}


def _coin() -> bool:
    return random.random() < 0.5  # noqa: PLR2004 - one half


async def chat(clients: Clients) -> Outcome:
    """A question of its own."""
    mark = next(_marks)
    return judged(await clients.ask({"messages": [_said(mark)], "stream": _coin()}), mark)


async def conversation(clients: Clients) -> Outcome:
    """A session of three turns, in which each is told."""
    headers, session, outcome = clients.headers(), f"soak-{random.getrandbits(64):x}", Outcome("lost")
    for number in range(1, 4):
        mark = next(_marks)
        body = {"messages": [_said(mark)], "session_id": session, "stream": _coin()}
        answer = await clients.ask(body, headers)
        outcome = judged(answer, mark)
        if outcome.result != "answered":
            return outcome
        if f"received {2 * number} message(s)" not in answer.text and f"{2 * number - 1} message(s)" not in answer.text:
            return Outcome("unexpected", f"turn {number}: {answer.text}")
    return outcome


async def function(clients: Clients) -> Outcome:
    """A call, and the answer to its result."""
    mark, headers = next(_marks), clients.headers()
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": schema}}]
    messages = [_said(f"Weather? {mark}")]
    called = await clients.ask({"messages": messages, "tools": tools}, headers)
    if called.has_error or not called.message or not called.message.get("tool_calls"):
        return judged(called, mark)
    result = {"role": "tool", "tool_call_id": called.message["tool_calls"][0]["id"], "content": mark}
    body = {"messages": [*messages, called.message, result], "tools": tools, "stream": _coin()}
    return judged(await clients.ask(body, headers), mark)


async def tool(clients: Clients) -> Outcome:
    """A turn with Claude Code's own tools."""
    answer = await clients.ask({"messages": [_said("What is there?")], "enable_tools": True, "stream": _coin()})
    if answer.is_whole and not answer.has_error:
        return Outcome("answered")
    return judged(answer, "")


async def fault(clients: Clients) -> Outcome:
    """A question at which Claude's API fails."""
    name, mark = random.choice([*FAULTS]), next(_marks)
    body = {"messages": [_said(f"{mark} fault {name}.")], "stream": _coin()}
    return judged(await clients.ask(body), mark, _EXPECTED.get(name, {"upstream_error"}))


async def leaver(clients: Clients) -> Outcome:
    """A question whose answer nobody waits for."""
    await clients.leave({"messages": [_said(next(_marks))], "stream": _coin()}, random.uniform(0, 0.3))
    await anyio.sleep(1)
    return Outcome("left")


async def slow(clients: Clients) -> Outcome:
    """A reader that takes its time."""
    mark = next(_marks)
    text = f"{mark} {'word ' * 40}"
    return judged(await clients.ask({"messages": [_said(text)], "stream": True}, pause=0.05), mark)


async def long(clients: Clients) -> Outcome:
    """A conversation of a thousand messages."""
    mark = next(_marks)
    history = [{"role": ("user", "assistant")[number % 2], "content": f"{number}"} for number in range(1000)]
    return judged(await clients.ask({"messages": [*history, _said(mark)], "stream": _coin()}), mark)


async def large(clients: Clients) -> Outcome:
    """A body over the limit, with its length told or not."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 2**15

    status = await clients.send(b" " * (2**20 + 1) if _coin() else pieces())
    await anyio.sleep(1)
    return Outcome("expected error") if status == 413 else Outcome("unexpected", f"{status}")  # noqa: PLR2004


async def wrong(clients: Clients) -> Outcome:
    """What can't be answered: no JSON, no model, no key, no such page."""
    statuses = (
        await clients.send(b"{"),
        await clients.send(json.dumps({"model": "gpt-2", "messages": [_said("Hello")]}).encode()),
        await clients.send(b"{}", {"Authorization": "Bearer wrong"}),
        await clients.get("/nowhere"),
    )
    await anyio.sleep(1)
    return Outcome("expected error") if statuses == (400, 404, 401, 404) else Outcome("unexpected", str(statuses))


async def small(clients: Clients) -> Outcome:
    """A hundred small requests that ask Claude nothing."""
    statuses = {await clients.get(random.choice(["/health", "/version", "/v1/pool", "/v1/tools"])) for _ in range(100)}
    await anyio.sleep(1)
    return Outcome("answered") if statuses == {_OK} else Outcome("unexpected", str(statuses))


Play = Callable[[Clients], Awaitable[Outcome]]

CLIENTS: Mapping[str, tuple[Play, int]] = {
    "questions": (chat, 4),
    "sessions of three turns": (conversation, 3),
    "functions: call and result": (function, 2),
    "turns with Claude Code's tools": (tool, 1),
    "questions at which Claude's API fails": (fault, 3),
    "clients that leave": (leaver, 2),
    "readers that are slow": (slow, 2),
    "conversations of 1,000 messages": (long, 1),
    "bodies over the limit": (large, 1),
    "four wrong requests": (wrong, 1),
    "a hundred small requests": (small, 1),
}
"""Each kind, and how many of it there are at a time."""
