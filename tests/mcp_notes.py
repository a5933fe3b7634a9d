"""A small MCP server for the tests, written with the `mcp` package: a program on stdio, or an app."""

import os

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


if __name__ == "__main__":
    server.run()
