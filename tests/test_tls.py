"""nginx, which ends TLS in front of a server, as the README has it."""

import re
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from chat import HELLO, MODEL
from commands import Start
from conftest import REPOSITORY
from demo_upstream import DemoUpstream, Gate, Reply
from real_services import find_program, free_port, running_nginx

pytestmark = pytest.mark.real_services
CLIENT = "127.0.0.2"
"""Another address than nginx's own."""


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for localhost, with its key beside it."""
    path = tmp_path / "localhost.pem"
    making = ("req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=localhost")
    names = ("-addext", "subjectAltName=DNS:localhost")
    files = ("-keyout", str(path.with_suffix(".key")), "-out", str(path))
    subprocess.run([find_program("openssl"), *making, *names, *files], check=True, capture_output=True)
    return path


def configuration(server: str, port: int, certificate: Path) -> str:
    """The README's, with this test's places in it."""
    (shown,) = re.findall(r"```nginx\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    site = str(shown)
    for theirs, ours in {
        "listen 443": f"listen 127.0.0.1:{port}",
        "/etc/ssl/claude.example.com.pem": str(certificate),
        "/etc/ssl/private/claude.example.com.key": str(certificate.with_suffix(".key")),
        "http://127.0.0.1:8000": server,
    }.items():
        assert theirs in site
        site = site.replace(theirs, ours)
    return site


def test_streams_come_through_tls_piece_by_piece(
    start: Start, upstream: DemoUpstream, api_key_environment: dict[str, str], certificate: Path
) -> None:
    """The first word is there before there is a second; the server knows its client's address and scheme."""
    gate = Gate(after=1)
    upstream.script(Reply(text=["One ", "two."], gate=gate))
    login = {name: value for name, value in api_key_environment.items() if name.startswith("ANTHROPIC_")}
    command = start("main.py", "0", TRUSTED_PROXIES="127.0.0.1", LOG_FORMAT="json", **login)
    url, port = command.url(), free_port()
    trust = ssl.create_default_context(cafile=certificate)
    transport = httpx.HTTPTransport(verify=trust, local_address=CLIENT)
    address = f"https://localhost:{port}"
    body = {"model": MODEL, "messages": HELLO, "stream": True}
    with running_nginx(configuration(url, port, certificate)), httpx.Client(transport=transport, timeout=30) as http:
        with http.stream("POST", f"{address}/v1/chat/completions", json=body) as response:
            events = (line for line in response.iter_lines() if line)
            assert ['"content":""' in next(events), '"content":"One "' in next(events)] == [True, True]
            gate.open()
            assert ["two." in next(events), '"stop"' in next(events), next(events)] == [True, True, "data: [DONE]"]
        assert command.next_request()["client"] == CLIENT
        told = http.post(f"{address}/v1/debug/request", json={})
    assert told.json()["debug_info"]["url"] == f"{address}/v1/debug/request"
    assert told.headers["strict-transport-security"] == "max-age=31536000"
