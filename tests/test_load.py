"""Many at once, large bodies, long conversations, and readers that are slow: all are served, and memory stays flat."""

import json
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from chat import HELLO, MODEL, post, send, texts
from commands import Start
from conftest import Server, ServerFactory
from demo_upstream import DemoUpstream, Reply

CONNECTIONS = 500
WORD = "x" * 4000
WORDS = 15_000


def connected(url: str) -> socket.socket:
    """A connection to a server."""
    address = urlsplit(url)
    return socket.create_connection((str(address.hostname), address.port or 80))


def test_five_hundred_connections_hold_up_nobody(server: Server) -> None:
    """Open and silent, or in the middle of a request, they take nothing from those who ask."""
    with ExitStack() as crowd:
        for number in range(CONNECTIONS):
            connection = crowd.enter_context(connected(server.url))
            if number % 2:
                connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert post(server, model=MODEL, messages=HELLO).status_code == 200


def test_a_crowd_of_small_requests_is_answered(server: Server) -> None:
    """Each of a thousand, from many clients at once."""
    paths = ["/health", "/version", "/v1/pool", "/nowhere"]
    with httpx.Client(base_url=server.url, timeout=60) as client, ThreadPoolExecutor(20) as clients:
        statuses = list(clients.map(lambda number: client.get(paths[number % 4]).status_code, range(1000)))
    assert statuses == [200, 200, 200, 404] * 250


def test_a_body_may_have_just_so_many_bytes(serve: ServerFactory) -> None:
    """At the limit it is answered, one byte more is a 413, whether or not its length is told."""
    server = serve(max_request_size=2000)
    body = json.dumps({"model": MODEL, "messages": HELLO}).encode()
    url = f"{server.url}/v1/chat/completions"
    for size, status in ((2000, 200), (2001, 413)):
        content = body.ljust(size)
        for sent in (content, iter([content[:1000], content[1000:]])):
            assert httpx.post(url, content=sent, timeout=60).status_code == status


def test_a_thousand_messages_reach_the_model(server: Server) -> None:
    """All of them, in their order, each as it is."""
    messages: list[dict[str, Any]] = [
        {"role": ("user", "assistant")[number % 2], "content": f"message {number}"} for number in range(999)
    ]
    assert send(server, {"model": MODEL, "messages": messages}).status_code == 200
    seen = server.upstream.messages_requests()[-1].body["messages"]
    assert ["".join(texts(message["content"])) for message in seen] == [message["content"] for message in messages]


def test_a_slow_reader_fills_no_memory(
    start: Start, upstream: DemoUpstream, api_key_environment: Mapping[str, str]
) -> None:
    """Of sixty megabytes the server holds hardly any while their reader takes a byte now and then."""
    upstream.script(Reply(text="Fine."))
    upstream.script(Reply(text=[WORD] * WORDS))
    login = {name: value for name, value in api_key_environment.items() if name.startswith("ANTHROPIC_")}
    command = start("main.py", "0", SPARE_PROCESSES="0", **login)
    url = command.url()
    # What the first request brings into memory stays there, whoever reads it.
    body = {"model": MODEL, "messages": HELLO}
    assert httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).status_code == 200
    server = psutil.Process(command.process.pid)
    before = server.memory_info().rss
    content = json.dumps({**body, "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    with connected(url) as reader:
        reader.sendall(head.encode() + content)
        upstream.wait_for(lambda upstream: len(upstream.messages_requests()) == 2)
        most, deadline = 0, time.monotonic() + 5
        while time.monotonic() < deadline:
            assert reader.recv(1)
            most = max(most, server.memory_info().rss)
            time.sleep(0.1)  # The reader's own pace.
        assert (most - before) / 2**20 < WORDS * len(WORD) / 2**20 / 4
        assert httpx.get(f"{url}/health").status_code == 200
