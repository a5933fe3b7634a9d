"""A small MCP server for the tests, written with the `mcp` package: a program on stdio, or an app on loopback."""

import os
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
from mcp.server.mcpserver import MCPServer

server = MCPServer("notes")
notes: list[str] = []
"""What was noted by the one in this process."""


@server.tool()
def note(text: str) -> str:
    """Keep a note."""
    notes.append(text)
    return f"noted: {text} ({os.environ.get('NOTEBOOK', 'no notebook')})"


@server.tool()
def forget() -> str:
    """Forget all notes."""
    notes.clear()
    return "forgotten"


@contextmanager
def served() -> Generator[str, None, None]:
    """Serve it over streamable HTTP; yields the address."""
    notes.clear()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        http = uvicorn.Server(
            uvicorn.Config(server.streamable_http_app(), log_config=None, timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=http.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        finally:
            http.should_exit = True
            thread.join(timeout=30)


if __name__ == "__main__":
    server.run()
