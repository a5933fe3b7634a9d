"""The log: its two forms, a line for each request, and what never gets into it."""

import json
import logging
import re
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.contextvars import get_contextvars

from chat import HELLO
from commands import CHAT, Command, Start, claude_processes, wait_until
from conftest import REPOSITORY, Server, ServerFactory
from content_log import allow_content
from demo_upstream import DemoUpstream, Gate, Reply, ToolCall
from log_lines import logging_server
from server_log import of_no_request, of_request, start_logging
from test_clients_that_leave import Client

OF_ALL = {"timestamp", "level", "logger", "event"}
OF_A_REQUEST = OF_ALL | {"request_id", "method", "path", "client", "status", "duration_ms", "outcome"}
OF_A_COMPLETION = OF_A_REQUEST | {
    *("model", "answered_by", "stream", "in_session", "process_origin", "overhead_ms", "first_event_ms"),
    *("prompt_tokens", "completion_tokens", "cost_usd"),
}


def stopped(command: Command) -> list[dict[str, Any]]:
    """Stop a server; return the lines of its log that are left, all of them JSON."""
    command.process.send_signal(signal.SIGTERM)
    output, _ = command.process.communicate(timeout=40)
    return [json.loads(line) for line in output.splitlines() if line]


def logged(caplog: pytest.LogCaptureFixture, number: int = 1) -> list[dict[str, Any]]:
    """The fields of the lines of requests, when there are so many: a line comes behind its answer."""

    def lines() -> list[dict[str, Any]]:
        return [vars(record) for record in caplog.records if record.getMessage() == "request"]

    wait_until(lambda: len(lines()) >= number)
    return lines()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log, from INFO on."""
    with caplog.at_level(logging.INFO):
        yield caplog


# A line a request


def test_a_completions_line_tells_what_it_was(start: Start) -> None:
    """Who, what, how long, how many tokens and dollars; nothing of what was said; and every line is JSON."""
    command = start("main.py", "0", "--demo", LOG_FORMAT="json", LOG_LEVEL="DEBUG")
    url = command.url()
    for stream in (False, True):
        answer = httpx.post(f"{url}/v1/chat/completions?key=hidden", json={**CHAT, "stream": stream}, timeout=60)
        line = command.next_request()
        assert set(line) == OF_A_COMPLETION
        assert line["request_id"] == answer.headers["x-request-id"]
        assert (line["status"], line["outcome"], line["path"]) == (200, "completed", "/v1/chat/completions")
        assert (line["model"], line["answered_by"], line["stream"]) == (CHAT["model"], CHAT["model"], stream)
    assert all(set(line) >= OF_ALL for line in stopped(command))
    assert "Hello" not in "".join(command.lines)
    assert "hidden" not in "".join(command.lines)


def test_a_process_that_we_end_is_no_error(upstream: DemoUpstream, api_key_environment: Mapping[str, str]) -> None:
    """As after a call of a function that nobody offered, which Claude Code would ask the model about."""
    upstream.script(Reply(tool_calls=[ToolCall("nobodys", {})]))
    with logging_server(api_key_environment, SPARE_PROCESSES="0") as server:
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=CHAT, timeout=60)
        assert answer.status_code == 200
        wait_until(lambda: not claude_processes(server.program.pid))
        server.line_of(answer.headers["x-request-id"])
    assert {line["level"] for line in server.lines()} <= {"info", "warning"}


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/v1/chat/completions", 401, "invalid_request_error"),
        ("GET", "/health", 200, None),
    ],
)
def test_each_request_has_a_line(  # noqa: PLR0917 - what pytest passes has names
    serve: ServerFactory, log: pytest.LogCaptureFixture, method: str, path: str, status: int, error: str | None
) -> None:
    """Also the one that no route takes, or that shows no key."""
    httpx.request(method, f"{serve(api_key='a-key').url}{path}")
    (line,) = logged(log)
    assert (line["method"], line["path"], line["status"], line.get("error")) == (method, path, status, error)
    assert line["outcome"] == ("failed" if error else "completed")


@pytest.mark.parametrize(
    ("path", "told"),
    [("/v1/models%3Fkey=KEY", "/v1…"), ("/v1/models;key=KEY", "/v1…"), ("/a;KEY", "/…"), ("/v2", "/v2")],
)
def test_a_path_that_none_takes_is_told_by_its_begin(
    server: Server, log: pytest.LogCaptureFixture, path: str, told: str
) -> None:
    """There may be a key in it, as where a query's mark is encoded."""
    httpx.get(f"{server.url}{path}")
    assert [line["path"] for line in logged(log)] == [told]


