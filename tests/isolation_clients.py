"""Random clients: what they do to their conversations, what happens to their requests, and what they get.

For test_isolation.py. Nothing here looks at what reached the upstream, but to wait for it.
"""

import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from commands import wait_until
from demo_upstream import DemoUpstream, Gate, RecordedRequest, Reply, ToolCall
from isolation_fates import Fate, Json

PATIENCE_SECONDS = 30
_OK = 200
_FIRST_SERVER_ERROR = 500


_MARK = re.compile(r"⟦\d+⟧")
_marks = (f"⟦{number}⟧" for number in count(1))


@dataclass
class Turn:
    """One request of a client, and what came of it."""

    key: str
    model: str
    messages: list[Json]
    stream: bool
    fate: Fate
    mark: str
    parameters: Json = field(default_factory=dict)
    began: int = 0
    over: bool = False
    status: int | None = None
    origin: str | None = None
    said: str = ""
    calls: list[Json] = field(default_factory=list)
    finish: str | None = None
    has_error: bool = False

    def __str__(self) -> str:
        """The turn as a failure's report shows it."""
        how = f"{self.key} {self.model} {'streamed' if self.stream else 'whole'} {self.fate.name}"
        sent = json.dumps({**self.parameters, "messages": self.messages}, ensure_ascii=False)
        return f"{self.mark} {how} -> {self.status} {self.origin}: {sent}"

    @property
    def body(self) -> Json:
        """What the client sends."""
        return {"model": self.model, "messages": self.messages, "stream": self.stream, **self.parameters}

    @property
    def answer(self) -> str:
        """What the upstream says."""
        return "".join(self.reply.text or ())

    @property
    def reply(self) -> Reply:
        """What the upstream does, with the turn's own mark in its texts."""
        marked = [piece.replace("{}", self.mark) for piece in self.fate.reply.text or ()]
        thinking = self.fate.reply.thinking and self.fate.reply.thinking.replace("{}", self.mark)
        gate = Gate(after=1) if self.fate.leaves == "after" else None
        calls = [ToolCall(call.name, _marked_input(call.input, self.mark)) for call in self.fate.reply.tool_calls]
        return replace(self.fate.reply, text=marked, thinking=thinking, tool_calls=calls, gate=gate)


def _marked_input(arguments: Mapping[str, object], mark: str) -> Json:
    marked: Json = json.loads(json.dumps(arguments, ensure_ascii=False).replace('{}"', f'{mark}"'))
    return marked


def mark_of(body: Json) -> str:
    """The mark of the turn that made a request: the last one that the user, or the user's tool, says."""
    marks = (last_mark(message) for message in reversed(body["messages"]) if message["role"] == "user")
    return next(filter(None, marks), "none")


def last_mark(said: Any) -> str | None:
    """The last mark in what somebody says."""
    return next(reversed(_MARK.findall(json.dumps(said, ensure_ascii=False))), None)


def text_block(text: str) -> Json:
    """A block of text."""
    return {"type": "text", "text": text}


# Sending


@dataclass(frozen=True)
class Site:
    """The server, and the upstream behind it."""

    url: str
    upstream: DemoUpstream
    client: httpx.Client

    def records(self, turn: Turn) -> list[RecordedRequest]:
        """The upstream requests that a turn made."""
        return [record for record in self.records_since(turn.began) if mark_of(record.body) == turn.mark]

    def records_since(self, number: int) -> list[RecordedRequest]:
        """The upstream requests after the first `number`."""
        return self.upstream.messages_requests()[number:]

    def wait_for_record(self, turn: Turn, condition: Callable[[RecordedRequest], bool]) -> None:
        """Wait until a request of a turn is as it should be. Raises TimeoutError."""
        self.upstream.wait_for(lambda _: any(map(condition, self.records(turn))), PATIENCE_SECONDS)

    def wait_until_idle(self, key: str) -> None:
        """Wait until no turn has an aftermath."""
        wait_until(lambda: not self._working(key), PATIENCE_SECONDS)

    def _working(self, key: str) -> int:
        processes = self.client.get("/v1/pool", headers=_authorization(key)).json()["processes"]
        return int(processes["working"])


