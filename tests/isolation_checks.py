"""What the model should see for a request, translated from scratch, and what it saw.

For test_isolation.py. The rules are those of message_adapter's docstring, and none of its code is used.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from demo_upstream import RecordedRequest
from isolation_clients import Site, Turn, text_block
from isolation_fates import Json

# Claude Code asks again by itself, without what might be at fault (docs/adr/0002): betas and `thinking.display`, and
# streaming. Those repeats differ in just that, so only their words are compared.
ASKED_AGAIN = frozenset({400, 404, 422})


# What the model should see


def expected_system(messages: list[Json]) -> list[Json]:
    """One block, of all system messages that say something; or none."""
    texts = ["".join(parts(message["content"])) for message in messages if message["role"] in ("system", "developer")]
    said = "\n\n".join(text for text in texts if text.strip())
    return [text_block(said)] if said else []


def expected_messages(messages: list[Json]) -> list[Json]:
    """Claude's messages, alternating, each with its blocks."""
    merged: list[Json] = []
    for role, blocks in native(messages):
        if merged and merged[-1]["role"] == role:
            merged[-1]["content"] += blocks
        elif blocks:
            merged.append({"role": role, "content": blocks})
    return merged


def native(messages: list[Json]) -> Iterator[tuple[str, list[Json]]]:
    """Each message as its role at Claude's and its blocks."""
    used: set[str] = set()
    names: dict[str, str] = {}
    for message in messages:
        if message["role"] == "assistant":
            names = {call["id"]: free_name(call["id"], used) for call in message.get("tool_calls", [])}
            calls = [expected_call(call, names[call["id"]]) for call in message.get("tool_calls", [])]
            yield "assistant", text_blocks(message["content"] or "") + calls
        elif message["role"] == "tool":
            name, result = names[message["tool_call_id"]], text_blocks(message["content"])
            yield "user", [{"type": "tool_result", "tool_use_id": name, "content": result}]
        elif message["role"] == "user":
            yield "user", text_blocks(message["content"])


def free_name(name: str, used: set[str]) -> str:
    """A name for a call that Claude Code doesn't take for an earlier call, or a part of it; taken from now on."""
    candidates = (name, *(f"{name}-{n}" for n in range(2, 99)))
    free = next(each for each in candidates if not any(are_alike(each, other) for other in used))
    used.add(free)
    return free


def are_alike(one: str, other: str) -> bool:
    """Whether two names are the same, or one is the other with a number behind it."""
    return one == other or any(re.fullmatch(f"{re.escape(a)}_[0-9]+", b) for a, b in ((one, other), (other, one)))


def expected_call(call: Json, name: str) -> Json:
    """A call of the history, as a block."""
    function = call["function"]
    return {"type": "tool_use", "id": name, "name": function["name"], "input": json.loads(function["arguments"])}


def parts(content: str | list[Json]) -> list[str]:
    """A content's texts."""
    return [content] if isinstance(content, str) else [part["text"] for part in content]


def text_blocks(content: str | list[Json]) -> list[Json]:
    """A content's blocks: blank texts go with the text behind them, at the end with the one before, or not at all."""
    whole: list[str] = []
    blank = ""
    for text in parts(content):
        blank += text
        if text.strip():
            whole.append(blank)
            blank = ""
    return [text_block(text) for text in [*whole[:-1], *(last + blank for last in whole[-1:])]]


def expected_parameters(parameters: Json) -> Json:
    """Claude's fields for OpenAI's parameters; its temperatures end at 1, which is left to Claude Code."""
    names = {"stop": "stop_sequences", "max_completion_tokens": "max_tokens"}
    elsewhere = (*OFFERING, "reasoning_effort", "response_format")
    others = {name: value for name, value in parameters.items() if name not in elsewhere}
    fields = {names.get(name, name): value for name, value in others.items()}
    fields = {name: value for name, value in fields.items() if name != "temperature" or value < 1}
    if "tools" in parameters:
        fields["tools"] = [expected_definition(**tool["function"]) for tool in parameters["tools"]]
    if choice := expected_choice(**{name: parameters[name] for name in OFFERING[1:] if name in parameters}):
        fields["tool_choice"] = choice
    return fields


HELD_SCHEMA: Json = {
    "type": "object",
    "properties": {"漢": {"$ref": "#/$defs/it"}},
    "additionalProperties": False,
    "$defs": {"it": {"enum": ["a", None]}},
}
OFFERING = ("tools", "tool_choice", "parallel_tool_calls")


def expected_definition(name: str, description: str, parameters: Json) -> Json:
    """A function, as Claude's API has it."""
    return {"name": name, "description": description, "input_schema": parameters}


def expected_choice(tool_choice: str | Json = "", *, parallel_tool_calls: bool = True) -> Json:
    """Whether to call, as Claude's API has it; nothing where a client says nothing."""
    if isinstance(tool_choice, dict):
        return {"type": "tool", "name": tool_choice["function"]["name"]}
    choice = {"type": {"required": "any"}.get(tool_choice, tool_choice)} if tool_choice else {}
    return choice if parallel_tool_calls else {"type": "auto", **choice, "disable_parallel_tool_use": True}


# What the model saw


def plain(block: Json) -> Json:
    """A block less the CLI's cache mark, which tells the API where to cache and the model nothing."""
    kept = {name: value for name, value in block.items() if name != "cache_control"}
    return {**kept, "content": [*map(plain, kept["content"])]} if isinstance(kept.get("content"), list) else kept


def seen_messages(body: Json) -> list[Json]:
    """The messages of a request, each with its blocks."""
    contents = [message["content"] for message in body["messages"]]
    blocks = [[text_block(each)] if isinstance(each, str) else each for each in contents]
    return [{**message, "content": [*map(plain, each)]} for message, each in zip(body["messages"], blocks, strict=True)]


