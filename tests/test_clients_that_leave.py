"""A client hangs up, whatever its request does just then: the turn stops, upstream too, and nothing more is spent."""

import json
import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from chat import HELLO, MODEL, a_client_left, post
from commands import wait_until, working
from conftest import Server, ServerFactory
from demo_upstream import DemoUpstream, Gate, Reply

STREAMED_OR_NOT = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
AT_ONCE_SECONDS = 0.25
GOES_ON = {"spare", "spawned"} if os.environ.get("PROCESS_REUSE") == "off" else {"recycled"}
"""Where the process of the next request comes from."""
TRIES = 5
"""The best of these counts: how busy this machine is says nothing of the server."""


class Client:
    """A client that can hang up at any moment."""

    def __init__(self, server: Server, *, ahead: bytes = b"", **body: Any) -> None:
        """Send a request, and what is sent `ahead` of its answer; wait for nothing."""
        address = urlsplit(server.url)
        self._connection = socket.create_connection((str(address.hostname), address.port or 80))
        content = json.dumps({"model": MODEL, "messages": HELLO, **body}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
        self._connection.sendall(head.encode() + content + ahead)

    def hang_up(self) -> float:
        """Leave; return when that was, by the clock of the upstream's records."""
        self._connection.close()
        return time.monotonic()


def waiting(server: Server) -> int:
    """How many requests wait for a place."""
    return int(httpx.get(f"{server.url}/v1/pool").json()["queue"]["length"])


def left_at(upstream: DemoUpstream) -> float:
    """Wait until the upstream's only request has lost its client; return when that was."""
    upstream.wait_for(a_client_left)
    (request,) = upstream.messages_requests()
    assert request.disconnected_at is not None
    return request.disconnected_at


def quickest(server: Server, reply: Callable[[], Reply], has_come: Callable[[Reply], None], *, stream: bool) -> float:
    """Have clients hang up once their answer `has_come` so far; return the shortest time that the upstream ran on."""
    times = []
    for _ in range(TRIES):
        server.upstream.reset()
        planned = reply()
        server.upstream.script(planned)
        client = Client(server, stream=stream)
        has_come(planned)
        hung_up = client.hang_up()
        times.append(left_at(server.upstream) - hung_up)
        wait_until(lambda: not working(server.url))
        assert len(server.upstream.messages_requests()) == 1
    return min(times)


@STREAMED_OR_NOT
def test_before_the_model_answers(serve: ServerFactory, stream: bool) -> None:
    """The upstream's connection is closed at once, its process goes on with others, nothing is asked again."""
    server = serve()

    def has_been_asked(_reply: Reply) -> None:
        server.upstream.wait_for(lambda upstream: bool(upstream.messages_requests()))

    assert quickest(server, lambda: Reply(hang=True), has_been_asked, stream=stream) < AT_ONCE_SECONDS
    assert post(server, model=MODEL, messages=HELLO).headers["x-claude-process"] in GOES_ON


@STREAMED_OR_NOT
def test_in_the_middle_of_the_answer(serve: ServerFactory, stream: bool) -> None:
    """The upstream's connection is closed at once, its process goes on with others, nothing is asked again."""
    server = serve()

    def has_begun(reply: Reply) -> None:
        assert reply.gate
        reply.gate.reached()

    def begun() -> Reply:
        return Reply(text=["One ", "two"], gate=Gate(after=1))

    assert quickest(server, begun, has_begun, stream=stream) < AT_ONCE_SECONDS
    assert post(server, model=MODEL, messages=HELLO).headers["x-claude-process"] in GOES_ON


@STREAMED_OR_NOT
def test_while_a_process_is_started(serve: ServerFactory, stream: bool) -> None:
    """The model isn't asked, and the place is free for the next."""
    server = serve(max_processes=1, spare_processes=0)
    client = Client(server, stream=stream)
    wait_until(lambda: working(server.url) == 1)
    client.hang_up()
    wait_until(lambda: not working(server.url))
    assert post(server, model=MODEL, messages=[{"role": "user", "content": "Next"}]).status_code == 200
    (request,) = server.upstream.messages_requests()
    assert "Next" in str(request.body["messages"])


@STREAMED_OR_NOT
def test_in_the_queue(serve: ServerFactory, stream: bool) -> None:
    """The place in line is given up; the model isn't asked."""
    server, gate = serve(max_processes=1, spare_processes=0), Gate(after=1)
    server.upstream.script(Reply(text=["One ", "two"], gate=gate))
    first = Client(server, stream=stream)
    gate.reached()
    second = Client(server, stream=stream)
    wait_until(lambda: waiting(server) == 1)
    second.hang_up()
    wait_until(lambda: not waiting(server))
    gate.open()
    wait_until(lambda: not working(server.url))
    first.hang_up()
    assert len(server.upstream.messages_requests()) == 1


def test_while_the_body_is_sent(serve: ServerFactory) -> None:
    """Half a request is none."""
    server = serve()
    address = urlsplit(server.url)
    with socket.create_connection((str(address.hostname), address.port or 80)) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n{")
    assert post(server, model=MODEL, messages=HELLO).status_code == 200
    assert len(server.upstream.messages_requests()) == 1


@STREAMED_OR_NOT
def test_with_another_request_sent_ahead(serve: ServerFactory, stream: bool) -> None:
    """Whose connection it is isn't forgotten for the next request in it."""
    server = serve(max_processes=1)
    server.upstream.script(Reply(hang=True))
    client = Client(server, stream=stream, ahead=b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    server.upstream.wait_for(lambda upstream: bool(upstream.messages_requests()))
    client.hang_up()
    server.upstream.wait_for(a_client_left)
    assert post(server, model=MODEL, messages=HELLO).status_code == 200


@STREAMED_OR_NOT
def test_between_two_tries(serve: ServerFactory, caplog: pytest.LogCaptureFixture, stream: bool) -> None:
    """What has failed isn't tried again for nobody."""
    server = serve(upstream_retries=5)
    server.upstream.script(Reply(status=529), times=None)
    with caplog.at_level(logging.INFO):
        client = Client(server, stream=stream)
        server.upstream.wait_for(lambda upstream: bool(upstream.messages_requests()))
        wait_until(lambda: not working(server.url))
        client.hang_up()
        wait_until(lambda: "client_left" in [vars(record).get("outcome") for record in caplog.records])
    asked = len(server.upstream.messages_requests())
    server.upstream.reset()
    assert post(server, model=MODEL, messages=HELLO).status_code == 200
    assert (asked, len(server.upstream.messages_requests())) == (1, 1)
