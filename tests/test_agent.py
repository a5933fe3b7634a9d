"""Claude Code's own tools, through the real app and the real CLI: who gets which, and how an answer tells of them."""

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from agent_requests import QUESTION, ask, bodies, events_of, offered, results, trying
from auth import hash_key
from chat import MODEL, chunks, post
from commands import wait_until
from conftest import Server, ServerFactory
from demo_upstream import Gate, Reply, ToolCall

Json = dict[str, Any]

LOOK = ToolCall("Glob", {"pattern": "*"})
READ = ToolCall("Read", {"file_path": "harbour.txt"})
WRITE = ToolCall("Write", {"file_path": "new.txt", "content": "new"})
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


@pytest.fixture
def server(serve: ServerFactory, place: Path) -> Server:
    """A server whose operator lets Claude read in that directory."""
    return serve(claude_cwd=place)


def test_the_files_of_a_directory_are_found(server: Server) -> None:
    """A client of OpenAI's asks with one field more; Claude looks around, and the whole answer is its last words."""
    trying(server, LOOK, READ, last="One: harbour.txt.")
    raw = server.client().chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": QUESTION}], extra_body={"enable_tools": True}
    )
    assert raw.parse().choices[0].message.content == "One: harbour.txt."
    assert raw.headers["x-claude-turns"] == "3"
    assert offered(server) == ["Glob", "Grep", "Read"]
    assert "harbour.txt" in results(server, 1)[0]
    assert "The ferry leaves at noon." in results(server, 2)[0]


def test_without_the_field_there_are_no_tools(server: Server) -> None:
    """Not if it is false, either; and the model sees nothing but what the client sent."""
    for wanted in (None, False):
        server.upstream.reset()
        assert ask(server, enable_tools=wanted).status_code == 200
        assert offered(server) == []
        assert len(server.upstream.messages_requests()[0].body["system"]) == 2


def test_the_clients_prompt_stands_behind_claude_codes(server: Server) -> None:
    """Claude Code is told how to use its tools; what the client says follows, and nothing of other conversations."""
    trying(server)
    messages = [{"role": "system", "content": "You are a harbour master."}, {"role": "user", "content": QUESTION}]
    assert ask(server, messages=messages).status_code == 200
    body = server.upstream.messages_requests()[0].body
    system = "".join(block["text"] for block in body["system"])
    assert system.endswith("You are a harbour master.")
    assert len(system) > 1000
    assert "auto memory" not in system
    assert body["messages"][-1]["content"][-1]["text"] == QUESTION


def test_a_history_goes_before_the_question(server: Server) -> None:
    """As natively as without tools."""
    trying(server, LOOK)
    history = [{"role": "user", "content": "One"}, {"role": "assistant", "content": "Uno"}]
    assert ask(server, messages=[*history, {"role": "user", "content": "Two"}]).status_code == 200
    messages = server.upstream.messages_requests()[0].body["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"][0]["text"] == "Uno"


def test_a_stream_has_the_text_of_every_step(server: Server) -> None:
    """Steps stand apart, and of the tools nothing is told to those who don't ask."""
    trying(server, LOOK, READ)
    answer = chunks(ask(server, stream=True))
    deltas = [chunk["choices"][0]["delta"] for chunk in answer]
    assert "".join(delta.get("content") or "" for delta in deltas) == "Step 1.\n\nStep 2.\n\nDone."
    assert not any("claude_event" in delta for delta in deltas)


