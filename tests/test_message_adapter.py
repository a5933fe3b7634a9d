"""From OpenAI's messages to Claude's and back: what stays, what is joined, what is refused."""

from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from client_functions import CallStyle
from errors import InvalidRequestError
from message_adapter import find_faults_of_conversation, to_chat_completion, to_turn_request
from models import ChatMessage
from turns import (
    Binding,
    Message,
    TextBlock,
    TextDelta,
    ToolResultBlock,
    ToolUseBlock,
    TurnEnded,
    TurnEvent,
    TurnRequest,
    TurnStarted,
    Usage,
)

Json = dict[str, Any]
MESSAGES: TypeAdapter[list[ChatMessage]] = TypeAdapter(list[ChatMessage])
BINDING = Binding("sonnet", None)
HELLO = {"role": "user", "content": "Hello"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}

texts = st.text(max_size=20)
contents = texts | st.lists(texts.map(lambda text: {"type": "text", "text": text}), max_size=3)
messages = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": contents})


def convert(*conversation: Json) -> TurnRequest:
    """Convert messages as a client writes them."""
    return to_turn_request(BINDING, MESSAGES.validate_python(conversation))


def text(content: str) -> Json:
    """A part of text."""
    return {"type": "text", "text": content}


def call(identifier: str, arguments: str = "{}") -> Json:
    """A tool call of the assistant's."""
    return {"id": identifier, "type": "function", "function": {"name": "look_up", "arguments": arguments}}


def calls(*identifiers: str) -> Json:
    """An assistant's message that makes these calls."""
    return {"role": "assistant", "content": None, "tool_calls": [call(each) for each in identifiers]}


def answer(identifier: str) -> Json:
    """A tool's message."""
    return {"role": "tool", "tool_call_id": identifier, "content": f"answer {identifier}"}


def text_of(message: Json) -> str:
    """The whole text of a message."""
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def texts_of(message: Message) -> list[str]:
    """The texts of a converted message's blocks."""
    return [block.text for block in message.content if isinstance(block, TextBlock)]


@given(st.lists(messages, max_size=8))
def test_any_conversation_survives(conversation: list[Json]) -> None:
    """Every message that isn't blank arrives whole, in order and in its role, in messages that alternate."""
    request = convert(*conversation, HELLO)
    sent = [*request.history, request.prompt]
    said = [each for each in [*conversation, HELLO] if each["role"] != "system" and text_of(each).strip()]
    runs = groupby(said, key=lambda message: message["role"])
    assert [(message.role, "".join(texts_of(message))) for message in sent] == [
        (role, "".join(map(text_of, run))) for role, run in runs
    ]
    assert all(text.strip() for message in sent for text in texts_of(message))
    roles = [message.role for message in sent]
    assert roles == [role for role, _ in groupby(roles)]
    assert roles[-1] == "user"
    assert all(message.content for message in sent)


@given(st.lists(messages, max_size=8))
def test_system_messages_are_joined(conversation: list[Json]) -> None:
    """The system prompt is all system messages, a blank line apart, without the blank ones; none at all is None."""
    system = [text_of(message) for message in conversation if message["role"] == "system"]
    joined = "\n\n".join(text for text in system if text.strip())
    assert convert(*conversation, HELLO).binding.system == (joined or None)


@pytest.mark.parametrize(
    "said",
    [
        {"content": None, "refusal": "No."},
        {"content": "", "refusal": "No."},
        {"content": [{"type": "refusal", "refusal": "No."}]},
    ],
)
def test_a_refusal_is_what_the_assistant_said(said: Json) -> None:
    """Each of OpenAI's forms of a refusal is the assistant's text."""
    assert convert({"role": "assistant", **said}, HELLO).history == (Message("assistant", (TextBlock("No."),)),)


def test_calls_and_results_keep_their_order() -> None:
    """Text comes before its calls, results in the order in which they came, then what the user adds."""
    request = convert(HELLO, {**calls("a", "b"), "content": "Let me see."}, answer("b"), answer("a"), HELLO)
    look_ups = (ToolUseBlock("a", "look_up", {}), ToolUseBlock("b", "look_up", {}))
    assert request.history[-1] == Message("assistant", (TextBlock("Let me see."), *look_ups))
    results = [ToolResultBlock(each, (TextBlock(f"answer {each}"),)) for each in ("b", "a")]
    assert request.prompt == Message("user", (*results, TextBlock("Hello")))


@pytest.mark.parametrize(("arguments", "parsed"), [('{"a": [1]}', {"a": [1]}), ("", {}), ("{}", {})])
def test_arguments_are_parsed(arguments: str, parsed: Json) -> None:
    """A call's arguments become an object; none at all are an empty one."""
    made = {"role": "assistant", "content": None, "tool_calls": [call("a", arguments)]}
    assert convert(made, answer("a")).history == (Message("assistant", (ToolUseBlock("a", "look_up", parsed),)),)


