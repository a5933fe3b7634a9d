"""Function calling through the real app and CLI, by the published client: what the client gets, and what the model."""

import json
import os
import re
from collections.abc import Sequence
from typing import Any

import openai
import pytest

from client_functions import native_name
from conftest import Server, ServerFactory
from demo_upstream import Gate, RecordedRequest, Reply, ToolCall
from test_engine import claude_processes

Json = dict[str, Any]

MODEL = "claude-sonnet-4-5"
GO: list[Json] = [{"role": "user", "content": "Go"}]
needs_reuse = pytest.mark.skipif(os.environ.get("PROCESS_REUSE") == "off", reason="each process serves one turn")


def tool(name: str = "weather", parameters: Json | None = None, **more: Any) -> Json:
    """A function of the client's."""
    schema = parameters or {"type": "object", "properties": {"city": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "description": "Ours.", "parameters": schema, **more}}


def native(name: str = "weather", parameters: Json | None = None, **more: Any) -> Json:
    """What the model should see of such a function."""
    schema = parameters or {"type": "object", "properties": {"city": {"type": "string"}}}
    return {"name": name, "description": "Ours.", "input_schema": schema, **more}


def scripted(server: Server, *replies: Reply) -> None:
    """Let the upstream give these replies, one a request, then "Fine."."""
    server.upstream.reset()
    for reply in replies:
        server.upstream.script(reply)
    server.upstream.script(Reply(text="Fine."), times=None)


def calling(*names: str, **more: Any) -> Reply:
    """A reply that calls functions, each with its number."""
    calls = [ToolCall(name, {"city": f"Zürich {number}"}) for number, name in enumerate(names)]
    fields: Json = {"text": "Let me look.", "tool_calls": calls, **more}
    return Reply(**fields)


def completions(server: Server) -> Any:
    """The published client's, which here takes messages and tools as they come."""
    return server.client().chat.completions


def create(server: Server, messages: Sequence[Json], **more: Any) -> Any:
    """Have a conversation answered; return the response's headers and the completion."""
    body: Json = {"model": MODEL, "messages": messages, "tools": [tool()], **more}
    raw = completions(server).with_raw_response.create(
        **{name: value for name, value in body.items() if value is not None}
    )
    return raw.headers, raw.parse()


def called(server: Server, *names: str, messages: Sequence[Json] = GO, **more: Any) -> list[Json]:
    """Let the model call functions; return the conversation with its calls."""
    scripted(server, calling(*names))
    _, completion = create(server, messages, **{"tools": [tool(name) for name in sorted({*names})], **more})
    return [*messages, completion.choices[0].message.model_dump(exclude_none=True)]


def calls_of(messages: Sequence[Json]) -> list[str]:
    """The ids of the calls that stand last."""
    return [call["id"] for call in messages[-1]["tool_calls"]]


def results(calls: Sequence[str], *contents: str | list[Json]) -> list[Json]:
    """The messages that answer calls."""
    return [
        {"role": "tool", "tool_call_id": call, "content": content}
        for call, content in zip(calls, contents, strict=True)
    ]


def text(content: str) -> Json:
    """A block, or a part, of text."""
    return {"type": "text", "text": content}


def result_block(call: str, *contents: str) -> Json:
    """What the model sees of a result."""
    return {"type": "tool_result", "tool_use_id": call, "content": [text(content) for content in contents]}


def plain(block: Json) -> Json:
    """A block less the cache marks."""
    return {name: value for name, value in block.items() if name != "cache_control"}


def seen(server: Server, place: int = -1) -> list[list[Json]]:
    """The messages that the model saw, each as its blocks."""
    record: RecordedRequest = server.upstream.messages_requests()[place]
    contents = [message["content"] for message in record.body["messages"] if message["role"] != "system"]
    return [[text(each)] if isinstance(each, str) else [plain(block) for block in each] for each in contents]


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


