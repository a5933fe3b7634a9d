"""A turn's events as chunks: their order, their form, and what include_usage changes."""

import json
import re
from contextlib import suppress
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from answer_models import CompletionUsage
from client_functions import CallStyle
from streaming import DONE, ChunkEncoder, StreamOrderError
from turns import (
    InputJsonDelta,
    Message,
    TextDelta,
    ThinkingDelta,
    ToolUseStarted,
    TurnEnded,
    TurnEvent,
    TurnStarted,
    Usage,
)

STARTED = TurnStarted("claude-x", "session")
DELTA = TextDelta("Hi")
THOUGHT = ThinkingDelta("Hm")
CALL = ToolUseStarted("toolu_1", "look_up")
ARGUMENTS = InputJsonDelta('{"x": 1}')
NOTHING = Message("assistant", ())
ENDED = TurnEnded("end_turn", Usage(7, 5, 3, 2, 1), 0.25, NOTHING)
PLAIN = CallStyle({})
HEAD = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 7,
    "model": "claude-x",
    "service_tier": "default",
    "system_fingerprint": None,
}


def encode(*events: TurnEvent, style: CallStyle = PLAIN, include_usage: bool = False) -> list[str]:
    """All data of the stream that these events make."""
    encoder = ChunkEncoder("chatcmpl-1", 7, style, usage="openai" if include_usage else None)
    return [data for event in events for data in encoder.encode(event)]


def chunks(*events: TurnEvent, style: CallStyle = PLAIN, include_usage: bool = False) -> list[dict[str, Any]]:
    """The stream's chunks, parsed, less [DONE] where it has come to that."""
    encoded = encode(*events, style=style, include_usage=include_usage)
    return [json.loads(data) for data in encoded if data != DONE]


def choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    """The one choice of a chunk."""
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def is_legal(events: tuple[TurnEvent, ...]) -> bool:
    """The order said in another way: one start, first, and one end, last; arguments only after their call."""
    kinds = [event.type for event in events]
    between = "".join(_LETTERS[kind] for kind in kinds[1:])
    return kinds[0] == "turn_started" and re.fullmatch(r"(t|ca*)*e?", between) is not None


_LETTERS = {
    "turn_started": "s",
    "thinking_delta": "t",
    "text_delta": "t",
    "tool_use_started": "c",
    "input_json_delta": "a",
    "turn_ended": "e",
}
EVENTS = (STARTED, THOUGHT, DELTA, CALL, ARGUMENTS, ENDED)


@pytest.mark.parametrize("events", [each for n in (1, 2, 3, 4) for each in product(EVENTS, repeat=n)])
def test_only_the_one_order_streams(events: tuple[TurnEvent, ...]) -> None:
    """Of all series of up to four events those in order are encoded, and every other raises."""
    if is_legal(events):
        assert len(encode(*events)) == len(events) + (events[-1] is ENDED)
    else:
        with pytest.raises(StreamOrderError):
            encode(*events)


def test_the_steps_of_an_order_error_are_named() -> None:
    """The error says what came after what."""
    with pytest.raises(StreamOrderError, match=r"^content after \w+$"):
        encode(STARTED, ENDED, DELTA)


def test_chunks_have_openais_form() -> None:
    """Role, content and finish are a chunk each, under one head, without usage, and [DONE] is last."""
    assert chunks(STARTED, DELTA, ENDED) == [
        {**HEAD, "choices": [choice({"role": "assistant", "content": "", "refusal": None})]},
        {**HEAD, "choices": [choice({"content": "Hi"})]},
        {**HEAD, "choices": [choice({}, "stop")]},
    ]
    assert encode(STARTED, DELTA, ENDED)[-1] == DONE


def test_usage_is_null_until_the_chunk_after_the_finish() -> None:
    """With include_usage each chunk has a null usage, but for the last before [DONE], which has no choices."""
    *earlier, last = chunks(STARTED, DELTA, ENDED, include_usage=True)
    assert [chunk["usage"] for chunk in earlier] == [None, None, None]
    assert last == {**HEAD, "choices": [], "usage": CompletionUsage.of([ENDED]).model_dump()}
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (7 + 3 + 2, 5)
    assert encode(STARTED, ENDED, include_usage=True)[-1] == DONE


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "stop"),
        ("pause_turn", "stop"),
        ("something_new", "stop"),
    ],
)
def test_a_stop_reason_becomes_a_finish_reason(stop_reason: str, finish_reason: str) -> None:
    """Each of Claude's reasons has OpenAI's name in the finish chunk, and nowhere before it."""
    first, finish = chunks(STARTED, TurnEnded(stop_reason, Usage(), None, NOTHING))
    assert first["choices"][0]["finish_reason"] is None
    assert finish["choices"][0]["finish_reason"] == finish_reason


