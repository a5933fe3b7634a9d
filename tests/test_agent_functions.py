"""Claude Code's own tools together with what else a request may ask for: functions, and the form of the answer."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_requests import QUESTION, ask, bodies, events_of, offered, results, trying
from chat import chunks
from conftest import Server, ServerFactory
from demo_upstream import Reply, ToolCall
from function_calls import needs_reuse, tool

Json = dict[str, Any]

LOOK = ToolCall("Glob", {"pattern": "*"})
READ = ToolCall("Read", {"file_path": "harbour.txt"})
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


@pytest.fixture
def server(serve: ServerFactory, place: Path) -> Server:
    """A server whose operator lets Claude read in that directory."""
    return serve(claude_cwd=place)


@needs_reuse
def test_functions_of_the_client_are_called_beside_them(server: Server) -> None:
    """A turn that calls one waits for the client, and goes on where it was, with all that its own tools have found."""
    server.upstream.reset()
    city = ToolCall("weather", {"city": "Zürich"}, id="toolu_city")
    for reply in (Reply(text="I look.", tool_calls=[READ]), Reply(text="And ask.", tool_calls=[LOOK, city])):
        server.upstream.script(reply)
    server.upstream.script(Reply(text="And read.", tool_calls=[READ]))
    server.upstream.script(Reply(text="At noon, in the sun."))
    tools = [tool()]
    asked = ask(server, tools=tools)
    message = asked.json()["choices"][0]["message"]
    assert asked.json()["choices"][0]["finish_reason"] == "tool_calls"
    assert message["content"] == "And ask."
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["weather"]
    assert [each for each in bodies(server)[0]["tools"] if each["name"] == "weather"] == [
        {"name": "weather", "description": "Ours.", "input_schema": tool()["function"]["parameters"]}
    ]
    question = {"role": "user", "content": QUESTION}
    result = {"role": "tool", "tool_call_id": "toolu_city", "content": "sunny"}
    answer = ask(server, tools=tools, messages=[question, message, result])
    assert answer.json()["choices"][0]["message"]["content"] == "At noon, in the sun."
    assert (answer.headers["x-claude-process"], answer.headers["x-claude-turns"]) == ("adopted", "2")
    assert len(bodies(server)) == 4
    assert sorted(each.split("\n")[0] for each in results(server, 2)) == ["harbour.txt", "sunny"]


@needs_reuse
def test_what_came_of_a_tool_is_told_after_a_function_was_called(server: Server) -> None:
    """Where both are called at once, the result belongs to the request that goes on, and is counted."""
    server.upstream.reset()
    look = ToolCall("Glob", {"pattern": "*"}, id="toolu_look")
    asking = ToolCall("weather", {"city": "Zürich"}, id="toolu_city")
    server.upstream.script(Reply(text="Both.", tool_calls=[look, asking]))
    server.upstream.script(Reply(text="Sunny."))
    headers = {"X-Claude-Events": "true"}
    first = events_of(chunks(ask(server, headers, stream=True, tools=[tool()])))
    function = {"name": "weather", "arguments": '{"city": "Zürich"}'}
    messages = [
        {"role": "user", "content": QUESTION},
        {
            "role": "assistant",
            "content": "Both.",
            "tool_calls": [{"id": "toolu_city", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "toolu_city", "content": "sunny"},
    ]
    second = events_of(chunks(ask(server, headers, stream=True, tools=[tool()], messages=messages)))
    assert [event["type"] for event in first] == ["tool_started", "tool_input"]
    assert [(event["type"], event["id"]) for event in second] == [("tool_result", "toolu_look")]
    counted = httpx.get(f"{server.url}/v1/tools/stats").json()["tools"]
    assert counted == {"Glob": {"calls": 1, "succeeded": 1, "failed": 0, "denied": 0}}


@needs_reuse
def test_a_streamed_turn_goes_on_as_well(server: Server) -> None:
    """There the client has got the text of every step, and gives it back so."""
    server.upstream.reset()
    server.upstream.script(Reply(text="I look.", tool_calls=[LOOK]))
    server.upstream.script(
        Reply(text="And ask.", tool_calls=[ToolCall("weather", {"city": "Zürich"}, id="toolu_city")])
    )
    server.upstream.script(Reply(text="Sunny."))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks(ask(server, stream=True, tools=[tool()]))]
    text = "".join(delta.get("content") or "" for delta in deltas)
    assert text == "I look.\n\nAnd ask."
    function = {"name": "weather", "arguments": '{"city": "Zürich"}'}
    call = {"id": "toolu_city", "type": "function", "function": function}
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": text, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "toolu_city", "content": "sunny"},
    ]
    answer = ask(server, tools=[tool()], messages=messages)
    assert answer.headers["x-claude-process"] == "adopted"
    assert answer.json()["choices"][0]["message"]["content"] == "Sunny."


def test_results_may_reach_another_process(serve: ServerFactory, place: Path) -> None:
    """Where the one that waited is gone, another takes up what the client has of the conversation."""
    server = serve(claude_cwd=place, process_reuse="off")
    server.upstream.script(Reply(text="I ask.", tool_calls=[ToolCall("weather", {"city": "Zürich"}, id="toolu_city")]))
    server.upstream.script(Reply(text="I look.", tool_calls=[LOOK]))
    server.upstream.script(Reply(text="Sunny."))
    message = ask(server, tools=[tool()]).json()["choices"][0]["message"]
    question = {"role": "user", "content": QUESTION}
    result = {"role": "tool", "tool_call_id": "toolu_city", "content": "sunny"}
    answer = ask(server, tools=[tool()], messages=[question, message, result])
    assert answer.headers["x-claude-process"] != "adopted"
    assert answer.json()["choices"][0]["message"]["content"] == "Sunny."
    assert results(server, 1)[0].startswith("sunny")


@needs_reuse
def test_what_has_acted_isnt_tried_again_when_results_come(serve: ServerFactory, place: Path) -> None:
    """A process that dies where it goes on is an error: what it has done before must not be done twice."""
    server = serve(claude_cwd=place, claude_allowed_tools=("Bash",), claude_sandbox="off")
    server.upstream.reset()
    bash = {"command": "echo once >> done.txt", "description": "Do"}
    server.upstream.script(Reply(text="I do.", tool_calls=[ToolCall("Bash", bash)]))
    server.upstream.script(Reply(text="I ask.", tool_calls=[ToolCall("weather", {"city": "Zürich"}, id="toolu_city")]))
    dying = {"command": "kill -9 $CLAUDE_PID", "description": "Die"}
    server.upstream.script(Reply(text="I die.", tool_calls=[ToolCall("Bash", dying)]))
    message = ask(server, tools=[tool()]).json()["choices"][0]["message"]
    question = {"role": "user", "content": QUESTION}
    result = {"role": "tool", "tool_call_id": "toolu_city", "content": "sunny"}
    answer = ask(server, tools=[tool()], messages=[question, message, result])
    assert (answer.status_code, answer.headers["x-should-retry"]) == (502, "false")
    assert (place / "done.txt").read_text() == "once\n"
    assert len(bodies(server)) == 3


def test_functions_arent_strict_beside_them(server: Server) -> None:
    """Claude Code tells Claude of them, and knows nothing of that: so it is named in the header."""
    trying(server)
    answer = ask(server, tools=[tool(strict=True)])
    assert answer.headers["x-claude-ignored-params"] == "tools.function.strict"
    assert "strict" not in json.dumps(bodies(server)[0]["tools"])


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_has_the_form_that_is_asked_for(server: Server, stream: bool) -> None:
    """What is said between the calls is not in it."""
    server.upstream.reset()
    server.upstream.script(Reply(text="I look.", tool_calls=[LOOK]))
    server.upstream.script(Reply(text="So.", tool_calls=[ToolCall("StructuredOutput", {"n": 1})]))
    form = {"type": "json_schema", "json_schema": {"name": "count", "schema": SCHEMA}}
    answer = ask(server, stream=stream, response_format=form)
    assert "StructuredOutput" in offered(server, 0)
    if stream:
        text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks(answer))
    else:
        text = answer.json()["choices"][0]["message"]["content"]
    assert json.loads(text) == {"n": 1}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [tool()], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [tool("Read")]}, "tools[0].function.name"),
        ({"tools": [tool("mcp__x__y")]}, "tools[0].function.name"),
        ({"enable_tools": "yes"}, "enable_tools"),
    ],
    ids=str,
)
def test_what_doesnt_go_with_them_is_refused(server: Server, fields: Json, param: str) -> None:
    """By its name."""
    answer = ask(server, **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert not server.upstream.messages_requests()


def test_functions_that_mustnt_be_called_arent_offered(server: Server) -> None:
    """With `tool_choice: none` Claude Code's own tools are there all the same."""
    trying(server, LOOK)
    assert ask(server, tools=[tool()], tool_choice="none").status_code == 200
    assert offered(server) == ["Glob", "Grep", "Read"]
