"""The nginx that ends TLS in front of the server, configured as the repository ships it."""

import ssl
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chat import HELLO, MODEL
from config import Settings
from conftest import REPOSITORY, make_settings, serving
from demo_upstream import DemoUpstream, Gate, Reply
from main import create_app
from real_services import find_program, free_port, running_nginx

pytestmark = pytest.mark.real_services

SHIPPED = (REPOSITORY / "deploy" / "nginx-tls.conf").read_text(encoding="utf-8")
NAME = "claude.example.com"
CLIENT, PROXY = "127.0.0.1", "127.0.0.2"
"""The client's address, and the one that nginx comes from."""


@dataclass
class Seen:
    """An app, and from whom and how its requests came, as the app itself was told in the end."""

    app: ASGIApp
    requests: list[tuple[str, str]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.requests.append((scope["client"][0], scope["scheme"]))
            await send(message)

        await self.app(scope, receive, noting)


@dataclass(frozen=True)
class Front:
    """An nginx with a server behind it: its ports, the certificate that it shows, and what the server saw."""

    tls: int
    plain: int
    certificate: Path
    seen: Seen

    @property
    def trust(self) -> ssl.SSLContext:
        """What trusts this certificate and no other."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Fetch a path."""
        return httpx.get(f"{self.url}{path}", verify=self.trust, timeout=30, **options)

    @property
    def url(self) -> str:
        """Where it is reached by a name that the certificate has."""
        return f"https://localhost:{self.tls}"


def certify(directory: Path) -> tuple[Path, Path]:
    """Make a certificate that signs itself, and its key."""
    certificate, key = directory / "fullchain.pem", directory / "privkey.pem"
    request = [find_program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},DNS:localhost"]
    subprocess.run([*request, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=60)
    return certificate, key


def configuration(replacements: Mapping[str, str]) -> str:
    """The shipped file with what an operator has to change."""
    text = SHIPPED
    for shipped, ours in replacements.items():
        assert shipped in text, shipped
        text = text.replace(shipped, ours)
    return text


@pytest.fixture
def front(upstream: DemoUpstream, api_key_environment: Mapping[str, str], tmp_path: Path) -> Iterator[Front]:
    """The real nginx before the real server."""
    certificate, key = certify(tmp_path)
    settings = make_settings(api_key_environment, trusted_proxies=(PROXY,), api_key="sesame", spare_processes=0)
    seen = Seen(create_app(settings))
    with serving(seen) as url:
        front = Front(free_port(), free_port(), certificate, seen)
        site = configuration(
            {
                # Streams ask nginx for themselves not to be held up: here it has to know.
                "proxy_buffering off;": "proxy_ignore_headers X-Accel-Buffering; proxy_buffering off;",
                "server 127.0.0.1:8000;": f"server {url.removeprefix('http://')};",
                "listen 80;": f"listen 127.0.0.1:{front.plain};",
                "listen 443 ssl;": f"listen 127.0.0.1:{front.tls} ssl;",
                f"server_name {NAME};": f"server_name {NAME} localhost;",
                "proxy_http_version 1.1;": f"proxy_http_version 1.1; proxy_bind {PROXY};",
                "/etc/nginx/tls/fullchain.pem": str(certificate),
                "/etc/nginx/tls/privkey.pem": str(key),
            }
        )
        with running_nginx(site):
            yield front


def test_a_stream_comes_through_tls_as_it_is_written(front: Front, upstream: DemoUpstream) -> None:
    """The first chunk is with a published client while the model holds back the second; the server knows from whom."""
    gate = Gate(after=1)
    upstream.script(Reply(text=["first ", "second"], gate=gate))
    transport = openai.DefaultHttpxClient(verify=front.trust)
    with openai.OpenAI(base_url=f"{front.url}/v1", api_key="sesame", max_retries=0, http_client=transport) as client:
        chunks = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
        texts = (chunk.choices[0].delta.content for chunk in chunks)
        assert next(text for text in texts if text) == "first "
        gate.open()
        assert "".join(text or "" for text in texts) == "second"
    assert front.seen.requests == [(CLIENT, "https")]


def test_nobody_chooses_an_address_or_a_scheme(front: Front) -> None:
    """What a client claims of itself is replaced by nginx."""
    claims = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http", "Forwarded": "for=203.0.113.9;proto=http"}
    assert front.get("/health", headers=claims).status_code == 200
    assert front.seen.requests == [(CLIENT, "https")]


def test_answers_tell_browsers_to_stay_with_tls(front: Front) -> None:
    """HSTS is nginx' affair, on errors too, beside the server's own headers."""
    for path, status in (("/health", 200), ("/v1/models", 401)):
        response = front.get(path)
        assert (response.status_code, response.headers["x-frame-options"]) == (status, "DENY")
        assert response.headers["strict-transport-security"] == "max-age=31536000"


def test_without_tls_there_is_no_answer(front: Front) -> None:
    """A key that goes over the wire in the open is not made to work by a redirect: nothing reaches the server."""
    response = httpx.get(f"http://127.0.0.1:{front.plain}/v1/models", headers={"Authorization": "Bearer sesame"})
    assert (response.status_code, response.json()["error"]["type"]) == (403, "invalid_request_error")
    assert not front.seen.requests


def test_nginx_takes_bodies_as_large_as_the_server() -> None:
    """The limit is MAX_REQUEST_SIZE."""
    assert f"client_max_body_size {Settings.model_fields['max_request_size'].default};" in SHIPPED


@pytest.mark.parametrize(("trusted", "told"), [((), (CLIENT, "http")), ((CLIENT,), ("203.0.113.9", "https"))])
def test_addresses_and_schemes_are_believed_from_trusted_proxies_only(
    api_key_environment: Mapping[str, str], trusted: tuple[str, ...], told: tuple[str, str]
) -> None:
    """X-Forwarded-For and X-Forwarded-Proto count where TRUSTED_PROXIES has the sender, and Forwarded nowhere."""
    seen = Seen(create_app(make_settings(api_key_environment, trusted_proxies=trusted, spare_processes=0)))
    claims = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "Forwarded": "for=198.51.100.1"}
    with serving(seen) as url:
        httpx.get(f"{url}/health", headers=claims).raise_for_status()
    assert seen.requests == [told]
