"""Claude Code's own tools, as far as this server lets anybody use them, and how tools are named.

A name is that of a tool here, or of tools of an MCP server: `mcp__SERVER` for all, `mcp__SERVER__TOOL` for one.
Source: https://code.claude.com/docs/en/tools-reference
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Category = Literal["read", "write", "run", "web"]


@dataclass(frozen=True)
class OwnTool:
    """One of Claude Code's tools; `places` are those of its arguments that name a file or a directory."""

    description: str
    category: Category
    places: tuple[str, ...] = ()

    @property
    def is_safe(self) -> bool:
        """Whether it only reads."""
        return self.category == "read"


OWN_TOOLS: Mapping[str, OwnTool] = {
    "Read": OwnTool("Read a file.", "read", ("file_path",)),
    "Glob": OwnTool("Find files by a pattern of their names.", "read", ("path",)),
    "Grep": OwnTool("Search the contents of files.", "read", ("path",)),
    "Edit": OwnTool("Change a part of a file.", "write", ("file_path",)),
    "Write": OwnTool("Write a file.", "write", ("file_path",)),
    "NotebookEdit": OwnTool("Change a cell of a Jupyter notebook.", "write", ("notebook_path",)),
    "Bash": OwnTool("Run a command.", "run"),
    "WebFetch": OwnTool("Fetch a page and answer a question about it.", "web"),
    "WebSearch": OwnTool("Search the web, by Claude's API.", "web"),
}

READING_TOOLS = tuple(name for name, tool in OWN_TOOLS.items() if tool.is_safe)

_MCP = "mcp__"
_SEPARATOR = "__"


def check_tool(name: str) -> str:
    """Return a name that a tool, or the tools of an MCP server, may have. Raises ValueError, which says what can."""
    if name in OWN_TOOLS or (server_of(name) and name.isprintable() and "," not in name):
        return name
    known = ", ".join(OWN_TOOLS)
    raise ValueError(f"'{name[:64]}' is no tool of this server: {known}, or mcp__SERVER, mcp__SERVER__TOOL")


def server_of(name: str) -> str | None:
    """Return the MCP server whose tools a name is of; None where it is no such name."""
    return name.removeprefix(_MCP).partition(_SEPARATOR)[0] or None if name.startswith(_MCP) else None


def tools_of(server: str) -> str:
    """Return the name of all tools of a server."""
    return _MCP + server


def is_covered(name: str, granted: Iterable[str]) -> bool:
    """Whether a name, or the server's that it belongs to, is among those granted."""
    server = server_of(name)
    return not {*granted}.isdisjoint({name} if server is None else {name, tools_of(server)})
