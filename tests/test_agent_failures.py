"""Turns with Claude Code's own tools that fail between their steps: an honest error, once, and nothing goes on."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from agent_requests import ask, bodies, results, trying
from chat import MODEL, sse_data
from commands import command_of, descendants, linux, wait_until
from conftest import ServerFactory
from demo_upstream import Reply, ToolCall

LOOK = ToolCall("Glob", {"pattern": "*"})


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (Reply(status=500), 500),
        (Reply(status=529), 503),
        (Reply(text="It is a long way.", cut_after=2), 502),
        (Reply(text="It is a long way.", error_after=2), 503),
    ],
    ids=["500", "529", "cut", "error in the stream"],
)
def test_a_step_that_fails_is_an_error(serve: ServerFactory, failure: Reply, status: int) -> None:
    """With its own status, or as a stream's last event; nobody asks for the step again."""
    server = serve()
    for stream in (False, True):
        server.upstream.reset()
        server.upstream.script(Reply(text="I look.", tool_calls=[LOOK]))
        server.upstream.script(failure)
        answer = ask(server, stream=stream)
        last = json.loads(sse_data(answer)[-1]) if stream else answer.json()
        assert last["error"]["code"] == "upstream_error"
        assert stream or (answer.status_code, answer.headers["x-should-retry"]) == (status, "false")
        assert len(bodies(server)) == 2


def test_an_api_that_cant_stream_is_told_of(serve: ServerFactory) -> None:
    """Steps can't be told apart there: that is an error and no answer, once tools are called; without any it works."""
    server = serve()
    for stream in (False, True):
        server.upstream.reset()
        server.upstream.script(Reply(status=404), when=lambda body: bool(body["stream"]), times=None)
        server.upstream.script(Reply(text="In one piece."))
        assert "In one piece." in ask(server, stream=stream).text
        server.upstream.script(Reply(text="I look.", tool_calls=[LOOK]))
        answer = ask(server, stream=stream)
        assert answer.status_code == 502
        assert "can't stream" in answer.json()["error"]["message"]


@linux
def test_a_command_that_takes_too_long_is_stopped(serve: ServerFactory) -> None:
    """MAX_TIMEOUT holds for all steps together; the command's processes are gone, and the next request is served."""
    server = serve(claude_allowed_tools=("Bash",), claude_sandbox="off", max_timeout=8000, spare_processes=0)
    trying(server, ToolCall("Bash", {"command": "tail -f /dev/null /dev/null", "description": "Wait"}))
    answer = ask(server)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    tail = ["tail", "-f", "/dev/null", "/dev/null"]
    wait_until(lambda: tail not in map(command_of, descendants()))
    trying(server)
    assert ask(server).status_code == 200


def test_a_session_whose_client_has_left_is_alone_in_its_directory(serve: ServerFactory, tmp_path: Path) -> None:
    """What its command still did has ended before the next turn begins, though that is asked for at once."""
    server = serve(workspaces_dir=tmp_path / "workspaces", claude_allowed_tools=("Bash",), claude_sandbox="off")
    trying(server)
    assert ask(server, session_id="one").status_code == 200
    (files,) = tmp_path.glob("workspaces/*/files")
    writing = "while true; do echo x >> log; sleep 0.01; done"
    trying(server, ToolCall("Bash", {"command": writing, "description": "Write"}))
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Go"}], "enable_tools": True, "session_id": "one"}
    with (
        httpx.Client(timeout=30) as client,
        client.stream("POST", f"{server.url}/v1/chat/completions", json={**body, "stream": True}),
    ):
        wait_until((files / "log").exists)
    looking = "wc -c < log; sleep 0.3; wc -c < log"
    trying(server, ToolCall("Bash", {"command": looking, "description": "Look"}))
    assert ask(server, session_id="one").status_code == 200
    before, after = results(server)[0].split("\n")[:2]
    assert (before.isdigit(), before) == (True, after)


def test_turns_of_a_session_come_one_after_the_other(serve: ServerFactory) -> None:
    """Also where they have tools: each finds what the one before has left."""
    server = serve()
    trying(server)
    with ThreadPoolExecutor() as threads:
        asking = [threads.submit(ask, server, session_id="one") for _ in range(3)]
        assert [each.result().status_code for each in asking] == [200, 200, 200]
    assert sorted(len(body["messages"]) for body in bodies(server)) == [1, 3, 5]
    assert httpx.get(f"{server.url}/v1/sessions/one").json()["turn_count"] == 3