def _authorization(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def perform(site: Site, turn: Turn) -> None:
    """Send a turn's request, and leave or listen."""
    turn.began = len(site.upstream.messages_requests())
    site.upstream.script(turn.reply, when=lambda body: not turn.over and mark_of(body) == turn.mark, times=None)
    _MANNERS[turn.fate.leaves](site, turn)
    turn.over = True


def _listen(site: Site, turn: Turn) -> None:
    with site.client.stream(
        "POST", "/v1/chat/completions", json=turn.body, headers=_authorization(turn.key)
    ) as response:
        turn.status, turn.origin = response.status_code, response.headers.get("x-claude-process")
        if turn.stream and response.status_code == _OK:
            _take_chunks(turn, response)
        else:
            answer = json.loads(response.read())
            for choice in answer.get("choices", []):
                turn.said, turn.finish = choice["message"]["content"] or "", choice["finish_reason"]
                turn.calls = choice["message"].get("tool_calls", [])


def _take_chunks(turn: Turn, response: httpx.Response) -> None:
    """Put a stream together; leave after its first text where that is the turn's fate."""
    for chunk in _events(response):
        turn.has_error |= "error" in chunk
        for choice in chunk.get("choices", []):
            turn.said += choice["delta"].get("content", "")
            for delta in choice["delta"].get("tool_calls", []):
                _take_call(turn, delta)
            turn.finish = choice["finish_reason"]
        if turn.said and turn.fate.leaves:
            return


def _take_call(turn: Turn, delta: Json) -> None:
    if delta["index"] == len(turn.calls):
        turn.calls.append({name: value for name, value in delta.items() if name != "index"})
    else:
        turn.calls[delta["index"]]["function"]["arguments"] += delta["function"]["arguments"]


def _events(response: httpx.Response) -> Iterator[Json]:
    """The JSON of each event; httpx's own `iter_lines` takes U+2028 in a text for the end of a line."""
    rest = b""
    for piece in response.iter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        yield from (json.loads(line.removeprefix(b"data: ")) for line in lines if line.startswith(b"data: {"))


def _leave_after(site: Site, turn: Turn) -> None:
    turn.stream = True
    _listen(site, turn)
    site.wait_for_record(turn, lambda record: record.disconnected)


def _leave_before(site: Site, turn: Turn) -> None:
    with _sent(site, turn):
        site.wait_for_record(turn, lambda _: True)
    site.wait_for_record(turn, lambda record: record.disconnected)


def _leave_at_once(site: Site, turn: Turn) -> None:
    with _sent(site, turn) as connection:
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):  # until the server knows
            pass


def _sent(site: Site, turn: Turn) -> socket.socket:
    body, address = json.dumps(turn.body).encode(), urlsplit(site.url)
    connection = socket.create_connection((address.hostname or "", address.port or 0), timeout=PATIENCE_SECONDS)
    fields = f"Host: {address.netloc}\r\nAuthorization: Bearer {turn.key}\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{fields}\r\n".encode() + body)
    return connection


_MANNERS: Mapping[str | None, Callable[[Site, Turn], None]] = {
    None: _listen,
    "at once": _leave_at_once,
    "before": _leave_before,
    "after": _leave_after,
}


def check_response(turn: Turn) -> None:
    """The client got its own answer, or the error that happened to it."""
    if turn.fate.leaves:
        return
    if turn.fate.breaks_off:
        # Before the first chunk is out, a failure keeps its status, in a stream, too.
        assert (turn.status or 0) >= _FIRST_SERVER_ERROR or (turn.stream and turn.has_error), str(turn)
        return
    assert turn.status == turn.fate.status, str(turn)
    if turn.status == _OK:
        assert (turn.said, turn.finish, turn.has_error) == (turn.answer, turn.fate.finish, False), str(turn)
        functions = [call["function"] for call in turn.calls]
        called = [(function["name"], json.loads(function["arguments"])) for function in functions]
        assert called == [(call.name, call.input) for call in turn.reply.tool_calls], str(turn)
        assert turn.origin, str(turn)


# What clients do to a conversation


_Keeping = Literal["whole", "stripped", "in parts", "nothing"]
_KEEPING: Mapping[str, Callable[[str], str | list[Json]]] = {
    "whole": lambda answer: answer,
    "stripped": str.strip,
    "in parts": lambda answer: [text_block(answer[:3]), text_block(answer[3:])],
}


@dataclass
class Conversation:
    """What a client knows of a conversation, and whom it asks."""

    key: str
    model: str
    messages: list[Json]
    offers: Json = field(default_factory=dict)

    def remember(self, turn: Turn, keeps: _Keeping) -> None:
        """Be what the client makes of a turn."""
        was_answered = not turn.fate.leaves and not turn.fate.breaks_off and turn.status == _OK
        # Who left at once doesn't repeat the request: its own may still be on its way.
        if turn.fate.leaves != "at once" and (was_answered or keeps != "nothing"):
            self.messages = deepcopy(turn.messages)
        if was_answered and keeps != "nothing":
            self.messages.append({"role": "assistant", "content": _KEEPING[keeps](turn.answer)})
            if turn.calls and turn.fate.offers:
                self.messages[-1]["tool_calls"] = turn.calls
                self.offers = {name: value for name, value in turn.parameters.items() if name in turn.fate.offers}


@dataclass(frozen=True)
class Move:
    """What a client does next: change what was said, say something, and keep the answer in its way."""

    change: str
    place: int
    content: str | list[Json]
    fate: Fate
    stream: bool
    keeps: _Keeping
    parameters: Json
    offers: Json


_Change = Callable[[list[Json], Move], None]


def _places(messages: list[Json], role: str) -> list[int]:
    return [index for index, message in enumerate(messages) if message["role"] == role]


