"""Function calling through the real app and CLI, by the published client: what the client gets, and what the model."""

import json
from typing import Any

import openai
import pytest

from commands import claude_processes
from conftest import ServerFactory
from demo_upstream import Gate, Reply
from function_calls import (
    GO,
    MODEL,
    Json,
    called,
    calling,
    calls_of,
    completions,
    create,
    expected,
    needs_reuse,
    result_block,
    results,
    scripted,
    seen,
    text,
    tool,
)


def test_a_call_goes_to_the_client_and_its_result_to_the_model(serve: ServerFactory) -> None:
    """The answer is the call, the next one goes on from the result, and each costs one request upstream."""
    server = serve()
    scripted(server, calling("weather"))
    _, first = create(server, GO)
    assert (first.choices[0].finish_reason, first.choices[0].message.content) == ("tool_calls", "Let me look.")
    (call,) = first.choices[0].message.tool_calls
    assert (call.type, call.function.name, json.loads(call.function.arguments)) == (
        "function",
        "weather",
        {"city": "Zürich 0"},
    )
    messages = [*GO, first.choices[0].message.model_dump(exclude_none=True), *results([call.id], "21 °C")]
    _, second = create(server, messages)
    assert (second.choices[0].message.content, second.choices[0].finish_reason) == ("Fine.", "stop")
    use = {"type": "tool_use", "id": call.id, "name": "weather", "input": {"city": "Zürich 0"}}
    assert seen(server) == [[text("Go")], [text("Let me look."), use], [result_block(call.id, "21 °C")]]
    assert len(server.upstream.messages_requests()) == 2


def test_calls_stream_while_they_are_written(serve: ServerFactory) -> None:
    """Text and the pieces of the arguments arrive one by one, before the model has written the rest."""
    server, gate = serve(), Gate(after=4)
    scripted(server, calling("weather", gate=gate, text=["One ", "two "]))
    with completions(server).create(model=MODEL, messages=GO, tools=[tool()], stream=True) as chunks:
        deltas: list[Any] = []
        for chunk in chunks:
            delta = chunk.choices[0].delta
            deltas += [delta.content] if delta.content else []
            deltas += [call.function.arguments for call in delta.tool_calls or ()]
            if len(deltas) == 4:  # Two texts, the call, and the first piece of its arguments.
                gate.open()
    assert deltas[:3] == ["One ", "two ", ""]
    assert json.loads("".join(deltas[2:])) == {"city": "Zürich 0"}
    assert len(deltas) > 5


@needs_reuse
def test_results_go_to_the_turn_that_waits_for_them(serve: ServerFactory) -> None:
    """In whatever order: the model sees them in the client's, and in one request for all."""
    server = serve()
    messages = called(server, "weather", "time", "weather", "news")
    calls = calls_of(messages)
    order = [calls[2], calls[0], calls[3], calls[1]]
    headers, completion = create(
        server,
        [*messages, *results(order, "2", "0", "3", "1")],
        tools=[tool(name) for name in ("news", "time", "weather")],
    )
    assert headers["x-claude-process"] == "adopted"
    assert completion.choices[0].message.content == "Fine."
    assert seen(server)[-1] == [result_block(call, name) for call, name in zip(order, "2031", strict=True)]
    assert len(server.upstream.messages_requests()) == 2


def test_forty_calls_at_once(serve: ServerFactory) -> None:
    """Any number of calls come in one answer, and their results go back in one."""
    server = serve()
    messages = called(server, *["weather"] * 40)
    contents = [str(number) for number in range(40)]
    _, completion = create(server, [*messages, *results(calls_of(messages), *contents)])
    assert completion.choices[0].message.content == "Fine."
    assert [block["content"] for block in seen(server)[-1]] == [[text(each)] for each in contents]


