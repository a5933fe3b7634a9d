"""By which names a server answers: a page of somebody else's that has its name lead here reads nothing."""

from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import urlsplit

import httpx
import pytest

from chat import HELLO, MODEL
from conftest import Server, ServerFactory

FOREIGN = "evil.example"


def status(server: Server, host: str, **headers: str) -> int:
    """Ask under a name."""
    return httpx.get(f"{server.url}/v1/models", headers={"Host": host, **headers}, timeout=30).status_code


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8000",
        "10.1.2.3",
        "203.0.113.9",
        "[::1]",
        "[2001:db8::1]:8000",
        "localhost",
        "LOCALHOST:8000",
        "localhost.",
        "app.localhost",
        "claude-wrapper",
        "claude_wrapper:8000",
        "host.docker.internal:8000",
    ],
)
def test_addresses_and_names_at_hand_are_right(server: Server, host: str) -> None:
    """A server without keys answers where no page of the web can be: health checks by address, other containers."""
    assert status(server, host) == 200


@pytest.mark.parametrize(
    "host",
    [
        FOREIGN,
        f"{FOREIGN}:8000",
        f"{FOREIGN}.",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "evil.example:80:80",
        "0177.0.0.1",
        "[evil.example]",
        "[::1].evil.example",
        "evillocalhost.example",
        "docker.internal",
    ],
)
def test_any_other_name_is_refused(server: Server, host: str) -> None:
    """Without keys a name that somebody may have had lead here gets OpenAI's envelope and nothing else."""
    response = httpx.get(f"{server.url}/v1/models", headers={"Host": host})
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (403, "invalid_request_error", "permission_denied")
    assert "ALLOWED_HOSTS" in error["message"]


@pytest.mark.parametrize("path", ["/", "/health", "/docs", "/openapi.json", "/metrics", "/v1/sessions", "/nowhere"])
def test_no_route_answers_a_foreign_name(server: Server, path: str) -> None:
    """Reading is all that such a page wants, so nothing is open to it."""
    assert httpx.get(f"{server.url}{path}", headers={"Host": FOREIGN}).status_code == 403


def test_a_foreign_name_spends_nothing(server: Server) -> None:
    """A completion is refused, too, and the model never sees it."""
    body = {"model": MODEL, "messages": HELLO}
    response = httpx.post(f"{server.url}/v1/chat/completions", json=body, headers={"Host": FOREIGN}, timeout=30)
    assert response.status_code == 403
    assert not server.upstream.messages_requests()


def test_a_request_without_a_name_is_no_browsers(server: Server) -> None:
    """Load balancers that speak HTTP/1.0 name no host."""
    with closing(HTTPConnection(urlsplit(server.url).netloc)) as connection:
        connection._http_vsn_str = "HTTP/1.0"  # type: ignore[attr-defined]  # There is no public way to say so.
        connection.putrequest("GET", "/health", skip_host=True)
        connection.endheaders()
        assert connection.getresponse().status == 200


@pytest.mark.parametrize(
    "headers",
    [{"X-Forwarded-Host": "localhost"}, {"Forwarded": "host=localhost"}, {"X-Original-Host": "localhost"}],
)
@pytest.mark.parametrize("trusted", [(), ("127.0.0.1",)])
def test_only_the_request_names_its_host(
    serve: ServerFactory, headers: Mapping[str, str], trusted: tuple[str, ...]
) -> None:
    """What else claims to be the name makes a foreign one no better and a right one no worse, also from a proxy."""
    server = serve(trusted_proxies=trusted, spare_processes=0)
    assert status(server, FOREIGN, **headers) == 403
    foreign = {name: value.replace("localhost", FOREIGN) for name, value in headers.items()}
    assert status(server, "localhost", **foreign) == 200


@pytest.mark.parametrize("keys", [{}, {"api_key": "any"}])
def test_the_operator_names_more(serve: ServerFactory, keys: Mapping[str, str]) -> None:
    """ALLOWED_HOSTS adds names, and those below one; it holds for servers with keys as well."""
    server = serve(allowed_hosts="claude.example, *.our.example", spare_processes=0, **keys)
    bearer = {"Authorization": "Bearer any"}
    right = ("claude.example", "Claude.Example:443", "a.our.example", "b.a.our.example", "127.0.0.1", "localhost")
    assert {host: status(server, host, **bearer) for host in right} == dict.fromkeys(right, 200)
    wrong = (FOREIGN, "x.claude.example", "our.example", "evilour.example", "claude.example.evil.example")
    assert {host: status(server, host, **bearer) for host in wrong} == dict.fromkeys(wrong, 403)


def test_with_keys_or_a_star_any_name_is_right(serve: ServerFactory) -> None:
    """A page that has no key reads nothing, by whatever name; and an operator may want all names."""
    assert status(serve(api_key="any", spare_processes=0), FOREIGN, Authorization="Bearer any") == 200
    assert status(serve(allowed_hosts="*", spare_processes=0), FOREIGN) == 200