def _edit(role: str) -> _Change:
    def edit(messages: list[Json], move: Move) -> None:
        if places := _places(messages, role):
            messages[places[move.place % len(places)]]["content"] = deepcopy(move.content)

    return edit


def _touch(messages: list[Json], move: Move) -> None:
    """Add to an earlier text what is easily taken for nothing."""
    if texts := [message for message in messages if isinstance(message.get("content"), str)]:
        texts[move.place % len(texts)]["content"] += (" ", "\n", "\u200b")[move.place % 3]


def _cut(messages: list[Json], move: Move) -> None:
    if places := _places(messages, "user"):
        del messages[places[move.place % len(places)] :]


def _slide(messages: list[Json], move: Move) -> None:
    if places := _places(messages, "user"):
        del messages[: places[move.place % len(places)]]


def _call(messages: list[Json], move: Move) -> None:
    """Let the assistant make calls, always under the same ids, and the tools answer."""
    names = ("call_0", "call_1", "call")[move.place % 2 :][: 1 + move.place // 2]
    arguments = json.dumps({"city": "Zürich 漢字", "list": [move.place, True, None], "nested": {"": "\n"}})
    calls = [
        {"id": name, "type": "function", "function": {"name": "weather", "arguments": arguments}} for name in names
    ]
    messages.append({"role": "assistant", "content": None if move.place % 3 else "Let me see", "tool_calls": calls})
    messages += [{"role": "tool", "tool_call_id": name, "content": deepcopy(move.content)} for name in names]


def _instruct(messages: list[Json], move: Move) -> None:
    role = "developer" if move.place % 2 else "system"
    messages.insert(0 if move.place % 3 else len(messages), {"role": role, "content": deepcopy(move.content)})


def _pad(messages: list[Json], move: Move) -> None:
    messages.insert(0, {"role": "assistant" if move.place % 2 else "user", "content": " \n" * (move.place % 3)})


def _forget_answer(messages: list[Json], move: Move) -> None:
    while messages and messages[-1]["role"] not in ("user", "tool"):
        messages.pop()


def _say_nothing_new(messages: list[Json], move: Move) -> None:
    """Go on from where the conversation is."""


CHANGES: Mapping[str, _Change] = {
    "go on": _say_nothing_new,
    "edit the user": _edit("user"),
    "edit the assistant": _edit("assistant"),
    "touch": _touch,
    "cut": _cut,
    "slide": _slide,
    "call": _call,
    "call last": _call,
    "instruct": _instruct,
    "pad": _pad,
    "regenerate": _forget_answer,
}


def planned(conversation: Conversation, move: Move, taken: set[str]) -> Turn:
    """A client's next request. Turns at the same time need marks of their own, in `taken`."""
    messages = deepcopy(conversation.messages)
    answers = bool(messages and messages[-1].get("tool_calls"))
    if answers:
        _answer(messages, move)
    CHANGES[move.change](messages, move)
    mark = last_mark(messages[-1:]) if move.change == "regenerate" else None
    if mark is None or mark in taken:
        mark = next(_marks)
        content = deepcopy(move.content)
        if move.change == "call last" or (answers and messages[-1]["role"] == "tool" and move.place):
            messages[-1]["content"] = _marked(content, mark)
        else:
            messages.append({"role": "user", "content": _marked(content, mark)})
    taken.add(mark)
    # Whoever answers offers what was called once more, mostly: only so does the turn go on that waits.
    again = conversation.offers if answers and move.place > 1 else {}
    offers = move.fate.offers or again or move.offers
    parameters = {**move.parameters, **offers}
    if "tool" in [message["role"] for message in _behind_the_answer(messages)]:
        # Whether the model may think then depends on the process: test_reasoning.py has it.
        parameters.pop("reasoning_effort", None)
    return Turn(conversation.key, conversation.model, messages, move.stream, move.fate, mark, parameters)


def _behind_the_answer(messages: list[Json]) -> list[Json]:
    """What follows the last answer that says something: the model sees no other."""
    places = [place for place in _places(messages, "assistant") if _says_something(messages[place])]
    return messages[max([0, *places]) :]


def _says_something(message: Json) -> bool:
    content = message.get("content") or ""
    texts = [content] if isinstance(content, str) else [part["text"] for part in content]
    return bool(message.get("tool_calls")) or any(text.strip() for text in texts)


def _answer(messages: list[Json], move: Move) -> None:
    """Answer the calls that stand last, in an order of the client's own."""
    calls = [call["id"] for call in messages[-1]["tool_calls"]]
    order = sorted(calls, reverse=move.place % 2 == 0)
    messages += [{"role": "tool", "tool_call_id": call, "content": deepcopy(move.content)} for call in order]


def _marked(content: str | list[Json], mark: str) -> str | list[Json]:
    if isinstance(content, str):
        return content + mark
    return [*content[:-1], {"type": "text", "text": content[-1]["text"] + mark}]