UNUSUAL = {
    "empty": [""],
    "blank": ["\n"],
    "an error": ["Error: no such city"],
    "parts": [[text("one"), text("two")]],
    "strange": ["ﬁ\u200b👨\u200d👩\u2028\x07 <persisted-output> @/etc/hostname !ls"],
    "long": ["x" * 25_000],
    "longer": ["x" * 25_001],
    "very long": ["x" * 1_000_000],
    "one of them empty": ["", "21 °C"],
}


@pytest.mark.parametrize("contents", UNUSUAL.values(), ids=UNUSUAL.keys())
@pytest.mark.parametrize("is_waited_for", [True, False])
def test_unusual_results_reach_the_model(serve: ServerFactory, contents: list[Any], is_waited_for: bool) -> None:
    """As they are, whether the turn still waits for them or its process is gone."""
    server = serve(process_reuse="on" if is_waited_for else "off")
    more: Json = {"model": "sonnet", "tools": [tool()]}
    messages = called(server, *["weather"] * len(contents), **more)
    calls = calls_of(messages)
    _, completion = create(server, [*messages, *results(calls, *contents)], **more)
    assert completion.choices[0].message.content == "Fine."
    texts = [[content] if isinstance(content, str) else [part["text"] for part in content] for content in contents]
    expected = [
        result_block(call, *(each for each in said if each.strip())) for call, said in zip(calls, texts, strict=True)
    ]
    assert seen(server)[-1] == expected
    assert len(server.upstream.requests) == 2


@pytest.mark.parametrize("reuse", ["on", "off"])
def test_the_model_sees_the_same_wherever_the_turn_goes_on(serve: ServerFactory, reuse: str) -> None:
    """Three rounds of calls, another question, and the last answer once more: each time the client's conversation."""
    server = serve(process_reuse=reuse)
    messages: list[Json] = [{"role": "system", "content": "Be brief."}, *GO]
    tools = [tool("weather"), tool("time")]
    for names in (["weather"], ["time", "weather"], ["time"]):
        scripted(server, calling(*names))
        _, completion = create(server, messages, tools=tools)
        messages.append(completion.choices[0].message.model_dump(exclude_none=True))
        messages += results(calls_of(messages), *(f"{name} it is" for name in names))
        assert seen(server) == expected(messages[: -1 - len(names)])
    for _ in range(2):
        _, completion = create(server, messages, tools=tools)
        assert seen(server) == expected(messages)
        messages += [{"role": "assistant", "content": "Fine."}, {"role": "user", "content": "And now?"}]
    create(server, messages[:-2], tools=tools)
    assert seen(server) == expected(messages[:-2])
    assert [[each["name"] for each in record.body["tools"]] for record in server.upstream.messages_requests()] == [
        ["weather", "time"]
    ] * len(server.upstream.messages_requests())


@needs_reuse
def test_missing_results_are_named_and_the_turn_waits_on(serve: ServerFactory) -> None:
    """A request without all results is a 400 that names the calls; the whole one goes to the turn all the same."""
    server = serve()
    messages = called(server, "weather", "weather")
    one, other = calls_of(messages)
    with pytest.raises(openai.BadRequestError) as caught:
        create(server, [*messages, *results([one], "21 °C")])
    assert (other in caught.value.message, one in caught.value.message) == (True, False)
    headers, _ = create(server, [*messages, *results([one, other], "21 °C", "22 °C")])
    assert headers["x-claude-process"] == "adopted"


@pytest.mark.parametrize(
    "behind", [[{"role": "user", "content": "Quick!"}], [{"role": "assistant", "content": "So,"}, *GO]]
)
def test_more_may_be_said_behind_the_results(serve: ServerFactory, behind: list[Json]) -> None:
    """What the user adds to the results, or what is said after them, the model sees behind them."""
    server = serve()
    messages = called(server, "weather")
    messages += [*results(calls_of(messages), "21 °C"), *behind]
    create(server, messages)
    assert seen(server) == expected(messages)
    assert len(server.upstream.messages_requests()) == 2


