"""Several servers behind the nginx that the repository ships: the topology of compose and Kubernetes, as processes."""

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from demo_upstream import DemoUpstream, Gate, Reply
from replicas import Cluster, Replica, running_cluster, running_proxy

pytestmark = pytest.mark.real_services

MODEL = "claude-sonnet-4-5"
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def session_cluster(api_key_environment: Mapping[str, str]) -> Iterator[Cluster]:
    """Two servers behind nginx."""
    with running_cluster(2, api_key_environment) as cluster:
        yield cluster


@pytest.fixture
def cluster(session_cluster: Cluster, upstream: DemoUpstream) -> Cluster:
    """Two running servers, in front of an upstream with nothing scripted and nothing recorded."""
    for replica in session_cluster.replicas:
        if not replica.running:
            replica.start()
    return session_cluster


def client_of(cluster: Cluster, key: str = "any", **headers: str) -> openai.OpenAI:
    """A published client that points at nginx and doesn't try again by itself."""
    return openai.OpenAI(base_url=f"{cluster.url}/v1", api_key=key, default_headers=headers, max_retries=0, timeout=30)


def say(client: openai.OpenAI) -> str:
    """One turn."""
    return client.chat.completions.create(model=MODEL, messages=HELLO).choices[0].message.content or ""


def serving(cluster: Cluster, client: openai.OpenAI) -> Replica:
    """The server that a turn of this client goes to."""
    before = {replica: replica.turns() for replica in cluster.replicas}
    say(client)
    (served,) = [replica for replica in cluster.replicas if replica.turns() > before[replica]]
    return served


def test_an_answer_comes_whole(cluster: Cluster) -> None:
    """A chat completion goes through nginx and back."""
    with client_of(cluster) as client:
        assert "demo upstream" in say(client)


def test_a_stream_comes_as_it_is_written(cluster: Cluster, upstream: DemoUpstream) -> None:
    """The first chunk is with the client while the model still holds back the second."""
    gate = Gate(after=1)
    upstream.script(Reply(text=["first ", "second"], gate=gate))
    with client_of(cluster) as client:
        chunks = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
        texts = (chunk.choices[0].delta.content for chunk in chunks)
        assert next(text for text in texts if text) == "first "
        gate.open()
        assert "".join(text or "" for text in texts) == "second"


def test_a_client_that_leaves_stops_the_turn(cluster: Cluster, upstream: DemoUpstream) -> None:
    """Through nginx, too, the turn ends upstream when its client does."""
    gate = Gate(after=1)
    upstream.script(Reply(text=["first ", "second"], gate=gate))
    with client_of(cluster) as client:
        chunks = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
        gate.reached()
        chunks.close()
    upstream.wait_for(lambda it: it.messages_requests()[-1].disconnected)


def test_a_dead_server_costs_no_request(cluster: Cluster, upstream: DemoUpstream) -> None:
    """With its server killed, a client's next request is answered by the other, and costs one turn."""
    with client_of(cluster) as client:
        usual = serving(cluster, client)
        usual.kill()
        upstream.reset()
        assert "demo upstream" in say(client)
        assert len(upstream.messages_requests()) == 1


@contextmanager
def gateways(*statuses: int | None) -> Generator[tuple[list[str], list[list[Mapping[str, str]]]], None, None]:
    """Servers that read a request, note it, and answer with a status, or with None end the connection."""
    addresses: list[str] = []
    received: list[list[Mapping[str, str]]] = []
    servers: list[ThreadingHTTPServer] = []
    for status in statuses:
        noted: list[Mapping[str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            noted_here, status_here = noted, status

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's names
                """Say nothing."""

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.noted_here.append({name.lower(): value for name, value in self.headers.items()})
                if self.status_here is not None:
                    self.send_response(self.status_here)
                    self.send_header("content-length", "0")
                    self.end_headers()

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        addresses.append(f"127.0.0.1:{server.server_port}")
        received.append(noted)
    try:
        yield addresses, received
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


@pytest.mark.parametrize("name", ["X-Session-Id", "Authorization"])
def test_a_session_or_else_a_key_keeps_its_server(name: str) -> None:
    """Requests with the same header go to the same server, and those of many values to both."""
    with gateways(200, 200) as (addresses, received), running_proxy(addresses) as url, httpx.Client() as client:
        for value in [*range(40), *range(40)]:
            client.post(url, json={}, headers={name: str(value)}).raise_for_status()
    servers = [{request[name.lower()] for request in requests} for requests in received]
    assert all(servers)
    assert not servers[0] & servers[1]


@pytest.mark.parametrize("status", [None, 502, 503])
def test_a_request_that_a_server_has_seen_goes_nowhere_else(status: int | None) -> None:
    """A POST is sent once: where its server fails over it, no other gets it, since it may have been paid for."""
    with gateways(status, status) as (addresses, received), running_proxy(addresses) as url:
        response = httpx.post(f"{url}/v1/chat/completions", json={})
    assert response.status_code == (status or 502)
    assert sum(map(len, received)) == 1


def test_nobody_chooses_an_address(cluster: Cluster) -> None:
    """What a client claims of its address is replaced by nginx."""
    with gateways(200) as (addresses, received), running_proxy(addresses) as url:
        httpx.post(url, json={}, headers={"X-Forwarded-For": "203.0.113.9"})
    assert [request["x-forwarded-for"] for request in received[0]] == ["127.0.0.1"]


def test_without_servers_there_is_an_error_in_openais_form() -> None:
    """Where no server answers, nginx does, with the envelope that clients know."""
    with gateways(200) as (addresses, _):
        pass
    with running_proxy(addresses) as url, pytest.raises(openai.InternalServerError) as caught:
        say(client_of(Cluster(url, ())))
    assert (caught.value.status_code, caught.value.type) == (502, "server_error")


def test_a_body_that_is_too_large_is_refused_before_it_is_sent_on() -> None:
    """The limit is the servers' own and so are the words."""
    with gateways(200) as (addresses, received), running_proxy(addresses, max_request_size="1000") as url:
        response = httpx.post(f"{url}/v1/chat/completions", content=b"x" * 1001)
        assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")
        assert httpx.post(f"{url}/v1/chat/completions", content=b"x" * 1000).status_code == 200
    assert len(received[0]) == 1


@pytest.mark.parametrize("target", ["/%00", f"/{'x' * 10_000}"])
def test_what_nginx_itself_refuses_has_the_form_of_all_errors(target: str) -> None:
    """Also what never reaches a server is an error that clients can read."""
    with running_proxy(["127.0.0.1:1"]) as url, closing(HTTPConnection(urlsplit(url).netloc)) as connection:
        connection.request("GET", target)
        response = connection.getresponse()
        assert response.status == 400
        assert json.loads(response.read())["error"]["type"] == "invalid_request_error"