def expected(messages: Sequence[Json]) -> list[list[Json]]:
    """What the model should see of a conversation, as its messages' blocks."""
    merged: list[tuple[str, list[Json]]] = []
    for message in messages:
        if message["role"] == "system":
            continue
        role = "assistant" if message["role"] == "assistant" else "user"
        if message["role"] == "tool":
            blocks = [result_block(message["tool_call_id"], message["content"])]
        else:
            blocks = [text(message["content"])]
        for call in message.get("tool_calls", []):
            function = call["function"]
            arguments = json.loads(function["arguments"])
            blocks.append({"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments})
        if merged and merged[-1][0] == role:
            merged[-1][1].extend(blocks)
        else:
            merged.append((role, blocks))
    return [blocks for _, blocks in merged]


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


@pytest.mark.parametrize(
    ("sent", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": {"type": "function", "function": {"name": "weather"}}}, {"type": "tool", "name": "weather"}),
        ({"parallel_tool_calls": True}, None),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"tool_choice": "required", "parallel_tool_calls": False},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_choices_are_parameters_of_the_api(server: Server, sent: Json, choice: Json | None) -> None:
    """Whether and what to call, and how much at a time, stands in the request to Claude, and not in the next one."""
    scripted(server, Reply(text="Fine."))
    create(server, GO, **sent)
    assert server.upstream.messages_requests()[-1].body.get("tool_choice") == choice
    create(server, GO)
    assert "tool_choice" not in server.upstream.messages_requests()[-1].body


def test_a_choice_holds_for_one_answer(serve: ServerFactory) -> None:
    """The one that comes with the results takes the place of the one that made the model call."""
    server = serve()
    messages = called(server, "weather", tool_choice="required", temperature=0.5)
    create(server, [*messages, *results(calls_of(messages), "21 °C")], tool_choice="none")
    first, second = (record.body for record in server.upstream.messages_requests())
    assert (first["tool_choice"], second["tool_choice"]) == ({"type": "any"}, {"type": "none"})
    assert (first["temperature"], second.get("temperature", 1)) == (0.5, 1)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ({}, "tool_calls"),
        ({"tool_choice": "required"}, "tool_calls"),
        ({"tool_choice": {"type": "function", "function": {"name": "weather"}}}, "stop"),
    ],
)
@pytest.mark.parametrize("spoken", [None, "Let me look."])
def test_the_form_of_an_answer_with_calls(server: Server, sent: Json, reason: str, spoken: str | None) -> None:
    """Without text the content is null; a call that was forced is no reason to stop of its own."""
    scripted(server, calling("weather", text=spoken))
    _, completion = create(server, GO, **sent)
    choice = completion.choices[0]
    assert (choice.finish_reason, choice.message.content, choice.message.refusal) == (reason, spoken, None)
    assert len(choice.message.tool_calls) == 1


STRANGE_NAMES = ["get.weather", "get weather", "wetter_für_zürich", "天気"]
NAMES = ["get_weather", *STRANGE_NAMES, "Read", "mcp__a__b", "ToolSearch", "x" * 64]


@pytest.mark.parametrize("reuse", ["on", "off"])
def test_functions_keep_their_names(serve: ServerFactory, reuse: str) -> None:
    """Whatever the client calls them it is called by, and no two are taken for one, wherever the turn goes on."""
    server = serve(process_reuse=reuse)
    tools = [tool(name) for name in NAMES]
    scripted(server, Reply(text="Fine."))
    create(server, GO, tools=tools)
    names = [each["name"] for each in server.upstream.messages_requests()[-1].body["tools"]]
    assert len({*names}) == len(NAMES)
    assert all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", name) for name in names)
    assert [own for name, own in zip(names, NAMES, strict=True) if name != own] == STRANGE_NAMES
    scripted(server, calling(*names))
    _, completion = create(server, GO, tools=tools)
    message = completion.choices[0].message
    assert [call.function.name for call in message.tool_calls] == NAMES
    messages = [*GO, message.model_dump(exclude_none=True)]
    create(server, [*messages, *results(calls_of(messages), *NAMES)], tools=tools)
    assert [block["name"] for block in seen(server)[1][1:]] == names
    assert [block["content"][0]["text"] for block in seen(server)[2]] == NAMES


SCHEMAS: list[Json | None] = [
    {"type": "object", "properties": {"b": {"$ref": "#/$defs/B"}, "a": {}}, "$defs": {"B": {"enum": [1, True, "ü"]}}},
    {"type": "object", "properties": {"x": {"anyOf": [{"type": "string"}, {"type": "null"}]}}, "required": ["x"]},
    {"type": "object", "properties": {}, "additionalProperties": False},
    {"properties": {"x": {"type": ["integer", "null"], "minimum": 1.5, "default": 1000}}},
    {},
    None,
]


def test_definitions_reach_the_model_as_they_are(server: Server) -> None:
    """In their order, letter by letter, request by request; but for the type, which Claude's API wants to be told."""
    tools = [tool(f"z{9 - number}", strict=bool(number % 2)) for number in range(len(SCHEMAS))]
    for each, schema in zip(tools, SCHEMAS, strict=True):
        each["function"]["parameters"] = schema
    scripted(server, Reply(text="Fine."))
    for stream in (False, True):
        completions(server).create(model=MODEL, messages=GO, tools=tools, stream=stream)
    bodies = [json.dumps(record.body["tools"]) for record in server.upstream.messages_requests()]
    nothing = {"type": "object", "properties": {}}
    schemas = [*SCHEMAS[:3], {"type": "object", **(SCHEMAS[3] or {})}, nothing, nothing]
    definitions = [
        native(f"z{9 - number}", schema, **({"strict": True} if number % 2 else {}))
        for number, schema in enumerate(schemas)
    ]
    assert bodies == [json.dumps(definitions)] * 2


@pytest.mark.parametrize("reuse", ["on", "off"])
def test_a_hundred_and_twenty_eight_functions(serve: ServerFactory, reuse: str) -> None:
    """With 64 KB of schemas all of them are there, in order, and each can be called."""
    server = serve(process_reuse=reuse)
    properties = {f"property_{number}": {"type": "string", "description": "ü" * 30} for number in range(6)}
    tools = [tool(f"function_{127 - number}", {"type": "object", "properties": properties}) for number in range(128)]
    assert len(json.dumps(tools, ensure_ascii=False).encode()) > 64 * 1024
    scripted(server, calling("function_0", "function_127"))
    _, completion = create(server, GO, tools=tools)
    messages = [*GO, completion.choices[0].message.model_dump(exclude_none=True)]
    create(server, [*messages, *results(calls_of(messages), "one", "two")], tools=tools)
    assert [each["name"] for each in server.upstream.messages_requests()[-1].body["tools"]] == [
        each["function"]["name"] for each in tools
    ]
    assert [block["content"][0]["text"] for block in seen(server)[-1]] == ["one", "two"]


def function(name: str = "weather", **more: Any) -> Json:
    """A function in the old form."""
    return {**tool(name)["function"], **more}


FAULTS: dict[str, tuple[Json, str, str | None]] = {
    "no tools": ({"tools": []}, "tools", "empty_array"),
    "129 tools": ({"tools": [tool(f"f{number}") for number in range(129)]}, "tools", "array_above_max_length"),
    "no name": (
        {"tools": [{"type": "function", "function": {}}]},
        "tools[0].function.name",
        "missing_required_parameter",
    ),
    "a long name": ({"tools": [tool("x" * 65)]}, "tools[0].function.name", "string_above_max_length"),
    "another kind": ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type", "invalid_value"),
    "one name twice": ({"tools": [tool("a"), tool("b"), tool("a")]}, "tools[2].function.name", None),
    "no JSON Schema": (
        {"tools": [tool("a"), tool("b"), tool("c", {"type": "object", "properties": {"x": {"type": "strin"}}})]},
        "tools[2].function.parameters",
        "invalid_function_parameters",
    ),
    "no object": (
        {"tools": [tool("a", {"type": "string"})]},
        "tools[0].function.parameters",
        "invalid_function_parameters",
    ),
    "a list for a schema": ({"tools": [tool("a", ["x"])]}, "tools[0].function.parameters", "invalid_type"),  # type: ignore[arg-type]
    "a choice of nothing": ({"tools": None, "tool_choice": "auto"}, "tool_choice", None),
    "a choice that isn't there": (
        {"tool_choice": {"type": "function", "function": {"name": "news"}}},
        "tool_choice",
        None,
    ),
    "no such choice": ({"tool_choice": "any"}, "tool_choice", "invalid_value"),
    "a choice of another kind": ({"tool_choice": {"type": "custom"}}, "tool_choice.type", "invalid_value"),
    "both forms": ({"functions": [function()]}, "functions", None),
    "an old choice of nothing": ({"tools": None, "function_call": "auto"}, "function_call", None),
    "no JSON Schema in the old form": (
        {"tools": None, "functions": [function(parameters={"required": "x"})]},
        "functions[0].parameters",
        "invalid_function_parameters",
    ),
}


@pytest.mark.parametrize(("sent", "param", "code"), FAULTS.values(), ids=FAULTS.keys())
def test_what_cant_be_is_refused_by_name(server: Server, sent: Json, param: str, code: str | None) -> None:
    """A 400 says which field it is, and nothing goes to Claude."""
    scripted(server)
    with pytest.raises(openai.BadRequestError) as caught:
        create(server, GO, **sent)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert not server.upstream.messages_requests()


@pytest.mark.parametrize("stream", [False, True])
def test_functions_in_their_old_form(serve: ServerFactory, stream: bool) -> None:
    """`functions` and `function_call` work as they did, one call at a time, round by round."""
    server = serve()
    messages: list[Json] = [*GO]
    more: Json = {"tools": None, "functions": [function("get.weather")], "function_call": {"name": "get.weather"}}
    for city in range(2):
        name = native_name("get.weather")
        scripted(server, Reply(tool_calls=[ToolCall(name, {"city": city})]))
        said, reason = _old_answer(server, messages, stream=stream, **more)
        assert (said, reason) == ({"name": "get.weather", "arguments": json.dumps({"city": city})}, "stop")
        body = server.upstream.messages_requests()[-1].body
        assert body["tool_choice"] == {"type": "tool", "name": name, "disable_parallel_tool_use": True}
        messages += [
            {"role": "assistant", "content": None, "function_call": said},
            {"role": "function", "name": "get.weather", "content": f"{city} °C"},
        ]
    more["function_call"] = "auto"
    create(server, messages, **more)
    uses = [block for blocks in seen(server)[1::2] for block in blocks]
    answers = [block for blocks in seen(server)[2::2] for block in blocks]
    assert [use["input"] for use in uses] == [{"city": 0}, {"city": 1}]
    assert answers == [result_block(use["id"], f"{city} °C") for city, use in enumerate(uses)]
    scripted(server, Reply(tool_calls=[ToolCall(native_name("get.weather"), {})]))
    assert _old_answer(server, messages, stream=stream, **more)[1] == "function_call"


def _old_answer(server: Server, messages: Sequence[Json], *, stream: bool, **more: Any) -> tuple[Json, str]:
    """Have a conversation answered by a call in the old form; return it, and why the answer ended."""
    if not stream:
        choice = create(server, messages, **more)[1].choices[0]
        assert choice.message.tool_calls is None
        return choice.message.function_call.model_dump(), choice.finish_reason
    call, reason = {"name": "", "arguments": ""}, ""
    for chunk in completions(server).create(
        model=MODEL, messages=messages, stream=True, **{name: value for name, value in more.items() if value}
    ):
        choice = chunk.choices[0]
        reason = choice.finish_reason or reason
        for name, piece in (choice.delta.function_call.model_dump() if choice.delta.function_call else {}).items():
            call[name] += piece or ""
    return call, reason


def test_arguments_are_json_also_where_there_are_none(server: Server) -> None:
    """A function without parameters is called with `{}`, streamed and whole."""
    scripted(server, *[Reply(tool_calls=[ToolCall("ping", {})])] * 2)
    tools = [tool("ping", {"type": "object", "properties": {}})]
    _, whole = create(server, GO, tools=tools)
    with completions(server).stream(model=MODEL, messages=GO, tools=tools) as stream:
        streamed = stream.get_final_completion()
    for completion in (whole, streamed):
        assert completion.choices[0].message.tool_calls[0].function.arguments == "{}"


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


def test_a_call_that_is_cut_short(serve: ServerFactory) -> None:
    """Where the limit cuts a call, the client is told that, and nothing waits for its result."""
    server = serve()
    scripted(server, calling("weather", stop_reason="max_tokens"))
    _, completion = create(server, GO, max_tokens=7)
    assert completion.choices[0].finish_reason == "length"
    _, completion = create(server, [*GO, *GO])
    assert completion.choices[0].message.content == "Fine."
    assert seen(server) == [[text("Go"), text("Go")]]


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
    others = {process.pid for process in claude_processes()}
    server = serve()
    messages = called(server, "weather")
    for process in claude_processes():
        if process.pid not in others:
            process.kill()
    messages += results(calls_of(messages), "21 °C")
    _, completion = create(server, messages)
    assert completion.choices[0].message.content == "Fine."
    assert seen(server) == expected(messages)
