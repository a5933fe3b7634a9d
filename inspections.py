"""What a Claude Code process tells of itself without a turn: values, nothing else."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Account:
    """Whose login Claude Code found, in its own words (`account` of its `initialize` answer)."""

    token_source: str | None
    api_key_source: str | None
    api_provider: str | None

    @property
    def signed_in(self) -> bool:
        """Whether Claude Code found a login. Clouds have their own, which it doesn't judge here."""
        return self.api_provider != "firstParty" or bool(self.api_key_source) or self.token_source not in (None, "none")


@dataclass(frozen=True)
class ClaudeModel:
    """One row of Claude Code's `list_models`: `alias` is what to ask for, `id` what it stands for today."""

    alias: str
    id: str
    can_stop_thinking: bool = True


@dataclass(frozen=True)
class Inspection:
    """What a Claude Code process tells of itself without a turn."""

    account: Account
    models: tuple[ClaudeModel, ...]


@dataclass(frozen=True)
class McpServer:
    """An MCP server as Claude Code sees it, in its own words; its tools' names once it is connected."""

    name: str
    status: str
    tools: tuple[str, ...] = ()
    error: str | None = None
