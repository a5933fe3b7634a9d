"""What the stand-in answers, and in which form: the parts of it that serve nobody."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo_upstream import Reply, ToolCall, default_reply, last_user_text, stream_events, whole_message

Json = dict[str, Any]
BODY: Json = {"model": "claude-x", "messages": [{"role": "user", "content": "Hello there"}]}
CITY: Json = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: list[Json] = [{"name": "weather", "input_schema": CITY}, {"name": "clock"}]
RESULT: Json = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "21 °C"}]}


@pytest.mark.parametrize(
    ("change", "called"),
    [
        ({}, "weather"),
        ({"tool_choice": {"type": "auto"}}, "weather"),
        ({"tool_choice": {"type": "tool", "name": "clock"}}, "clock"),
        ({"tool_choice": {"type": "none"}}, None),
        ({"messages": [RESULT]}, None),
        ({"messages": [RESULT], "tool_choice": {"type": "any"}}, "weather"),
    ],
)
def test_a_tool_is_called_where_one_is_due(change: Json, called: str | None) -> None:
    """The forced tool, else the first that is offered, with arguments as its schema says; none after its result."""
    reply = default_reply({**BODY, "tools": TOOLS, **change})
    arguments = {"weather": {"city": "string"}, "clock": {}}
    assert reply.tool_calls == ([ToolCall(called, arguments[called])] if called else ())
    assert bool(reply.text) == (called is None)


@pytest.mark.parametrize("name", ["你好啊集团", "Ünal"])
@pytest.mark.parametrize("prompt", ["Create a customer named '{}' (a company)", "Make one: its name is {}."])
def test_a_customer_gets_the_name_that_the_prompt_has(prompt: str, name: str) -> None:
    """The tool that wants a name back, letter by letter, gets it, with quotes around it or without."""
    messages = [{"role": "user", "content": prompt.format(name)}]
    reply = default_reply({**BODY, "messages": messages, "tools": [{"name": "unicode_customer", "input_schema": CITY}]})
    assert reply.tool_calls == [ToolCall("unicode_customer", {"city": name})]


def test_an_output_format_is_filled() -> None:
    """Where JSON of a schema is asked for, the deltas together are such JSON."""
    reply = default_reply({**BODY, "output_config": {"format": {"type": "json_schema", "schema": CITY}}})
    assert json.loads("".join(reply.text or "")) == {"city": "string"}


def test_talk_says_what_it_is_and_what_it_received() -> None:
    """An answer can't be taken for a model's: it names the demo, the model asked for, the counts and the last text."""
    text = default_reply({**BODY, "system": [{"type": "text", "text": "12345"}]}).text
    assert isinstance(text, str)
    for said in ("demo upstream: no model", "1 message(s)", "5 characters", "claude-x", "says: Hello there"):
        assert said in text


def test_reminders_are_not_what_the_user_said() -> None:
    """Claude Code's own blocks and the assistant's words are left out of the last user text."""
    blocks = [{"type": "text", "text": "<system-reminder>x</system-reminder>"}, {"type": "text", "text": "Really?"}]
    assistant = {"role": "assistant", "content": "Yes"}
    assert (
        last_user_text({"messages": [*BODY["messages"], {"role": "user", "content": blocks}, assistant]}) == "Really?"
    )


TEXTS = st.none() | st.text("aé \n", max_size=30) | st.lists(st.text(min_size=1, max_size=5), max_size=4)
CALLS = st.lists(st.builds(ToolCall, st.just("weather"), st.dictionaries(st.text(max_size=3), st.text(max_size=9))))
REPLIES = st.builds(Reply, text=TEXTS, thinking=st.none() | st.text(max_size=20), tool_calls=CALLS)


def put_together(events: list[Json]) -> list[Json]:
    """The blocks that a client of the Messages API makes of a stream."""
    blocks: list[Json] = []
    for event in events:
        if event["type"] == "content_block_start":
            blocks.append(dict(event["content_block"]))
        elif event["type"] == "content_block_delta":
            block, delta = blocks[event["index"]], event["delta"]
            name = delta["type"].removesuffix("_delta").replace("input_json", "partial_json")
            block[name] = block.get(name, "") + delta[name]
    parsed = [{"input": json.loads(block.pop("partial_json"))} if "partial_json" in block else {} for block in blocks]
    return [{**block, **arguments} for block, arguments in zip(blocks, parsed, strict=True)]


def without_ids(blocks: list[Json]) -> list[Json]:
    """Blocks without what is random in them."""
    return [{key: value for key, value in block.items() if key != "id"} for block in blocks]


@given(REPLIES)
def test_a_stream_and_a_whole_message_say_the_same(reply: Reply) -> None:
    """The deltas of any reply add up to the blocks of its whole message, with one stop reason and one count."""
    (*events, ended, _), message = list(stream_events(BODY, reply)), whole_message(BODY, reply)
    blocks = without_ids(message["content"])
    assert without_ids(put_together(events)) == blocks
    assert "".join(block["text"] for block in blocks if block["type"] == "text") == "".join(reply.text or "")
    calls = [block for block in blocks if block["type"] == "tool_use"]
    assert [block["input"] for block in calls] == [call.input for call in reply.tool_calls]
    assert ended["delta"]["stop_reason"] == message["stop_reason"] == ("tool_use" if calls else "end_turn")
    assert ended["usage"]["output_tokens"] == message["usage"]["output_tokens"] >= 1


def test_the_events_of_a_stream_are_in_anthropics_order() -> None:
    """Start, ping, each block from its start to its stop, the message's end: thinking, text, then calls."""
    reply = Reply(thinking="Hm", text=["a", "b"], tool_calls=[ToolCall("weather", {})], usage={"input_tokens": 9})
    events = list(stream_events(BODY, reply))
    blocks = [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"]
    assert blocks == ["thinking", "text", "tool_use"]
    kinds = [event["type"].removeprefix("content_block_") for event in events]
    assert " ".join(kinds) == (
        "message_start ping start delta delta stop start delta delta stop start delta stop message_delta message_stop"
    )
    assert events[0]["message"]["usage"]["input_tokens"] == 9
    assert events[0]["message"]["content"] == []