def test_a_stream_tells_of_tools_where_it_is_asked_to(server: Server) -> None:
    """Each call begins, has its input, and ends with a summary of its result, an error, or why it was denied."""
    outside = ToolCall("Read", {"file_path": "/etc/passwd"}, id="toolu_outside")
    missing = ToolCall("Read", {"file_path": "missing.txt"}, id="toolu_missing")
    trying(server, [ToolCall("Read", {"file_path": "harbour.txt"}, id="toolu_inside"), outside, missing])
    events = events_of(chunks(ask(server, {"X-Claude-Events": "true"}, stream=True)))
    of_call = {
        call: [event for event in events if event["id"] == f"toolu_{call}"] for call in ("inside", "outside", "missing")
    }
    assert of_call["inside"] == [
        {"type": "tool_started", "id": "toolu_inside", "name": "Read"},
        {"type": "tool_input", "id": "toolu_inside", "name": "Read", "input": {"file_path": "harbour.txt"}},
        {
            "type": "tool_result",
            "id": "toolu_inside",
            "name": "Read",
            "summary": "1\tThe ferry leaves at noon.",
            "is_error": False,
        },
    ]
    assert of_call["outside"][-1]["type"] == "tool_denied"
    assert of_call["outside"][-1]["reason"] == "it is outside the working directory"
    assert (of_call["missing"][-1]["type"], of_call["missing"][-1]["is_error"]) == ("tool_result", True)


def test_tokens_and_cost_are_those_of_all_steps(server: Server) -> None:
    """Each step is a request to Claude, and is paid for."""
    one_step = Reply(text="Done.", usage={"input_tokens": 1000, "output_tokens": 100})
    looking = Reply(tool_calls=[LOOK], usage={"input_tokens": 1000, "output_tokens": 100})
    server.upstream.reset()
    for reply in (looking, looking, one_step):
        server.upstream.script(reply)
    three = ask(server, {"X-Claude-Usage": "full"})
    usage = three.json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (3000, 300)
    server.upstream.script(one_step)
    one = ask(server)
    ratio = float(three.headers["x-claude-cost-usd"]) / float(one.headers["x-claude-cost-usd"])
    assert ratio == pytest.approx(3)
    assert usage["claude"]["cost_usd"] == pytest.approx(float(three.headers["x-claude-cost-usd"]))


def test_what_was_spent_is_told_where_an_answer_is_cut_off(server: Server) -> None:
    """Claude Code would go on by itself, and is stopped: the steps before cost what they cost."""
    usage = {"input_tokens": 1000, "output_tokens": 100}
    found: dict[str, float] = {}
    for stop_reason, finish_reason in (("end_turn", "stop"), ("max_tokens", "length")):
        server.upstream.reset()
        server.upstream.script(Reply(tool_calls=[LOOK], usage=usage))
        server.upstream.script(Reply(text="It is a long", stop_reason=stop_reason, usage=usage))
        server.upstream.script(Reply(hang=True))
        answer = ask(server)
        assert answer.json()["choices"][0]["finish_reason"] == finish_reason
        found[stop_reason] = float(answer.headers["x-claude-cost-usd"])
    assert found["end_turn"] == pytest.approx(found["max_tokens"])
    # It may have asked once more, but nobody answers that.
    server.upstream.wait_for(lambda upstream: all(each.completed or each.disconnected for each in upstream.requests))
    assert sum(each.completed for each in server.upstream.messages_requests()) == 2


@pytest.mark.parametrize("header", [("X-Claude-Max-Turns", "2"), ("X-Claude-Max-Budget-USD", "0.0000001")], ids=str)
@pytest.mark.parametrize("stream", [False, True])
def test_limits_end_an_answer(server: Server, header: tuple[str, str], stream: bool) -> None:
    """As many turns, or dollars, as a header says: then the answer ends as one that got too long."""
    trying(server, LOOK, LOOK, LOOK, LOOK)
    answer = ask(server, dict([header]), stream=stream)
    assert answer.status_code == 200
    last = chunks(answer)[-1] if stream else answer.json()
    assert last["choices"][0]["finish_reason"] == "length"
    steps = len(server.upstream.messages_requests())
    assert steps == (2 if header[0] == "X-Claude-Max-Turns" else 1)
    assert stream or answer.headers["x-claude-turns"] == str(steps)