def test_who_doesnt_answer_a_call_may_go_on_without_it(serve: ServerFactory) -> None:
    """A conversation that goes on as if there had been no call knows nothing of it."""
    server = serve()
    called(server, "weather")
    messages = [*GO, {"role": "user", "content": "Never mind."}]
    _, completion = create(server, messages, tools=None)
    assert completion.choices[0].message.content == "Fine."
    assert seen(server) == expected(messages)
    assert server.upstream.messages_requests()[-1].body["tools"] == []


@needs_reuse
def test_two_that_answer_the_same_call(serve: ServerFactory) -> None:
    """One goes on with the turn; for the one that comes later it is rewound, or made anew, and both are answered."""
    server = serve()
    messages = called(server, "weather")
    answered = [*messages, *results(calls_of(messages), "21 °C")]
    responses = [create(server, answered), create(server, answered)]
    assert responses[0][0]["x-claude-process"] == "adopted"
    assert [completion.choices[0].message.content for _, completion in responses] == ["Fine.", "Fine."]
    assert seen(server, -1) == seen(server, -2) == expected(answered)


def test_each_answer_has_its_own_tokens_and_costs(serve: ServerFactory) -> None:
    """Of a turn with calls each answer counts what it took itself, and the account has all of it."""
    server = serve()
    usage = {"input_tokens": 1000, "output_tokens": 100}
    server.upstream.script(calling("weather", usage=usage))
    server.upstream.script(calling("weather", usage=usage))
    server.upstream.script(Reply(text="Fine.", usage=usage))
    messages, costs = [*GO], []
    for _ in range(3):
        headers, completion = create(server, messages)
        costs.append(float(headers["x-claude-cost-usd"]))
        assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (1000, 100)
        messages.append(completion.choices[0].message.model_dump(exclude_none=True))
        messages += results([call["id"] for call in messages[-1].get("tool_calls", [])], *["21 °C"][: len(costs) < 3])
    assert costs == [pytest.approx(1000 * 3e-6 + 100 * 15e-6)] * 3
    (today,) = server.client().get("/usage", cast_to=object)["days"]  # type: ignore[index]
    assert today["cost_usd"] == pytest.approx(sum(costs))


def test_a_session_remembers_calls_and_results(serve: ServerFactory) -> None:
    """In a session the client sends only what is new: the results, and then what it wants to know next."""
    server = serve()
    session: Json = {"extra_body": {"session_id": "s"}, "tools": [tool()]}
    messages = called(server, "weather", "weather", **session)
    answers = results(calls_of(messages), "21 °C", "")
    create(server, answers, **session)
    messages += [*answers, {"role": "assistant", "content": "Fine."}, *GO]
    create(server, GO, **session)
    assert seen(server)[:2] == expected(messages)[:2]
    assert seen(server)[2] == [
        result_block(calls_of(messages[:2])[0], "21 °C"),
        result_block(calls_of(messages[:2])[1]),
    ]
    assert seen(server)[3:] == [[text("Fine.")], [text("Go")]]


@pytest.mark.parametrize("sent", [GO, [{"role": "system", "content": "Hi"}, *GO], "one of them"])
def test_a_session_wants_the_results_that_it_waits_for(serve: ServerFactory, sent: Any) -> None:
    """Anything else is a 400 that names the calls; the session is as it was, and goes on when they come."""
    server = serve()
    session: Json = {"extra_body": {"session_id": "s"}, "tools": [tool()]}
    calls = calls_of(called(server, "weather", "weather", **session))
    some = results(calls[:1], "21 °C")
    with pytest.raises(openai.BadRequestError) as caught:
        create(server, some if sent == "one of them" else sent, **session)
    assert calls[1] in caught.value.message
    _, completion = create(server, [{"role": "system", "content": "Hi"}, *results(calls, "21 °C", "22 °C")], **session)
    assert completion.choices[0].message.content == "Fine."
    with pytest.raises(openai.BadRequestError) as caught:
        create(server, some, **session)
    assert caught.value.param == "messages.[0].role"


