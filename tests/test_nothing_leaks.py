"""Keys, tokens and what is said stay where they belong: all that a server writes is searched for them."""

import hashlib
import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from chat import MODEL
from commands import Command, Start, claude_processes, command_of, linux
from demo_upstream import DemoUpstream, Reply, ToolCall

pytestmark = linux

KEY, FILE_KEY, LOGIN = "key-of-the-env", "key-of-the-file", "sk-ant-login-of-the-server"
REDIS = "password-of-redis"
KEYS = (KEY, FILE_KEY, LOGIN, REDIS)
WRONG = "a-key-that-is-wrong"
SAID = "what-was-said"
ANSWERED = "what-was-answered"
CONTENT = (SAID, ANSWERED)

READ = {"file_path": f"{SAID}.txt"}
WEATHER = {"type": "function", "function": {"name": "weather", "description": SAID, "parameters": {"type": "object"}}}


@dataclass
class Client:
    """A client of the server, and the texts of all answers that it got."""

    url: str
    answers: list[str]

    def post(self, body: Any, path: str = "/v1/chat/completions", key: str = KEY, **headers: str) -> httpx.Response:
        """Send a body, a dict as JSON."""
        content = body if isinstance(body, str) else json.dumps(body)
        headers = {"Authorization": f"Bearer {key}", **headers}
        answer = httpx.post(f"{self.url}{path}", content=content, headers=headers, timeout=60)
        self.answers.append(f"{answer.headers} {answer.text}")
        return answer

    def get(self, path: str, key: str = KEY) -> None:
        """Get a page."""
        answer = httpx.get(f"{self.url}{path}", headers={"Authorization": f"Bearer {key}"}, timeout=60)
        self.answers.append(f"{answer.headers} {answer.text}")


def asked(**more: Any) -> dict[str, Any]:
    """A body in which everything that can be is what was said."""
    messages = [{"role": "system", "content": SAID}, {"role": "user", "content": SAID, "name": SAID}]
    return {"model": MODEL, "messages": messages, "user": SAID, "metadata": {"note": SAID}, **more}


@pytest.fixture
def command(start: Start, api_key_environment: Mapping[str, str], tmp_path: Path) -> Command:
    """A server with all kinds of secrets, which logs as much as it can."""
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[keys.anna]\nhash = "sha256:{hashlib.sha256(FILE_KEY.encode()).hexdigest()}"\ntools = true\n')
    (tmp_path / "temporary").mkdir()
    return start(
        *("main.py", "0"),
        API_KEY=KEY,
        API_KEYS_FILE=str(keys),
        ANTHROPIC_API_KEY=LOGIN,
        ANTHROPIC_BASE_URL=api_key_environment["ANTHROPIC_BASE_URL"],
        REDIS_URL=f"redis://:{REDIS}@127.0.0.1:9/0",
        TMPDIR=str(tmp_path / "temporary"),
        LOG_LEVEL="DEBUG",
        DEBUG_MODE="true",
        UPSTREAM_RETRIES="1",
        RATE_LIMIT_ENABLED="false",
    )


def play(client: Client, upstream: DemoUpstream, server: int) -> None:
    """Have all kinds of requests answered, or refused."""
    fine = Reply(text=ANSWERED)
    upstream.script(fine, times=2)
    for stream in (False, True):
        assert client.post(asked(stream=stream)).status_code == 200
    for failure in (Reply(status=400, error_message=SAID), Reply(status=500, error_message=SAID)):
        upstream.script(failure, times=2)
        assert client.post(asked()).status_code == failure.status
    upstream.script(Reply(text=[ANSWERED, SAID], error_after=1, error_message=SAID, delta_delay=0.1))
    client.post(asked(stream=True))
    upstream.script(Reply(tool_calls=[ToolCall("weather", {"place": SAID})]))
    client.post(asked(tools=[WEATHER]))
    upstream.script(Reply(text=ANSWERED, tool_calls=[ToolCall("Read", READ), ToolCall("Write", READ)]))
    upstream.script(fine)
    assert client.post(asked(enable_tools=True), key=FILE_KEY).status_code == 200
    client.post(asked(session_id=SAID))
    for process in claude_processes(server):
        process.send_signal(signal.SIGKILL)
    upstream.script(fine)
    assert client.post(asked()).status_code == 200


def provoke(client: Client) -> None:
    """Send what is refused, with something in it that is nobody's business."""
    for body in (
        f'{{"model": "{SAID}", ',
        {**asked(), "messages": [{"role": SAID, "content": SAID}]},
        {**asked(), "temperature": SAID},
        {**asked(), "tools": [{"type": SAID}]},
        {**asked(), "model": "no-such-model"},
        {**asked(), "n": 99},
    ):
        assert client.post(body).status_code in (400, 404)
        client.post(body, "/v1/debug/request", Cookie=f"session={KEY}")
    for key in (WRONG, f"{KEY}x", "x", KEY[:-1], f"{WRONG}\t{KEY}"):
        client.post(asked(), key=key)
    client.post(asked(), f"/v1/chat/completions?api_key={KEY}&text={SAID}")
    for path in (
        "/v1/auth/status",
        "/v1/models",
        "/metrics",
        "/v1/pool",
        "/version",
        f"/v1/sessions/{SAID}",
        f"/{KEY}",
    ):
        client.get(path)


def files_with(directory: Path, texts: tuple[str, ...]) -> list[Path]:
    """The files that have any of these texts in them."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return [path for path in files if any(text.encode() in path.read_bytes() for text in texts)]


def test_nothing_leaks(command: Command, upstream: DemoUpstream, tmp_path: Path) -> None:
    """Neither into the log, whatever its level, nor into answers, command lines or files that others may read."""
    client, server = Client(command.url(), []), command.process.pid
    play(client, upstream, server)
    said_in_answers = len(client.answers)
    provoke(client)
    lines = [" ".join(command_of(process)) for process in claude_processes(server)]
    variables = [str(process.environ()) for process in claude_processes(server)]
    written = files_with(tmp_path / "temporary", (*KEYS, *CONTENT))
    command.process.send_signal(signal.SIGTERM)
    rest, _ = command.process.communicate(timeout=40)
    log = "".join(command.lines) + rest
    assert log.count("chat/completions") > 20, "there is a log to search"
    assert [text for text in (*KEYS, WRONG, *CONTENT) if text in log.replace(f"/{KEY}", "")] == []
    assert lines
    assert [text for text in (*KEYS, *CONTENT) if text in "".join(lines)] == []
    assert [text for text in (KEY, FILE_KEY, REDIS, *CONTENT) if text in "".join(variables)] == []
    assert written == []
    assert [text for text in (*KEYS, WRONG) if text in "".join(client.answers).replace(f"/{KEY}", "")] == []
    assert ANSWERED in "".join(client.answers[:said_in_answers])