def test_the_operators_limits_cant_be_raised(serve: ServerFactory, place: Path) -> None:
    """A header that asks for more changes nothing."""
    server = serve(claude_cwd=place, claude_max_turns=1, claude_max_budget_usd=0.5)
    trying(server, LOOK, LOOK)
    answer = ask(server, {"X-Claude-Max-Turns": "10", "X-Claude-Max-Budget-USD": "100"})
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    assert len(server.upstream.messages_requests()) == 1


@pytest.mark.parametrize(
    ("headers", "names"),
    [
        ({}, ["Glob", "Grep", "Read", "Write"]),
        ({"X-Claude-Allowed-Tools": "Read, Write"}, ["Read", "Write"]),
        ({"X-Claude-Allowed-Tools": ""}, []),
        ({"X-Claude-Disallowed-Tools": "Write,Bash"}, ["Glob", "Grep", "Read"]),
        ({"X-Claude-Allowed-Tools": "Read,Write", "X-Claude-Disallowed-Tools": "Write"}, ["Read"]),
    ],
    ids=str,
)
def test_headers_narrow_the_tools(
    serve: ServerFactory, place: Path, headers: Mapping[str, str], names: list[str]
) -> None:
    """What the operator allows, less what a request doesn't want, is what the model is offered."""
    server = serve(claude_cwd=place, claude_allowed_tools=("Read", "Glob", "Grep", "Write"))
    trying(server)
    assert ask(server, headers).status_code == 200
    assert offered(server) == names


def test_headers_that_come_twice_count_together(serve: ServerFactory, place: Path) -> None:
    """None of what is taken away is lost; where there can be one value, two are an error."""
    server = serve(claude_cwd=place, claude_allowed_tools=("Read", "Glob", "Grep"))
    body = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "enable_tools": True}
    found: dict[str, int | list[str]] = {}
    for name, values in (("X-Claude-Disallowed-Tools", ("Read", "Glob")), ("X-Claude-Max-Turns", ("1", "2"))):
        trying(server)
        headers = [(name, value) for value in values]
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=30)
        found[name] = offered(server) if answer.status_code == 200 else answer.status_code
    assert found == {"X-Claude-Disallowed-Tools": ["Grep"], "X-Claude-Max-Turns": 400}


def test_asking_for_more_than_is_allowed_is_refused(server: Server) -> None:
    """A 403 that names the tool, before anything is asked."""
    for headers in ({"X-Claude-Allowed-Tools": "Read,Bash"}, {"X-Claude-Allowed-Tools": "Bash"}):
        answer = ask(server, headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "tool_not_allowed")
        assert "'Bash'" in answer.json()["error"]["message"]
    answer = ask(server, {"X-Claude-Permission-Mode": "bypassPermissions"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_mode")
    assert not server.upstream.messages_requests()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Claude-Max-Turns", "0"),
        ("X-Claude-Max-Turns", "many"),
        ("X-Claude-Max-Turns", "-1"),
        ("X-Claude-Max-Turns", "1.5"),
        ("X-Claude-Max-Budget-USD", "0"),
        ("X-Claude-Max-Budget-USD", "nan"),
        ("X-Claude-Max-Budget-USD", "1e3"),
        ("X-Claude-Max-Budget-USD", "-0.1"),
        ("X-Claude-Permission-Mode", "godmode"),
        ("X-Claude-Allowed-Tools", "Read,rm"),
        ("X-Claude-Allowed-Tools", "Read(/etc/**)"),
        ("X-Claude-Allowed-Tools", "mcp__"),
        ("X-Claude-Disallowed-Tools", "Raed"),
        ("X-Claude-Events", "yes, please"),
        ("X-Claude-MCP-Servers", "nobody"),
    ],
)
def test_bad_headers_are_an_error_that_names_them(server: Server, name: str, value: str) -> None:
    """A 400, and nothing is asked."""
    answer = ask(server, {name: value})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] in ("invalid_header", "unknown_mcp_server")
    assert name in answer.json()["error"]["message"] or value in answer.json()["error"]["message"]
    assert not server.upstream.messages_requests()