@given(st.lists(st.text(), max_size=6))
def test_any_text_survives_on_one_line(texts: list[str]) -> None:
    """Each delta is a chunk of its own with its text unchanged, and no chunk's JSON breaks its SSE line."""
    encoded = encode(STARTED, *map(TextDelta, texts))
    assert [json.loads(data)["choices"][0]["delta"]["content"] for data in encoded] == ["", *texts]
    assert not [data for data in encoded if "\n" in data or "\r" in data]


ANY_EVENTS = st.lists(st.sampled_from([STARTED, DELTA, THOUGHT, CALL, ARGUMENTS, ENDED]), max_size=10)


@given(ANY_EVENTS | ANY_EVENTS.map(lambda events: [STARTED, *events]))
def test_whatever_comes_is_a_legal_stream_as_far_as_it_goes(events: list[TurnEvent]) -> None:
    """An event out of its place writes nothing; what was written is in order, and has all text and all calls."""
    encoder = ChunkEncoder("chatcmpl-1", 7, PLAIN, usage=None)
    data: list[str] = []
    taken: list[TurnEvent] = []
    with suppress(StreamOrderError):
        for event in events:
            data += encoder.encode(event)
            taken.append(event)
    written = [json.loads(each)["choices"][0] for each in data if each != DONE]
    assert [("role" in each["delta"]) for each in written] == [True, *[False] * (len(written) - 1)][: len(written)]
    assert [bool(each["finish_reason"]) for each in written[:-1]] == [False] * len(written[:-1])
    assert (data[-1:] == [DONE]) == (ENDED in taken) == bool(written and written[-1]["finish_reason"])
    assert "".join(each["delta"].get("content", "") for each in written) == "Hi" * taken.count(DELTA)
    calls = [call for each in written for call in each["delta"].get("tool_calls", ())]
    assert len([call for call in calls if "id" in call]) == taken.count(CALL)


def test_two_streams_dont_know_each_other() -> None:
    """Each encoder has its own order and its own head."""
    one, other = (ChunkEncoder(name, 7, PLAIN, usage=None) for name in ("one", "other"))
    list(one.encode(STARTED))
    list(other.encode(TurnStarted("claude-y", "session")))
    (data,) = one.encode(DELTA)
    assert (json.loads(data)["id"], json.loads(data)["model"]) == ("one", "claude-x")


def test_a_call_streams_as_openai_streams_it() -> None:
    """Its first delta has all but the arguments, the next ones only those and the index, which counts the calls."""
    other = ToolUseStarted("toolu_2", "get_time")
    deltas = [each["choices"][0]["delta"] for each in chunks(STARTED, CALL, ARGUMENTS, ARGUMENTS, other, ENDED)]
    assert deltas[1:-1] == [
        {"tool_calls": [{"index": 0, "id": "toolu_1", "type": "function", "function": _function("look_up", "")}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x": 1}'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x": 1}'}}]},
        {"tool_calls": [{"index": 1, "id": "toolu_2", "type": "function", "function": _function("get_time", "")}]},
    ]


def _function(name: str, arguments: str) -> dict[str, str]:
    return {"name": name, "arguments": arguments}


def test_a_call_streams_in_the_old_form_to_who_asked_so() -> None:
    """Under the client's own name, as a `function_call`, which is also why it ends."""
    style = CallStyle({"look_up": "look.up"}, is_legacy=True)
    ended = TurnEnded("tool_use", Usage(), None, NOTHING)
    *_, first, second, finish = [each["choices"][0] for each in chunks(STARTED, CALL, ARGUMENTS, ended, style=style)]
    assert first["delta"] == {"function_call": {"name": "look.up", "arguments": ""}}
    assert second["delta"] == {"function_call": {"arguments": '{"x": 1}'}}
    assert finish["finish_reason"] == "function_call"