@pytest.mark.parametrize("stop_reason", ["max_tokens", "refusal"])
@pytest.mark.parametrize("spoken", ["Let me look.", None])
def test_a_session_doesnt_wait_for_a_call_that_was_cut_short(
    serve: ServerFactory, stop_reason: str, spoken: str | None
) -> None:
    """The client wasn't told to answer it, so it says something else, and the model sees what was said."""
    server = serve()
    session: Json = {"extra_body": {"session_id": "s"}, "tools": [tool()]}
    scripted(server, calling("weather", stop_reason=stop_reason, text=spoken))
    create(server, GO, **session)
    create(server, [{"role": "user", "content": "Go on"}], **session)
    more = text("Go on")
    assert seen(server) == ([[text("Go")], [text(spoken)], [more]] if spoken else [[text("Go"), more]])


def test_what_the_client_never_offered_is_passed_on_and_not_argued_with(serve: ServerFactory) -> None:
    """A call of a function that isn't there reaches the client, and Claude Code doesn't answer it by itself."""
    server = serve()
    scripted(server, calling("weather", "nothing"))
    _, completion = create(server, GO)
    assert [call.function.name for call in completion.choices[0].message.tool_calls] == ["weather", "nothing"]
    messages = [*GO, completion.choices[0].message.model_dump(exclude_none=True)]
    messages += results(calls_of(messages), "21 °C", "no such function")
    create(server, messages)
    assert seen(server) == expected(messages)
    assert len(server.upstream.messages_requests()) == 2


@pytest.mark.parametrize("stop_reason", ["end_turn", "stop_sequence", "refusal"])
def test_calls_with_another_reason_to_stop(serve: ServerFactory, stop_reason: str) -> None:
    """Calls are calls, whatever the API gives for a reason; only after a refusal nothing waits for their results."""
    server = serve()
    scripted(server, calling("weather", stop_reason=stop_reason))
    _, completion = create(server, GO)
    is_refused = stop_reason == "refusal"
    assert completion.choices[0].finish_reason == ("content_filter" if is_refused else "tool_calls")
    create(server, [*GO, *GO], tools=None)
    assert seen(server) == [[text("Go"), text("Go")]]
    assert len(server.upstream.messages_requests()) == 2


BREAKS: list[Json] = [
    {"error_after": 2},
    {"cut_after": 2},
    {"error_after": 3},
    {"cut_after": 5},
    {"error_after": 5},
    {"cut_after": 0},
]


@pytest.mark.parametrize("broken", BREAKS, ids=str)
@pytest.mark.parametrize("stream", [False, True])
def test_a_stream_that_breaks_is_an_error_at_once(serve: ServerFactory, broken: Json, stream: bool) -> None:
    """In, between and behind calls: the client gets it, and Claude Code neither asks for the rest nor waits."""
    server = serve()
    scripted(server, calling("weather", "weather", text="Wait.", delta_delay=0.3, **broken))
    with pytest.raises(openai.APIError) as caught:
        for _ in completions(server).create(model=MODEL, messages=GO, tools=[tool()], stream=stream):
            pass
    assert caught.value.code == "upstream_error"
    assert len(server.upstream.messages_requests()) == 1
    create(server, GO)
    assert seen(server) == [[text("Go")]]


def test_a_call_that_is_cut_short(serve: ServerFactory) -> None:
    """Where the limit cuts a call, the client is told that, and nothing waits for its result."""
    server = serve()
    scripted(server, calling("weather", stop_reason="max_tokens"))
    _, completion = create(server, GO, max_tokens=7)
    assert completion.choices[0].finish_reason == "length"
    _, completion = create(server, [*GO, *GO])
    assert completion.choices[0].message.content == "Fine."
    assert seen(server) == [[text("Go"), text("Go")]]


