"""Keys, tokens and what is said are in no log, in no answer but the client's own, and in nothing left behind."""

import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis

from auth import hash_key
from chat import MODEL
from commands import claude_processes, command_of, descendants, linux
from demo_upstream import DemoUpstream, Gate, Reply, ToolCall
from log_lines import Logging, logging_server

Json = dict[str, Any]

# In every part of each, so that a part of it is found as well.
SECRET, SAID = "zq7key", "zq7said"
OWN, FILED, LOGIN = (SECRET * 4 + end for end in ("-own", "-filed", "-login"))
PASSWORD, TOKEN = (SECRET * 3 + end for end in ("-redis", "-mcp"))
WRONG = SECRET * 4 + "-wrong"
TEXT = f"{SAID} {SAID} in json"
CHAT, DEBUG = "/v1/chat/completions", "/v1/debug/request"
FUNCTION = {"type": "function", "function": {"name": SAID, "parameters": {"type": "object", "properties": {}}}}
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{SAID}"}}


@dataclass
class Client:
    """A client that keeps what it is answered."""

    server: Logging
    upstream: DemoUpstream
    errors: list[str] = field(default_factory=list)
    """Answers in which nothing of what was said may be."""
    others: list[str] = field(default_factory=list)
    """Those that may have what their client said itself."""

    def send(self, path: str, key: str = OWN, method: str = "POST", **options: Any) -> httpx.Response:
        """Send a request with a key."""
        headers = {"Authorization": f"Bearer {key}", **options.pop("headers", {})}
        response = httpx.request(method, f"{self.server.url}{path}", headers=headers, timeout=60, **options)
        self.others.append(f"{response.headers!r} {response.text}")
        return response

    def chat(self, *replies: Reply, **body: Any) -> httpx.Response:
        """Ask for a completion, of which nothing but the answer may have what was said."""
        self.upstream.reset()
        for reply in replies or (Reply(text=TEXT),):
            self.upstream.script(reply)
        self.upstream.script(Reply(text=TEXT), times=None)
        messages = [{"role": "system", "content": TEXT}, {"role": "user", "content": TEXT}]
        response = self.send(CHAT, json={"model": MODEL, "messages": messages, **body})
        if not response.is_success:
            self.errors.append(response.text)
        return response


def good_requests(client: Client) -> Iterator[tuple[httpx.Response, int]]:
    """Make requests that are answered; yield each answer with the status that it has to have."""
    for stream in (False, True):
        yield client.chat(stream=stream, session_id=f"{SAID}-session"), 200
        yield client.chat(Reply(tool_calls=[ToolCall(SAID, {SAID: TEXT})]), stream=stream, tools=[FUNCTION]), 200
        yield client.chat(stream=stream, n=2, stop=[SAID], user=SAID, metadata={SAID: SAID}), 200
        steps = [
            ToolCall("Write", {"file_path": f"{SAID}.txt", "content": TEXT}),
            ToolCall("Read", {"file_path": f"/etc/{SAID}"}),
            ToolCall("Bash", {"command": f"echo {SAID}"}),
            ToolCall("Write", {"file_path": ".git/config", "content": TEXT}),
            ToolCall("Glob", {"pattern": f"{SAID}*"}),
        ]
        yield client.chat(*(Reply(tool_calls=[step]) for step in steps), enable_tools=True, stream=stream), 200
    for path in ("/v1/usage", "/v1/pool", "/metrics", "/v1/auth/status", "/v1/tools", "/v1/mcp/servers", "/v1/models"):
        yield client.send(path, key=FILED, method="GET", params={"api_key": OWN}), 200
    told = {"X-Api-Key": OWN, "Cookie": f"session={OWN}", "X-Forwarded-Authorization": f"Bearer {OWN}"}
    yield client.send(DEBUG, headers=told, params={"api_key": OWN, "token": FILED}, json={"model": MODEL}), 200


def bad_requests(client: Client) -> Iterator[tuple[httpx.Response, int]]:
    """Make requests that fail, each in another way; yield each answer with the status that it has to have."""
    for key in (WRONG, OWN[:-1], f"{OWN}x", f"{WRONG} {OWN}"):
        yield client.send("/v1/models", key=key, method="GET", params={"api_key": OWN}), 401
    yield client.send("/v1/models", method="GET", headers={"Authorization": f"Basic {WRONG}"}), 401
    yield client.send(f"/{SECRET[:3]}/nowhere?key={OWN}", method="GET"), 404
    yield client.send(CHAT, method="GET", params={"key": OWN}), 405
    yield client.send(CHAT, content=f'{{"model": "{TEXT}'), 400
    yield client.send(CHAT, content=b"\xff" + TEXT.encode()), 400
    yield (
        client.send(CHAT, json={"model": MODEL, "messages": [{"role": SAID, "content": TEXT}], SAID: {SAID: TEXT}}),
        400,
    )
    yield (
        client.send(CHAT, json={"model": MODEL, "messages": [{"role": "user", "content": [IMAGE, {"type": SAID}]}]}),
        400,
    )
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": SAID, "properties": {SAID: SAID}}}}
    asked = {"model": MODEL, "messages": [{"role": "user", "content": TEXT}], "response_format": schema}
    yield client.send(CHAT, json=asked), 400
    yield client.send(CHAT, json={"model": "no-such-model", "messages": [{"role": "user", "content": TEXT}]}), 404
    for status in (500, 529):
        yield client.chat(*[Reply(status=status, error_message=f"You said {TEXT}")] * 2), min(status, 503)
    yield client.chat(*[Reply(text=TEXT, cut_after=0)] * 2), 502
    yield client.chat(response_format={"type": "json_object"}), 502
    yield client.chat(Reply(text=[SAID, SAID, SAID], error_after=1), stream=True), 200


