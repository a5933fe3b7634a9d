"""What a fresh process tells of itself: its login, its models, its MCP servers. Nothing is sent to Claude."""

from collections.abc import Mapping
from typing import Any

import anyio

from agent_launch import MCP_TIMEOUT_SECONDS
from claude_process import ClaudeProcess
from inspections import Account, ClaudeModel, Inspection, McpServer
from turns import Binding

# Somewhat longer than Claude Code itself waits.
_PATIENCE_SECONDS = MCP_TIMEOUT_SECONDS + 2
_MCP_INTERVAL_SECONDS = 0.1
_NOTHING = Binding("", None)
_WITH_TOOLS = Binding("", None, has_own_tools=True)


async def inspect(process: ClaudeProcess) -> Inspection:
    """Ask for the login and the models. Raises ClaudeCodeError."""
    info = await process.initialize(_NOTHING)
    listed = await process.control("list_models")
    account = info.get("account", {})
    return Inspection(
        account=Account(account.get("tokenSource"), account.get("apiKeySource"), account.get("apiProvider")),
        models=tuple(map(_claude_model, listed.get("models", []))),
    )


async def mcp_servers(process: ClaudeProcess) -> tuple[McpServer, ...]:
    """Ask for the MCP servers, when each has started or failed to. Raises ClaudeCodeError."""
    await process.initialize(_WITH_TOOLS)
    rows = await _mcp_status(process)
    with anyio.move_on_after(_PATIENCE_SECONDS):
        while any(row["status"] == "pending" for row in rows):
            await anyio.sleep(_MCP_INTERVAL_SECONDS)  # Nothing tells when.
            rows = await _mcp_status(process)
    return tuple(map(_mcp_server, rows))


async def _mcp_status(process: ClaudeProcess) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (await process.control("mcp_status")).get("mcpServers", [])
    return rows


def _claude_model(row: Mapping[str, Any]) -> ClaudeModel:
    alias = row["value"]
    can_stop_thinking = row.get("supportsThinkingOff") is not False
    return ClaudeModel(alias, row.get("resolvedModel") or alias, can_stop_thinking=can_stop_thinking)


def _mcp_server(row: Mapping[str, Any]) -> McpServer:
    tools = tuple(tool["name"] for tool in row.get("tools") or ())
    return McpServer(row["name"], row["status"], tools, row.get("error"))