@pytest.mark.parametrize(
    ("conversation", "param"),
    [
        ([{"role": "assistant", "content": "Hi"}], "messages.[0]"),
        ([HELLO, {"role": "assistant", "content": "Hi"}], "messages.[1]"),
        ([{"role": "user", "content": ""}], "messages.[0]"),
        ([{"role": "system", "content": "Be terse."}], "messages.[0]"),
        ([HELLO, {"role": "user", "content": [text(""), IMAGE]}], "messages.[1].content.[1].image_url.url"),
        ([{"role": "system", "content": [IMAGE]}, HELLO], "messages.[0].content.[0].type"),
        ([HELLO, answer("a")], "messages.[1].role"),
        ([calls("a"), answer("b")], "messages.[1].role"),
        ([calls("a"), answer("a"), answer("a")], "messages.[2].role"),
        ([calls("a", "b"), answer("a"), HELLO], "messages.[2].role"),
        ([calls("a"), HELLO, answer("a")], "messages.[1].role"),
        *(
            ([{**calls(), "tool_calls": [call("a"), call("b", text)]}, answer("a"), answer("b")],
             "messages.[0].tool_calls.[1].function.arguments")
            for text in ("[]", "{", "null", "Paris", '{"a": NaN}', '{"a": "\\ud800"}', '{"a":' + "[" * 100_000)
        ),
        ([calls("a", "a"), answer("a")], "messages.[0].tool_calls"),
        ([HELLO, calls("a")], "messages.[1].role"),
    ],
)  # fmt: skip
def test_a_conversation_that_claude_cant_be_asked_with_is_refused(conversation: list[Json], param: str) -> None:
    """No prompt at the end, parts that aren't text, calls and results that don't pair: each names its place."""
    with pytest.raises(InvalidRequestError) as caught:
        convert(*conversation)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("conversation", "params"),
    [
        ([HELLO], []),
        (
            [
                {"role": "system", "content": [IMAGE]},
                {"role": "user", "content": [IMAGE, {"type": "text", "text": "x"}, IMAGE]},
                {"role": "assistant", "tool_calls": [call("a", "["), call("b"), call("c", "5")]},
                HELLO,
            ],
            [
                "messages.[0].content.[0].type",
                "messages.[1].content.[0].image_url.url",
                "messages.[1].content.[2].image_url.url",
                "messages.[2].tool_calls.[0].function.arguments",
                "messages.[2].tool_calls.[2].function.arguments",
                "messages.[3].role",
            ],
        ),
        ([HELLO, {"role": "assistant", "content": "x"}], ["messages.[1]"]),
    ],
)
def test_all_faults_of_a_conversation_are_found(conversation: list[Json], params: list[str]) -> None:
    """Each piece that can't be converted is told, then what is wrong with their order, or with the whole."""
    faults = find_faults_of_conversation(MESSAGES.validate_python(conversation))
    assert [fault.param for fault in faults] == params


@pytest.mark.parametrize("rest", [[HELLO], []])
def test_calls_without_answers_are_named(rest: list[Json]) -> None:
    """The error lists the calls that are still open, also where nothing comes after them."""
    with pytest.raises(InvalidRequestError, match=r"response messages: b, c$"):
        convert(calls("a", "b", "c"), answer("a"), *rest)


def test_ids_of_calls_that_come_again_are_made_unique() -> None:
    """A client that numbers its calls anew in each message: results still belong to their calls."""
    request = convert(HELLO, calls("c"), answer("c"), calls("c", "c-2"), answer("c-2"), answer("c"))
    blocks = [block for message in [*request.history, request.prompt] for block in message.content]
    assert [block.id for block in blocks if isinstance(block, ToolUseBlock)] == ["c", "c-2", "c-2-2"]
    assert [block.tool_use_id for block in blocks if isinstance(block, ToolResultBlock)] == ["c", "c-2-2", "c-2"]


@pytest.mark.parametrize(
    ("ids", "unique"),
    [
        (["c", "c_1"], ["c", "c_1-2"]),
        (["c_1", "c"], ["c_1", "c-2"]),
        (["c_1", "c_1_2", "c_1"], ["c_1", "c_1_2-2", "c_1-2"]),
        (["c_0", "c_1", "c_x"], ["c_0", "c_1", "c_x"]),
    ],
)
def test_no_call_looks_like_a_part_of_another(ids: list[str], unique: list[str]) -> None:
    """Of `c` and `c_1` the later one gets another id, for Claude Code would drop the result of `c_1`."""
    request = convert(HELLO, *(message for each in ids for message in (calls(each), answer(each))))
    blocks = [block for message in [*request.history, request.prompt] for block in message.content]
    assert [block.id for block in blocks if isinstance(block, ToolUseBlock)] == unique
    assert [block.tool_use_id for block in blocks if isinstance(block, ToolResultBlock)] == unique


@pytest.mark.parametrize("system", ["x-anthropic-billing-header: mine", "__SYSTEM_PROMPT_DYNAMIC_BOUNDARY__"])
def test_a_system_prompt_that_claude_code_takes_for_its_own_is_refused(system: str) -> None:
    """What would replace Claude Code's own words, or vanish, is a clear error."""
    with pytest.raises(InvalidRequestError):
        convert({"role": "system", "content": system}, HELLO)


@given(st.lists(texts))
def test_a_completion_is_its_deltas_joined(deltas: list[str]) -> None:
    """The whole answer's text is the stream's, also where there is none, under the model that answered."""
    ended = TurnEnded("max_tokens", Usage(1, 2, 3, 4, 5), None, Message("assistant", ()))
    events: list[TurnEvent] = [TurnStarted("claude-x", "s"), *map(TextDelta, deltas), ended]
    completion = to_chat_completion("chatcmpl-1", 7, [events], CallStyle({}))
    choice = completion.choices[0]
    assert (completion.id, completion.created, completion.model) == ("chatcmpl-1", 7, "claude-x")
    assert (choice.message.content, choice.finish_reason) == ("".join(deltas), "length")
    assert (completion.usage.prompt_tokens, completion.usage.total_tokens) == (1 + 3 + 4, 1 + 3 + 4 + 2)