def kill_one_that_works(client: Client) -> None:
    """Take a process away in the middle of its answer, and one that waits."""
    gate = Gate(after=1)
    client.upstream.reset()
    client.upstream.script(Reply(text=[SAID, SAID], gate=gate))
    body = {"model": MODEL, "messages": [{"role": "user", "content": TEXT}], "stream": True}
    headers = {"Authorization": f"Bearer {OWN}"}
    with httpx.stream("POST", f"{client.server.url}{CHAT}", json=body, headers=headers, timeout=60) as response:
        gate.reached()
        for process in claude_processes(client.server.program.pid):
            process.send_signal(signal.SIGKILL)
        assert b"claude_code_error" in response.read()


def process_listing(pid: int) -> str:
    """The command lines of a process and of all below it, as everyone on the machine can read them."""
    return "".join(map(str, map(command_of, (psutil.Process(pid), *descendants(pid)))))


def environments(pid: int) -> Iterator[dict[str, str]]:
    """The environments of the Claude Code processes of a server."""
    for process in claude_processes(pid):
        with suppress(psutil.Error):
            yield process.environ()


@pytest.fixture
def variables(tmp_path: Path, place: Path, redis_url: str) -> Iterator[dict[str, str]]:
    """The settings of a server that has as many secrets as there can be, and says as much as it can."""
    keys, servers = tmp_path / "keys.toml", tmp_path / "mcp.json"
    keys.write_text(f'[keys.anna]\nhash = "sha256:{hash_key(FILED)}"\ntools = true\n', encoding="utf-8")
    broken = {"type": "http", "url": "http://127.0.0.1:9/${MCP_TOKEN}", "headers": {"Authorization": "${MCP_TOKEN}"}}
    servers.write_text(json.dumps({"mcpServers": {"broken": broken}}), encoding="utf-8")
    for directory in ("home", "tmp"):
        (tmp_path / directory).mkdir()
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("requirepass", PASSWORD)
    yield {
        "API_KEY": OWN,
        "API_KEYS_FILE": str(keys),
        "ANTHROPIC_API_KEY": LOGIN,
        "ANTHROPIC_CUSTOM_HEADERS": f"X-Secret: {SECRET}",
        "REDIS_URL": redis_url.replace("//", f"//:{PASSWORD}@"),
        "MCP_CONFIG": str(servers),
        "MCP_TOKEN": TOKEN,
        "CLAUDE_CWD": str(place),
        "CLAUDE_ALLOWED_TOOLS": "Read,Glob,Write",
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "LOG_LEVEL": "DEBUG",
        "DEBUG_MODE": "true",
        "MAX_TIMEOUT": "60",
        "SPARE_PROCESSES": "1",
        "UPSTREAM_RETRIES": "0",
    }
    with redis.Redis.from_url(redis_url, password=PASSWORD) as client:
        client.config_set("requirepass", "")


@linux
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_secrets_and_content_stay_where_they_belong(
    api_key_environment: Mapping[str, str],
    upstream: DemoUpstream,
    variables: dict[str, str],
    tmp_path: Path,
    log_format: str,
) -> None:
    """Whatever is asked, well or badly, and whatever fails, with all that the log can say at its highest level."""
    listings = ""
    with logging_server({**api_key_environment, **variables}, **variables, LOG_FORMAT=log_format) as server:
        client = Client(server, upstream)
        kinds: tuple[Callable[[Client], Iterator[tuple[httpx.Response, int]]], ...] = (good_requests, bad_requests)
        for requests in kinds:
            for response, status in requests(client):
                assert response.status_code == status, response.text
                listings += process_listing(server.program.pid)
        for environment in environments(server.program.pid):
            assert environment["ANTHROPIC_API_KEY"] == LOGIN
            assert not {"API_KEY", "API_KEYS_FILE", "REDIS_URL", "MCP_TOKEN"} & environment.keys()
        kill_one_that_works(client)
        client.chat()
    assert server.output.count("/v1/chat/completions") > 20
    assert "stream-json" in listings
    for needle in (SECRET, SAID):
        assert needle not in server.output
        assert needle not in listings
    assert [answer for answer in client.errors if SAID in answer] == []
    assert not any(SECRET in answer for answer in client.others)
    assert [*(tmp_path / "tmp").iterdir()] == []
    left = [file for file in (tmp_path / "home").rglob("*") if file.is_file()]
    assert not [file for file in left for needle in (SECRET, SAID) if needle.encode() in file.read_bytes()]
