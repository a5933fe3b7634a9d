"""Web pages that come from somewhere else, with a browser on this machine."""

import re

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from browser_guards import OriginGuard
from chat import HELLO, MODEL, post
from conftest import Server, ServerFactory


async def nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """An application."""


async def receive() -> Message:
    """No body."""
    return {"type": "http.request"}


async def send(_message: Message) -> None:
    """Nobody listens."""


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("server", "warnings"), [("192.168.1.2", 1), ("::ffff:10.0.0.1", 1), ("127.0.0.1", 0), ("::1", 0), (None, 0)]
)
async def test_a_keyless_server_that_others_reach_says_so_once(
    caplog: pytest.LogCaptureFixture, server: str | None, warnings: int
) -> None:
    """Whatever HOST says: `uvicorn --host` isn't told to us, but where a request arrives is."""
    guard = OriginGuard(nothing)
    scope: Scope = {"type": "http", "method": "GET", "headers": [], "server": (server, 8000) if server else None}
    for _ in range(2):
        await guard(scope, receive, send)
    assert len(caplog.records) == warnings


KEYLESS = [
    ("127.0.0.1:8000", 200),
    ("[::1]:8000", 200),
    ("localhost", 200),
    ("LOCALHOST.:8000", 200),
    ("claude.localhost", 200),
    ("claude-wrapper:8000", 200),
    ("host.docker.internal", 200),
    ("10.1.2.3", 200),
    ("evil.example", 403),
    ("localhost.evil.example:8000", 403),
    ("127.0.0.1.evil.example", 403),
    ("127.0.0.1:8000.evil.example", 200),  # No name at all: no browser sends it.
]


@pytest.mark.parametrize(("host", "status"), KEYLESS)
def test_a_server_without_keys_is_called_by_its_own_names(server: Server, host: str, status: int) -> None:
    """A page that was pointed to this machine (DNS rebinding) has a name of its own, and reads nothing."""
    answer = httpx.get(f"{server.url}/version", headers={"Host": host, "X-Forwarded-Host": "localhost"})
    assert answer.status_code == status
    assert status == 200 or answer.json()["error"]["code"] == "unknown_host"


@pytest.mark.parametrize(
    ("host", "status"),
    [("api.example", 200), ("API.example:443", 200), ("a.b.example", 200), ("b.example", 403), ("127.0.0.1", 403)],
)
def test_allowed_hosts_are_the_only_ones(serve: ServerFactory, host: str, status: int) -> None:
    """Where the operator names them, with keys as well."""
    url = serve(api_key="a-key", allowed_hosts="api.example, *.b.example").url
    headers = {"Host": host, "Authorization": "Bearer a-key", "X-Forwarded-Host": "api.example"}
    assert httpx.get(f"{url}/version", headers=headers).status_code == status


def test_with_keys_any_name_will_do(serve: ServerFactory) -> None:
    """Who has a key may come by whatever name."""
    url = serve(api_key="a-key").url
    headers = {"Host": "anything.example", "Authorization": "Bearer a-key"}
    assert httpx.get(f"{url}/version", headers=headers).status_code == 200


# What browsers may do with answers


def test_every_answer_has_the_security_headers(server: Server) -> None:
    """Whole ones, streams, pages, and errors of each kind."""
    answers = [
        *(httpx.get(f"{server.url}{path}") for path in ("/", "/docs", "/health", "/openapi.json", "/nowhere")),
        *(post(server, model=MODEL, messages=HELLO, stream=stream) for stream in (False, True)),
        post(server),
        httpx.get(f"{server.url}/health", headers={"Host": "evil.example"}),
    ]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "no-store" in answer.headers["cache-control"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_the_documentations_page_may_load_what_it_needs(server: Server) -> None:
    """Its policy lets it load every script and style that it names, and ask for the document; others load nothing."""
    page = httpx.get(f"{server.url}/docs")
    policy = page.headers["content-security-policy"]
    for source in re.findall(r'(?:src|href)="(https://[^/"]+)', page.text):
        assert source in policy
    assert "connect-src 'self'" in policy
    assert "default-src 'none'; frame-ancestors" in httpx.get(f"{server.url}/health").headers["content-security-policy"]


@pytest.mark.parametrize(("origins", "allowed"), [("*", "*"), ("https://a.example", "https://a.example")])
def test_no_page_gets_credentials(serve: ServerFactory, origins: str, allowed: str) -> None:
    """Pages may call as CORS_ORIGINS says, but never with what a browser keeps of its user: keys come from the page."""
    url = serve(api_key="a-key", cors_origins=origins).url
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    for answer in (httpx.options(f"{url}/v1/models", headers=headers), httpx.get(f"{url}/v1/models", headers=headers)):
        assert answer.headers["access-control-allow-origin"] == allowed
        assert "access-control-allow-credentials" not in answer.headers
    stranger = httpx.get(f"{url}/v1/models", headers={"Origin": "https://b.example"})
    assert stranger.headers.get("access-control-allow-origin") == ("*" if origins == "*" else None)