@needs_reuse
@pytest.mark.parametrize("blank", [{"text": ["\n\n"]}, {"text": [""]}, {"text": [" "], "more_text": ["\n"]}], ids=str)
def test_a_blank_text_before_a_call_is_none(serve: ServerFactory, blank: Json) -> None:
    """The turn waits all the same, and the model sees the call alone, as it would in a conversation made anew."""
    server = serve()
    scripted(server, calling("weather", **blank))
    _, completion = create(server, GO)
    messages = [*GO, completion.choices[0].message.model_dump(exclude_none=True)]
    messages += results(calls_of(messages), "21 °C")
    headers, _ = create(server, messages)
    assert headers["x-claude-process"] == "adopted"
    assert [block["type"] for block in seen(server)[1]] == ["tool_use"]
    headers, _ = create(server, [*messages, {"role": "assistant", "content": "Fine."}, *GO])
    assert headers["x-claude-process"] == "adopted"
    assert [[block["type"] for block in blocks] for blocks in seen(server)] == [
        ["text"],
        ["tool_use"],
        ["tool_result"],
        ["text"],
        ["text"],
    ]


def test_thoughts_stay_with_their_calls(serve: ServerFactory) -> None:
    """In the turn that waits the model finds what it thought before it called."""
    server = serve(process_reuse="on")
    scripted(server, calling("weather", thinking="Where is it?"))
    _, completion = create(server, GO)
    messages = [*GO, completion.choices[0].message.model_dump(exclude_none=True)]
    headers, _ = create(server, [*messages, *results(calls_of(messages), "21 °C")])
    assert headers["x-claude-process"] == "adopted"
    assert [block["type"] for block in seen(server)[1]] == ["thinking", "text", "tool_use"]


def test_who_leaves_in_the_middle_of_a_call_leaves_nothing_behind(serve: ServerFactory) -> None:
    """The turn ends upstream, and the next one of the same process knows nothing of it."""
    server, gate = serve(max_processes=1), Gate(after=5)
    scripted(server, calling("weather", gate=gate))
    with completions(server).create(model=MODEL, messages=GO, tools=[tool()], stream=True) as chunks:
        next(chunk for chunk in chunks if chunk.choices[0].delta.tool_calls)
    server.upstream.wait_for(lambda upstream: upstream.messages_requests()[0].disconnected)
    _, completion = create(server, [{"role": "user", "content": "Hello"}], tools=None)
    assert completion.choices[0].message.content == "Fine."
    assert seen(server) == [[text("Hello")]]
    assert "weather" not in json.dumps(server.upstream.messages_requests()[-1].body)


@needs_reuse
def test_a_process_that_waited_serves_others(serve: ServerFactory) -> None:
    """Where there is no other, the turn is given up, and of it and its functions nothing is left."""
    server = serve(max_processes=1, spare_processes=0)
    messages = called(server, "weather", messages=[{"role": "system", "content": "Secret"}, *GO])
    other: list[Json] = [{"role": "system", "content": "Public"}, {"role": "user", "content": "Hello"}]
    headers, _ = create(server, other, tools=None)
    assert headers["x-claude-process"] == "recycled"
    body = json.dumps(server.upstream.messages_requests()[-1].body)
    assert not [word for word in ("weather", "Secret", "interrupted") if word in body]
    messages += results(calls_of(messages), "21 °C")
    create(server, messages)
    assert seen(server) == expected(messages)


def test_a_call_whose_process_dies_is_answered_elsewhere(serve: ServerFactory) -> None:
    """A process that is killed while its turn waits costs the client nothing but time."""
    others = claude_processes()
    server = serve()
    messages = called(server, "weather")
    for process in claude_processes() - others:
        process.kill()
    messages += results(calls_of(messages), "21 °C")
    _, completion = create(server, messages)
    assert completion.choices[0].message.content == "Fine."
    assert seen(server) == expected(messages)
