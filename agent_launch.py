"""How a process with tools of its own is started: flags, variables, and files that only it is to find."""

import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from agent_task import AgentLaunch
from sandbox import sandbox_settings

# What its own check doesn't pass it asks us for, where it is denied and logged.
AGENT_FLAGS = ("--permission-mode", "default", "--permission-prompt-tool", "stdio")

MCP_TIMEOUT_SECONDS = 10

_ENVIRONMENT: Mapping[str, str] = {
    # It would tell one client what it was told by another.
    "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
    # A command that goes on behind an answer belongs to nobody.
    "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
    # An operator's MCP server that doesn't start in this time is reported, and done without.
    "MCP_TIMEOUT": str(MCP_TIMEOUT_SECONDS * 1000),
    # Claude Code asks npm where its packages are, which leaves a log in the home each time.
    "npm_config_logs_max": "0",
}
# For Claude Code, and for what it runs: by itself it has one directory for all processes of a user.
_TEMPORARY = ("CLAUDE_CODE_TMPDIR", "CLAUDE_TMPDIR", "TMPDIR", "XDG_CACHE_HOME")


def for_agent(agent: AgentLaunch, directory: Path, scratch: Path) -> tuple[Sequence[str], Mapping[str, str]]:
    """Return the flags and the variables of a process that works in `directory`, and write its files to `scratch`."""
    temporary = scratch / "tmp"
    temporary.mkdir()
    settings = _settings(agent, directory, temporary)
    flags = [*AGENT_FLAGS, "--tools", ",".join(agent.tools), "--settings", json.dumps(settings), *_limits(agent)]
    if agent.mcp_servers:
        # A command line can be read by everyone on this machine; this directory can't.
        config = scratch / "mcp.json"
        config.write_text(agent.mcp_servers, encoding="utf-8")
        flags += ["--mcp-config", str(config)]
    if agent.may_bypass:
        flags.append("--allow-dangerously-skip-permissions")
    return flags, {**_ENVIRONMENT, **dict.fromkeys(_TEMPORARY, str(temporary))}


def _limits(agent: AgentLaunch) -> Iterator[str]:
    if agent.max_turns is not None:
        yield from ("--max-turns", str(agent.max_turns))
    if agent.max_budget_usd is not None:
        # Without an exponent, which the CLI doesn't read.
        yield from ("--max-budget-usd", format(Decimal(str(agent.max_budget_usd)), "f"))


def _settings(agent: AgentLaunch, directory: Path, temporary: Path) -> Mapping[str, Any]:
    settings: dict[str, Any] = {
        # Commits are the client's, not ours to sign.
        "attribution": {"commit": "", "pr": ""},
        # Claude Code would ask claude.ai about every address; which ones may be fetched tool_policy.py says.
        "skipWebFetchPreflight": True,
    }
    if agent.confinement:
        settings["sandbox"] = sandbox_settings(agent.confinement, directory, temporary)
    return settings