def test_headers_without_tools_are_named_as_ignored(serve: ServerFactory) -> None:
    """They mean nothing then, and a strict server refuses them."""
    headers = {"X-Claude-Max-Turns": "3", "X-Claude-Permission-Mode": "plan"}
    answer = ask(serve(), headers, enable_tools=False)
    assert answer.headers["x-claude-ignored-params"] == "X-Claude-Max-Turns, X-Claude-Permission-Mode"
    refused = ask(serve(strict_parameters=True), headers, enable_tools=False)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_header")


@pytest.mark.parametrize("mode", ["default", "acceptEdits", "dontAsk", "plan"])
def test_in_plan_mode_nothing_is_written(serve: ServerFactory, place: Path, mode: str) -> None:
    """Whatever the operator allows; in the other modes that is what counts."""
    server = serve(claude_cwd=place, claude_allowed_tools=("Read", "Write"))
    trying(server, WRITE)
    assert ask(server, {"X-Claude-Permission-Mode": mode}).status_code == 200
    assert (place / "new.txt").exists() == (mode != "plan")
    assert ("in plan mode" in results(server)[0]) == (mode == "plan")
    assert ("Plan mode is active" in json.dumps(server.upstream.messages_requests()[0].body)) == (mode == "plan")


def test_keys_say_who_may_use_tools(serve: ServerFactory, place: Path, tmp_path: Path) -> None:
    """None, the ones that the operator allows to all, or a key's own list, which may have more in it."""
    entries = {"none": "", "all": "tools = true", "own": 'tools = ["Read", "Bash"]'}
    text = "\n".join(f'[keys.{name}]\nhash = "sha256:{hash_key(name)}"\n{rest}' for name, rest in entries.items())
    (tmp_path / "keys.toml").write_text(text)
    server = serve(claude_cwd=place, api_keys_file=tmp_path / "keys.toml", api_key="owner")
    found: dict[str, list[str] | int] = {}
    for name in ("none", "all", "own", "owner"):
        trying(server)
        answer = ask(server, {"Authorization": f"Bearer {name}"})
        found[name] = offered(server) if answer.status_code == 200 else answer.status_code
    reading = ["Glob", "Grep", "Read"]
    assert found == {"none": 403, "all": reading, "own": ["Bash", "Read"], "owner": reading}


def test_whoever_may_reach_a_port_without_keys_has_no_tools(serve: ServerFactory) -> None:
    """Only on an address of this machine alone is everyone the operator."""
    server = serve(host="0.0.0.0")  # noqa: S104 - a setting; the test serves it on loopback
    answer = ask(server)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied")


def test_every_request_has_an_empty_directory_by_default(serve: ServerFactory) -> None:
    """Its own, which is gone afterwards: what one has written there no other finds, and no file of the server's is."""
    server = serve(claude_allowed_tools=("Glob", "Write"), spare_processes=0)
    trying(server, LOOK, WRITE, LOOK)
    assert ask(server).status_code == 200
    assert "No files found" in results(server, 1)[0]
    assert "new.txt" in results(server, 3)[0]
    first = _directory(bodies(server)[0])
    trying(server, LOOK)
    assert ask(server).status_code == 200
    assert "No files found" in results(server)[0]
    second = _directory(bodies(server)[0])
    assert first != second
    wait_until(lambda: not Path(first).exists() and not Path(second).exists())


def _directory(body: Json) -> str:
    """Where Claude Code says that it works."""
    environment = body["messages"][0]["content"][0]["text"]
    (line,) = [line for line in environment.splitlines() if "Primary working directory" in line]
    return str(line.partition(": ")[2])


def test_a_process_with_tools_serves_one_conversation(serve: ServerFactory, place: Path) -> None:
    """Neither goes another conversation on in it, nor the same."""
    server = serve(claude_cwd=place, spare_processes=0)
    trying(server)
    first = ask(server)
    message = first.json()["choices"][0]["message"]
    messages = [{"role": "user", "content": QUESTION}, message, {"role": "user", "content": "And now?"}]
    origins = [first, ask(server), ask(server, messages=messages), post(server, model=MODEL, messages=messages)]
    assert [answer.headers["x-claude-process"] for answer in origins] == ["spawned"] * 4


