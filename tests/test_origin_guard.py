"""Pages that call a server without keys, where it is seen without a server; test_browser_headers.py has the rest."""

import pytest
from starlette.types import Message, Receive, Scope, Send

from origin_guard import OriginGuard


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