def is_marker(message: Json) -> bool:
    """Whether a message says nothing, and only sets the effort from there on."""
    return message.keys() == {"role", "content", "output_config"} and not message["content"]


def efforts(messages: list[Json]) -> list[Json]:
    """What the markers among messages set."""
    return [message["output_config"] for message in messages if is_marker(message)]


def with_joined_texts(messages: list[Json]) -> list[Json]:
    """The same messages, the assistant's neighbouring texts joined."""
    return [{**each, "content": joined(each["content"])} if each["role"] == "assistant" else each for each in messages]


def joined(blocks: list[Json]) -> list[Json]:
    """Blocks with one text in front, as long as nothing but texts stood before the last of them."""
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    front = [text_block("".join(texts))] if texts else []
    return [*front, *(block for block in blocks if block["type"] != "text")]


def parameters(record: RecordedRequest) -> Json:
    """Whatever of a request isn't words: every field of its body, and its beta headers.

    Left out are `messages` and `system`, which are compared by themselves, and `metadata`, whose session id is the
    process's own. The order of the betas means nothing, and differs from one fresh process to the next.
    """
    kept = {name: value for name, value in record.body.items() if name not in ("messages", "system", "metadata")}
    return {**kept, "betas": sorted(record.headers["anthropic-beta"].split(","))}


# What is held


@dataclass
class Checks:
    """Holds every request against what its client sent, and remembers what has to stay the same."""

    site: Site
    references: Mapping[tuple[str, str | None], RecordedRequest]
    """What a process that never served anybody sends for each model and effort, asked "Hello"."""
    lost_races: set[str] = field(default_factory=set)
    """Turns after which Claude Code asked the model again before it was killed."""
    _thoughts: dict[tuple[str, str], str] = field(default_factory=dict)
    _owners: dict[str, str] = field(default_factory=dict)
    _billing: dict[str, str] = field(default_factory=dict)

    def check(self, turn: Turn) -> None:
        """A turn made one request, just the right one; one that its client left at once may have made none."""
        if turn.reply.thinking and turn.said == turn.answer:
            self._thoughts[turn.key, turn.reply.thinking] = turn.answer
        records = self.site.records(turn)
        if turn.fate.is_raced and len(records) > 1:
            # A machine that is too busy to kill in time loses the race: not the client's words, so nothing to compare.
            self.lost_races.add(turn.mark)
            del records[1:]
        fewest, most = int(turn.fate.leaves != "at once"), 3 if turn.fate.status in ASKED_AGAIN else 1
        assert fewest <= len(records) <= most, f"{len(records)} requests of {turn}"
        for record in records:
            self._check_system(turn, record.body)
            self._check_messages(turn, record.body)
            self._check_owner(turn, record.body)
        for record in records[:1]:
            reference = parameters(self.references[turn.model, turn.parameters.get("reasoning_effort")])
            expected = {**reference, **expected_parameters(turn.parameters)}
            if "response_format" in turn.parameters:
                held = {"format": {"type": "json_schema", "schema": HELD_SCHEMA}}
                expected["output_config"] = {**reference.get("output_config", {}), **held}
            _same(turn, parameters(record), expected)

    def _check_system(self, turn: Turn, body: Json) -> None:
        billing, identity, *others = map(plain, body["system"])
        _same(turn, others, expected_system(turn.messages))
        _same(turn, identity, plain(self.references[turn.model, None].body["system"][1]))
        # It ends with a fingerprint of the user's first message.
        first = json.dumps(next(each for each in expected_messages(turn.messages) if each["role"] == "user"))
        _same(turn, billing["text"], self._billing.setdefault(first, billing["text"]))

    def _check_messages(self, turn: Turn, body: Json) -> None:
        expected, seen = expected_messages(turn.messages), seen_messages(body)
        # The newest models get an empty marker of the CLI's own behind the user's first message, and behind each for
        # which the effort was another one. The last one counts.
        reference = self.references[turn.model, turn.parameters.get("reasoning_effort")]
        _same(turn, efforts(seen)[-1:], efforts(seen_messages(reference.body)))
        seen = [message for message in seen if not is_marker(message)]
        # None: an error doesn't tell. A process that waited for this conversation's results may be recycled for it.
        if turn.origin in ("adopted", "recycled", None):
            # The process holds its own answer: with the thoughts that came with it, and in one block, also where the
            # client gives it back in several parts.
            seen = [self._without_thoughts(turn.key, message) for message in seen]
            seen, expected = with_joined_texts(seen), with_joined_texts(expected)
        _same(turn, seen, expected)

    def _without_thoughts(self, key: str, message: Json) -> Json:
        """A message less the thoughts that the model had for this very answer, to this very client."""
        text = "".join(block["text"] for block in message["content"] if block["type"] == "text")
        own = [block for block in message["content"] if self._thoughts.get((key, block.get("thinking", ""))) == text]
        return {**message, "content": [block for block in message["content"] if block not in own]}

    def _check_owner(self, turn: Turn, body: Json) -> None:
        """A process, which its session tells, has one owner for life."""
        session = json.loads(body["metadata"]["user_id"])["session_id"]
        _same(turn, turn.key, self._owners.setdefault(session, turn.key))


def _same(turn: Turn, seen: Any, expected: Any) -> None:
    """Compare as JSON, in which 1 isn't True."""
    seen, expected = (json.dumps(each, sort_keys=True, ensure_ascii=False) for each in (seen, expected))
    assert seen == expected, f"{turn}\n     saw {seen}\nexpected {expected}"
