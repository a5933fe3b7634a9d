"""What a client says of its functions, through the real app and CLI: definitions, names, choices, and the old form."""

import json
import re
from collections.abc import Sequence
from typing import Any

import openai
import pytest

from client_functions import native_name
from conftest import Server, ServerFactory
from demo_upstream import Reply, ToolCall
from function_calls import (
    GO,
    MODEL,
    Json,
    called,
    calling,
    calls_of,
    completions,
    create,
    native,
    result_block,
    results,
    scripted,
    seen,
    tool,
)


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