def test_a_turn_whose_tools_have_acted_isnt_tried_again(serve: ServerFactory, place: Path) -> None:
    """A process that dies in mid-turn is an error: what was done once must not be done twice."""
    server = serve(claude_cwd=place, claude_allowed_tools=("Bash",), claude_sandbox="off", spare_processes=0)
    trying(server, ToolCall("Bash", {"command": "echo once >> done.txt; kill -9 $CLAUDE_PID", "description": "Do"}))
    answer = ask(server)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "claude_code_error")
    assert answer.headers["x-should-retry"] == "false"
    assert (place / "done.txt").read_text() == "once\n"
    assert len(server.upstream.messages_requests()) == 1


def test_clients_are_told_not_to_try_again_what_has_acted(server: Server) -> None:
    """An overloaded API is worth another try, but not once a tool has been called."""
    for steps, should_retry in ((list[ToolCall](), "true"), ([LOOK], "false")):
        server.upstream.reset()
        for step in steps:
            server.upstream.script(Reply(tool_calls=[step]))
        server.upstream.script(Reply(status=529))
        answer = ask(server)
        assert (answer.status_code, answer.headers["x-should-retry"]) == (503, should_retry)


@pytest.mark.parametrize("place_of_it", [".", "$CLAUDE_CODE_TMPDIR"])
def test_a_command_that_fills_the_disk_is_stopped(serve: ServerFactory, place_of_it: str) -> None:
    """What one writes is seen while it writes: its request ends with an error that says so."""
    server = serve(claude_allowed_tools=("Bash",), claude_sandbox="off", workspace_max_mb=1, spare_processes=0)
    command = f"dd if=/dev/zero of={place_of_it}/big bs=1M count=3 2>/dev/null; tail -f /dev/null"
    trying(server, ToolCall("Bash", {"command": command, "description": "Fill"}))
    answer = ask(server)
    assert answer.status_code == 502
    assert "written more than this server allows" in answer.json()["error"]["message"]


def test_commands_end_with_their_request(serve: ServerFactory, place: Path) -> None:
    """When its client leaves, what it has started is stopped, however deep."""
    server = serve(claude_cwd=place, claude_allowed_tools=("Bash",), claude_sandbox="off", spare_processes=0)
    command = "echo $$ > pid; sleep 300 & echo $! > child; wait"
    trying(server, ToolCall("Bash", {"command": command, "description": "Wait"}))
    with streaming(server):
        pids = [int(_content(place / name)) for name in ("pid", "child")]
        processes = [psutil.Process(pid) for pid in pids]
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive


def _content(path: Path) -> str:
    """Wait until a command has written a file, of which nobody is told."""
    wait_until(lambda: path.exists() and bool(path.read_text()))
    return path.read_text()


@contextmanager
def streaming(server: Server) -> Generator[Iterator[str], None, None]:
    """Ask for a stream; yields its lines, and leaves at the end."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "enable_tools": True, "stream": True}
    with (
        httpx.Client(timeout=30) as client,
        client.stream("POST", f"{server.url}/v1/chat/completions", json=body) as response,
    ):
        yield response.iter_lines()


def test_a_gap_between_steps_is_no_silence(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a step waits, the client has what was written before, and comments keep its connection alive."""
    monkeypatch.setattr("chat_routes._PING_SECONDS", 0.05)
    gate = Gate(after=0)
    server.upstream.reset()
    server.upstream.script(Reply(text="I look.", tool_calls=[LOOK]))
    server.upstream.script(Reply(text="Done.", gate=gate))
    with streaming(server) as lines:
        assert any("look." in line for line in lines)
        gate.reached()
        assert any(line == ": ping" for line in lines)
        gate.open()
        assert any("[DONE]" in line for line in lines)