def test_a_failure_of_ours_is_a_warning(serve: ServerFactory, log: pytest.LogCaptureFixture) -> None:
    """As a status, or in a stream whose status was out already; a client's fault is none."""
    server = serve()
    server.upstream.script(Reply(status=500))
    bodies: list[dict[str, Any]] = [{}, {"messages": []}]
    for body in bodies:
        httpx.post(f"{server.url}/v1/chat/completions", json={**CHAT, **body}, timeout=60)
    server.upstream.script(Reply(text=["One ", "two"], error_after=1))
    httpx.post(f"{server.url}/v1/chat/completions", json={**CHAT, "stream": True}, timeout=60)
    told = [(line["levelname"], line["status"], line["error"]) for line in logged(log, 3)]
    assert told == [
        ("WARNING", 500, "upstream_error"),
        ("INFO", 400, "empty_array"),
        ("WARNING", 200, "upstream_error"),
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_has_a_line(server: Server, log: pytest.LogCaptureFixture, stream: bool) -> None:
    """Its outcome says that its client left."""
    gate = Gate(after=1)
    server.upstream.script(Reply(text=["One ", "two"], gate=gate))
    client = Client(server, stream=stream)
    gate.reached()
    client.hang_up()
    server.upstream.wait_for(lambda upstream: upstream.messages_requests()[0].disconnected)
    httpx.get(f"{server.url}/health")
    assert [line["outcome"] for line in logged(log, 2)] == ["client_left", "completed"]


def test_the_keys_name_is_told(serve: ServerFactory, log: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """The name that the operator gave it, and never the key."""
    keys = tmp_path / "keys.toml"
    keys.write_text('[keys.anna]\nhash = "sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683"\n')
    server = serve(api_keys_file=keys)
    assert httpx.get(f"{server.url}/version", headers={"Authorization": "Bearer key"}).status_code == 200
    assert [line["key"] for line in logged(log)] == ["anna"]


# Content


@pytest.mark.parametrize("log_prompts", [False, True])
def test_only_log_prompts_lets_content_in(server: Server, log: pytest.LogCaptureFixture, log_prompts: bool) -> None:
    """Then what was asked and answered has a line each; else there is none."""
    server.upstream.script(Reply(text="At noon."), times=None)
    allow_content(allowed=log_prompts)
    try:
        for stream in (False, True):
            httpx.post(f"{server.url}/v1/chat/completions", json={**CHAT, "stream": stream}, timeout=60)
    finally:
        allow_content(allowed=False)
    prompts = [record for record in log.records if record.getMessage() == "prompt"]
    answers = [record for record in log.records if record.getMessage() == "answer"]
    assert len(prompts) == len(answers) == (2 if log_prompts else 0)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert vars(prompt)["messages"] == HELLO
        assert vars(answer)["content"] == [{"type": "text", "text": "At noon."}]


# Form


@pytest.mark.parametrize("form", ["console", "json"])
def test_nobody_forges_a_line(start: Start, form: str) -> None:
    """A model's name with a line's end and a terminal's commands is one line, as harmless text."""
    command = start("main.py", "0", "--demo", LOG_FORMAT=form)
    url = f"{command.url()}/v1/chat/completions"
    model = "a\nFORGED\x1b[2J\u2028FORGED\x9b"
    assert httpx.post(url, json={**CHAT, "model": model}, timeout=60).status_code == 404
    command.read_until("FORGED")
    assert re.search(r"model_not_found.*FORGED.*FORGED|FORGED.*FORGED.*model_not_found", command.lines[-1])
    assert command.lines[-1].rstrip("\n").isprintable()
    assert len(command.lines[-1].splitlines()) == 1


def test_a_stack_is_inside_its_object(capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON a mistake's traceback is a field, and has no variables."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        start_logging("INFO", "json")
        secret = "a-value"
        try:
            assert len(secret) == 1
        except AssertionError:
            logging.getLogger("here").exception("It failed")
    finally:
        root.handlers[:], root.level = before
        logging.getLogger("uvicorn.access").disabled = False
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"], line["logger"]) == ("It failed", "error", "here")
    assert "Traceback" in line["exception"]
    assert "AssertionError" in line["exception"]
    assert "a-value" not in line["exception"].replace('secret = "a-value"', "")


def test_a_requests_id_is_its_own() -> None:
    """Lines in between have it, those of what outlives the request haven't."""
    with of_request("req_1"):
        assert get_contextvars() == {"request_id": "req_1"}
        with of_no_request():
            assert get_contextvars() == {}
        assert get_contextvars() == {"request_id": "req_1"}
    assert get_contextvars() == {}


def test_the_readme_shows_the_lines_that_there_are() -> None:
    """The fields of its examples are those of a completion."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r'^\{"event": "request".*\}$', readme, re.MULTILINE)
    assert set(json.loads(line)) == OF_A_COMPLETION | {"key"}
