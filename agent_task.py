"""What a turn may do with Claude Code's own tools, and how a process is started that has them: values, nothing else."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

PermissionMode = Literal["default", "acceptEdits", "plan", "dontAsk", "bypassPermissions"]
"""Claude Code's own modes. Nobody can be asked here, so the first two do the same as `dontAsk`."""

PERMISSION_MODES: tuple[PermissionMode, ...] = get_args(PermissionMode)


@dataclass(frozen=True)
class Narrowing:
    """Which of its tools a request, or a session, wants: only `allowed`, where it says so, and not `denied`."""

    allowed: tuple[str, ...] | None = None
    denied: tuple[str, ...] = ()


ALL_TOOLS = Narrowing()
"""Nothing is narrowed."""


@dataclass(frozen=True)
class Confinement:
    """What commands must not read in a sandbox: files and directories, and variables."""

    hidden: tuple[Path, ...]
    variables: tuple[str, ...]


@dataclass(frozen=True)
class AgentLaunch:
    """What a process with tools of its own can't change after its start."""

    tools: tuple[str, ...]
    """Claude Code's, by their names."""
    scratch: Path
    """In which it gets a directory for what it puts aside, and what it is told in files."""
    has_own_workspace: bool = False
    """Whether it works in an empty directory of its own, which is made in the profile's and goes with the process."""
    mcp_servers: str = field(default="", repr=False)
    """The operator's, as JSON in the form of `.mcp.json`; it may have secrets in it."""
    max_turns: int | None = None
    max_budget_usd: float | None = None
    may_bypass: bool = False
    confinement: Confinement | None = None
    """Of commands; None: they may do what the server's user may."""
    keeps_spares: bool = True
    """Whether others will want the like of it."""


@dataclass(frozen=True)
class Grant:
    """What one turn may use. A process has no more tools than that, but for what is narrowed here."""

    tools: frozenset[str]
    """Claude Code's own."""
    mcp_tools: frozenset[str] = frozenset()
    """Of MCP servers: `mcp__SERVER`, `mcp__SERVER__TOOL`."""
    denied: frozenset[str] = frozenset()
    """Tools of those servers that aren't meant."""
    mode: PermissionMode = "default"
    most_bytes: int | None = None
    """How large the working directory may be; None: it isn't ours to say."""
    fetches_by_proxy: bool = False
    """Whether pages are fetched by a proxy, which may know names that this host doesn't."""


@dataclass(frozen=True)
class AgentTask:
    """The part of a request that is about Claude Code's own tools."""

    grant: Grant
    request_id: str
    """For the log."""
    tells_steps: bool
    """Whether the client gets the text of every step, or only that of the last."""
