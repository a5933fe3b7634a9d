"""The operator's file of MCP servers: what is read from it, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from config import ConfigurationError
from mcp_config import load_mcp_servers


def write(directory: Path, value: object) -> Path:
    """Write a file of this JSON."""
    path = directory / ".mcp.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_variables_are_filled_in(tmp_path: Path) -> None:
    """Everywhere, with a default where there is one; what Claude Code knows besides stays as it is."""
    servers = {
        "local": {"command": "${BIN}/notes", "args": ["--port", "${PORT:-80}"], "env": {"TOKEN": "${TOKEN}"}},
        "far": {"type": "http", "url": "https://${HOST:-notes.example}/mcp", "headers": {"X": "a ${TOKEN}"}, "new": 1},
    }
    read = load_mcp_servers(write(tmp_path, {"mcpServers": servers}), {"BIN": "/opt", "TOKEN": "t", "HOME": "/srv/me"})
    assert read.names == ("local", "far")
    assert json.loads(read.written(["local"])) == {
        "mcpServers": {
            "local": {
                "command": "/opt/notes",
                "args": ["--port", "80"],
                "env": {"XDG_CACHE_HOME": "/srv/me/.cache", "TOKEN": "t"},
            }
        }
    }
    far = json.loads(read.written(["far"]))["mcpServers"]["far"]
    assert far == {"type": "http", "url": "https://notes.example/mcp", "headers": {"X": "a t"}, "new": 1}
    assert read.written([]) == ""


def test_no_file_is_no_server() -> None:
    """An operator needn't have any."""
    assert load_mcp_servers(None, {}).names == ()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "is no JSON"),
        ([], "can't be used"),
        ({}, "mcpServers: Field required"),
        ({"mcpServers": {"a": {}}}, "a needs either a command or a url"),
        ({"mcpServers": {"a": {"command": "x", "url": "y"}}}, "a needs either a command or a url"),
        ({"mcpServers": {"a__b": {"command": "x"}}}, "'a__b' can't be a server's name"),
        ({"mcpServers": {"a b": {"command": "x"}}}, "'a b' can't be a server's name"),
        ({"mcpServers": {"a": {"command": 7}}}, "mcpServers.a.command"),
        ({"mcpServers": {"a": {"command": "x", "env": {"K": "${NOT_SET}"}}}}, "the variable NOT_SET, which isn't set"),
    ],
    ids=str,
)
def test_mistakes_are_told_without_values(tmp_path: Path, value: Any, message: str) -> None:
    """A start ends with what is wrong and where; no secret is in it."""
    with pytest.raises(ConfigurationError, match="MCP_CONFIG ") as error:
        load_mcp_servers(write(tmp_path, value), {"SECRET": "s"})
    assert message in str(error.value)


def test_a_file_that_isnt_there_is_told(tmp_path: Path) -> None:
    """By its name."""
    with pytest.raises(ConfigurationError, match=r"missing\.json can't be read: No such file"):
        load_mcp_servers(tmp_path / "missing.json", {})
