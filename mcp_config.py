"""The operator's MCP servers: what stands in a file of `.mcp.json`'s form, with its variables filled in.

Source: https://code.claude.com/docs/en/mcp
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from config import ConfigurationError

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
# What a name becomes a part of: a tool's name for Claude's API, and a list in a header.
_NAME = re.compile(r"(?!.*__)[A-Za-z0-9_-]{1,40}")


class _Server(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    command: str | None = None
    url: str | None = None


class _File(BaseModel):
    servers: dict[str, _Server] = Field(alias="mcpServers")


class McpServers:
    """The servers, by their names. In their values are secrets: they are told to Claude Code alone."""

    def __init__(self, servers: Mapping[str, Mapping[str, Any]]) -> None:
        """Take the servers as they were read."""
        self._servers = dict(servers)

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, in the file's order."""
        return tuple(self._servers)

    def written(self, names: Iterable[str]) -> str:
        """Return these servers as Claude Code reads them; nothing where there are none."""
        chosen = {name: self._servers[name] for name in sorted(names)}
        return json.dumps({"mcpServers": chosen}) if chosen else ""


def load_mcp_servers(path: Path | None, variables: Mapping[str, str]) -> McpServers:
    """Read a file of servers; `${NAME}` and `${NAME:-default}` in it are filled in from `variables`.

    Raises ConfigurationError; no value is in its message.
    """
    if path is None:
        return McpServers({})
    try:
        read = _File.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigurationError(f"MCP_CONFIG {path} can't be read: {error.strerror}") from error
    except ValidationError as error:
        rows = error.errors(include_input=False, include_url=False)
        found = "; ".join(f"{'.'.join(map(str, row['loc']))}: {row['msg']}" for row in rows)
        raise ConfigurationError(f"MCP_CONFIG {path} can't be used: {found}") from error
    except ValueError as error:
        raise ConfigurationError(f"MCP_CONFIG {path} is no JSON: {error}") from error
    for name, server in read.servers.items():
        _check(path, name, server)
    dumped = {name: server.model_dump(exclude_none=True) for name, server in read.servers.items()}
    filled = {name: _filled_in(server, variables, path) for name, server in dumped.items()}
    return McpServers({name: _with_cache(server, variables) for name, server in filled.items()})


def _with_cache(server: Mapping[str, Any], variables: Mapping[str, str]) -> Mapping[str, Any]:
    """Let a program have the user's cache, where uvx and its like keep it: Claude Code has another one."""
    cache = variables.get("XDG_CACHE_HOME") or str(Path(variables.get("HOME", "~")).expanduser() / ".cache")
    return {**server, "env": {"XDG_CACHE_HOME": cache, **server.get("env", {})}} if "command" in server else server


def _check(path: Path, name: str, server: _Server) -> None:
    if not _NAME.fullmatch(name):
        allowed = "1 to 40 letters, digits, - and _, but not __"
        raise ConfigurationError(f"MCP_CONFIG {path}: {name[:64]!r} can't be a server's name: {allowed}.")
    if (server.command is None) == (server.url is None):
        raise ConfigurationError(f"MCP_CONFIG {path}: {name} needs either a command or a url.")


def _filled_in(value: Any, variables: Mapping[str, str], path: Path) -> Any:
    if isinstance(value, dict):
        return {name: _filled_in(each, variables, path) for name, each in value.items()}
    if isinstance(value, list):
        return [_filled_in(each, variables, path) for each in value]
    return _VARIABLE.sub(lambda found: _value(found, variables, path), value) if isinstance(value, str) else value


def _value(found: re.Match[str], variables: Mapping[str, str], path: Path) -> str:
    name, default = found.groups()
    if name in variables:
        return variables[name]
    if default is None:
        raise ConfigurationError(f"MCP_CONFIG {path} uses the variable {name}, which isn't set.")
    return str(default)
