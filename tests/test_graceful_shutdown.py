"""A server that is told to stop: what is under way has its time, nothing else begins, and nothing is left behind."""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from chat import sse_data
from commands import CHAT, Command, Start, claude_processes, gone, linux, wait_until
from demo_upstream import DemoUpstream, Gate, Reply

pytestmark = linux


@pytest.fixture
def login(api_key_environment: Mapping[str, str]) -> dict[str, str]:
    """What a server started by itself needs for the test's upstream."""
    return {name: value for name, value in api_key_environment.items() if name.startswith("ANTHROPIC_")}


@contextmanager
def streaming(url: str, body: Mapping[str, Any] = CHAT) -> Generator[httpx.Response, None, None]:
    """A streamed answer that has begun."""
    with httpx.Client(timeout=60) as client:
        request = client.build_request("POST", f"{url}/v1/chat/completions", json={**body, "stream": True})
        response = client.send(request, stream=True)
        try:
            yield response
        finally:
            response.close()


def rest_of(response: httpx.Response) -> list[str]:
    """The data of a stream, up to its end."""
    response.read()
    return sse_data(response)


def ended(command: Command) -> int:
    """Wait for a server's end; return its exit status."""
    command.process.communicate(timeout=40)
    return command.process.returncode


def is_shut(url: str) -> bool:
    """Whether a server that was told to stop has noticed."""
    return httpx.get(f"{url}/health").status_code == 503


def test_running_turns_finish_and_others_are_turned_away(
    start: Start, upstream: DemoUpstream, login: dict[str, str]
) -> None:
    """After SIGTERM a stream goes on to its [DONE]; new requests get a 503 with `Connection: close`."""
    gate = Gate(after=1)
    upstream.script(Reply(text=["One ", "two."], gate=gate))
    command = start("main.py", "0", **login)
    url = command.url()
    with streaming(url) as response:
        gate.reached()
        processes = claude_processes(command.process.pid)
        command.process.send_signal(signal.SIGTERM)
        wait_until(lambda: is_shut(url))
        turned_away = httpx.post(f"{url}/v1/chat/completions", json=CHAT)
        assert turned_away.status_code == 503
        assert turned_away.json()["error"]["code"] == "shutting_down"
        told = {name: turned_away.headers[name] for name in ("connection", "x-should-retry")}
        assert told == {"connection": "close", "x-should-retry": "true"}
        assert turned_away.headers["x-request-id"].startswith("req_")
        gate.open()
        *chunks, done = rest_of(response)
    assert "two." in "".join(chunks)
    assert done == "[DONE]"
    assert ended(command) in (0, -signal.SIGTERM)
    assert gone(processes)


def test_a_kept_connection_is_closed(start: Start, upstream: DemoUpstream, login: dict[str, str]) -> None:
    """A client that keeps its connection is told there, and has to come back to somebody else."""
    gate = Gate(after=1)
    upstream.script(Reply(text=["One ", "two."], gate=gate))
    command = start("main.py", "0", **login)
    url = command.url()
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as kept, streaming(url):
        kept.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert kept.recv(65536).startswith(b"HTTP/1.1 200")
        command.process.send_signal(signal.SIGTERM)
        wait_until(lambda: is_shut(url))
        kept.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b"".join(iter(lambda: kept.recv(65536), b""))
        assert b"HTTP/1.1 503" in answer
        gate.open()
    ended(command)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_what_takes_too_long_ends_with_an_error(
    start: Start, upstream: DemoUpstream, login: dict[str, str], stream: bool
) -> None:
    """After SHUTDOWN_GRACE a turn is ended, and its client told so: a 503, or an error event and no [DONE]."""
    gate = Gate(after=1)
    upstream.script(Reply(text=["One ", "two."], gate=gate), times=None)
    command = start("main.py", "0", SHUTDOWN_GRACE="1", **login)
    url = command.url()
    if stream:
        with streaming(url) as response:
            gate.reached()
            command.process.send_signal(signal.SIGTERM)
            error = json.loads(rest_of(response)[-1])["error"]
        assert error["code"] == "shutting_down"
    else:
        curl = ["curl", "-s", "-d", json.dumps(CHAT), f"{url}/v1/chat/completions"]
        with subprocess.Popen(curl, stdout=subprocess.PIPE, text=True) as client:
            gate.reached()
            command.process.send_signal(signal.SIGTERM)
            answer, _ = client.communicate(timeout=30)
        assert json.loads(answer)["error"]["code"] == "shutting_down"
    ended(command)


def test_a_second_signal_ends_at_once(start: Start, upstream: DemoUpstream, login: dict[str, str]) -> None:
    """Whatever is under way; no process is left behind all the same."""
    gate = Gate(after=1)
    upstream.script(Reply(text=["One ", "two."], gate=gate))
    command = start("main.py", "0", SHUTDOWN_GRACE="60", **login)
    url = command.url()
    with streaming(url):
        gate.reached()
        processes = claude_processes(command.process.pid)
        command.process.send_signal(signal.SIGTERM)
        wait_until(lambda: is_shut(url))
        began = time.monotonic()
        command.process.send_signal(signal.SIGTERM)
        ended(command)
    assert time.monotonic() - began < 30, "half of what the turn had left; a moment on a quiet machine"
    wait_until(lambda: gone(processes))


def test_a_session_has_what_was_answered_at_the_end(
    start: Start, upstream: DemoUpstream, login: dict[str, str], redis_url: str
) -> None:
    """A turn that finishes while the server ends is in its session, where the next server finds it."""
    gate = Gate(after=1)
    upstream.script(Reply(text=["One ", "two."], gate=gate))
    command = start("main.py", "0", REDIS_URL=redis_url, **login)
    url = command.url()
    with streaming(url, {**CHAT, "session_id": "harbour"}) as response:
        gate.reached()
        command.process.send_signal(signal.SIGTERM)
        wait_until(lambda: is_shut(url))
        gate.open()
        assert rest_of(response)[-1] == "[DONE]"
    ended(command)
    url = start("main.py", "0", REDIS_URL=redis_url, **login).url()
    assert httpx.get(f"{url}/v1/sessions/harbour").json()["message_count"] == 2


def test_reloading_leaks_no_process(start: Start, tmp_path: Path) -> None:
    """`uvicorn --reload` ends the processes of the server that it replaces, and its own at the end."""
    watched = tmp_path / "watched.py"
    watched.write_text("")
    reload = ("--reload", "--reload-dir", str(tmp_path), "--no-proxy-headers")
    command = start("-m", "uvicorn", "main:app", "--port", "0", *reload, DEMO="true", PROCESS_REUSE="on")
    command.read_until("startup complete")
    wait_until(lambda: bool(claude_processes(command.process.pid)))
    first = claude_processes(command.process.pid)
    watched.write_text("changed = True")
    command.read_until("startup complete")
    wait_until(lambda: gone(first))
    wait_until(lambda: bool(claude_processes(command.process.pid)))
    second = claude_processes(command.process.pid)
    command.process.send_signal(signal.SIGTERM)
    ended(command)
    wait_until(lambda: gone(second))
