"""The only reader of the environment: one frozen `Settings`, from the process environment and `.env`.

A value that makes no sense is refused at start, with the name of the variable. The table in the README and
`.env.example` repeat these fields' descriptions, and a test keeps them in step.
"""

import logging
import os
import re
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import (
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from setting_types import (
    CustomHeaders,
    HostNames,
    LogFormat,
    NameMap,
    Networks,
    RedisUrl,
    Seconds,
    Secret,
    SecretList,
    ToolNames,
)
from tool_catalog import READING_TOOLS

logger = logging.getLogger(__name__)

VERSION = "0.1.0"
ENV_FILE = Path(".env")
_TIMEOUT_BELOW_THIS_IS_SECONDS = 1000
LEAST_THINKING_TOKENS = 1024
"""Claude's API takes no smaller budget; https://platform.claude.com/docs/en/build-with-claude/extended-thinking"""
MOST_THINKING_TOKENS = 1_000_000
"""More than any model takes: no slip of the keyboard."""

AuthMethod = Literal["claude_cli", "anthropic", "oauth_token", "bedrock", "vertex"]


class ConfigurationError(Exception):
    """The settings can't be used; the message says which and why, and never a secret's value."""


def _process_environment() -> Mapping[str, str]:
    # Compose files pass on variables that are set to nothing: as good as unset, as pydantic-settings has it.
    both = {**dotenv_values(ENV_FILE), **{name: value for name, value in os.environ.items() if value}}
    return {name: value for name, value in both.items() if value}


class Settings(BaseSettings):
    """Everything that an operator can set. Names are the variables' names in lower case."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILE, env_ignore_empty=True, extra="ignore", frozen=True, str_strip_whitespace=True
    )

    host: str = Field(default="127.0.0.1", description="Address to listen on. `0.0.0.0` in the image.")
    port: int = Field(
        default=8000, ge=0, le=65535, description="Port to listen on; a busy one moves to the next free one."
    )
    api_key: Secret | None = Field(
        default=None,
        description="Key that clients must send as `Authorization: Bearer …`. None: whoever reaches the port may ask.",
    )
    api_keys: SecretList = Field(default=(), description="More such keys, separated by commas.")
    api_keys_file: Path | None = Field(
        default=None,
        description="TOML file of more keys, by their hashes, each with a name and limits of its own; "
        "read again when it changes. `python main.py keys new` makes an entry.",
    )
    trusted_proxies: Networks = Field(
        default=(),
        description="Addresses or networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed, "
        "with commas. None: nobody's.",
    )
    allowed_hosts: HostNames = Field(
        default=(),
        description="Names that the server may be called by, with commas; `*.a.example`: all below that one, `*`: any. "
        "Addresses, `localhost`, names without a dot and `host.docker.internal` are always right. "
        "None: with keys any name, without keys no other.",
    )
    rate_limit_enabled: bool = Field(default=True, description="`false`: no limits for client addresses.")
    rate_limit_chat_per_minute: int = Field(
        default=10, gt=0, description="Chat completions a minute that a client's address may ask for."
    )
    rate_limit_session_per_minute: int = Field(
        default=15,
        gt=0,
        description="Requests a minute to `/v1/sessions`, `/v1/usage`, `/v1/tools/config` and `/v1/mcp/servers`, "
        "for an address.",
    )
    rate_limit_auth_per_minute: int = Field(
        default=10, gt=0, description="Requests a minute to `/v1/auth/status`, for an address."
    )
    rate_limit_debug_per_minute: int = Field(
        default=2, gt=0, description="Requests a minute to `/v1/debug/request`, for an address."
    )
    rate_limit_health_per_minute: int = Field(
        default=30, gt=0, description="Requests a minute to `/health`, for an address."
    )
    rate_limit_fail_open: bool = Field(
        default=True,
        description="While Redis is away: `true` lets requests pass unlimited and unbudgeted, `false` answers 503.",
    )
    session_ttl_seconds: Seconds = Field(
        default=3600, gt=0, description="Seconds after its last turn that a session is forgotten."
    )
    session_max_count: int = Field(default=1000, gt=0, description="Sessions that one API key may have at a time.")
    session_max_messages: int = Field(default=1000, gt=0, description="Messages that one session may have.")
    redis_url: RedisUrl | None = Field(
        default=None,
        description="Redis that keeps sessions, limits, budgets and usage, so that several servers share them: "
        "`redis://[:password@]host:port/0`. None: this server's memory.",
    )
    debug_mode: bool = Field(
        default=False, description="`true`: error answers and the log tell how a request's body failed to validate."
    )
    strict_parameters: bool = Field(
        default=False, description="`true`: parameters that would be ignored, or sent otherwise, are refused by name."
    )
    max_n: int = Field(default=8, gt=0, le=64, description="Choices (`n`) that one request may ask for.")
    max_thinking_tokens: int = Field(
        default=0,
        ge=0,
        le=MOST_THINKING_TOKENS,
        description="Tokens that Claude may think in requests that don't mention it; 1024 or more. "
        "0: it doesn't think, where the model can do without.",
    )
    anthropic_custom_headers: CustomHeaders = Field(
        default_factory=dict,
        description='Headers that go along to Claude\'s API, as JSON (`{"anthropic-beta": "…"}`) or one on each line.',
    )
    max_timeout: int = Field(
        default=600_000,
        gt=0,
        description="Milliseconds that one request may take. A value under 1000 is taken as seconds.",
    )
    first_token_timeout: Seconds = Field(
        default=120, gt=0, description="Seconds that Claude's API may take to begin an answer; then 504."
    )
    idle_timeout: Seconds = Field(
        default=300,
        gt=0,
        description="Seconds that it may then be silent in the middle of one; long thoughts that aren't shown are.",
    )
    upstream_retries: int = Field(
        default=2,
        ge=0,
        le=10,
        description="How often a request that fails at Claude's API before the first byte of an answer is made again.",
    )
    shutdown_grace: Seconds = Field(
        default=30,
        ge=0,
        description="Seconds that requests under way may still take when the server is told to stop. Compose and "
        "Kubernetes have to wait 5 s longer before they kill it.",
    )
    max_request_size: int = Field(
        default=32 * 2**20, gt=0, description="Bytes that a request body may have; over it 413."
    )
    max_processes: int | None = Field(
        default=None,
        gt=0,
        description="Claude Code processes that work or keep a conversation warm; requests beyond it wait. "
        "None: 4 for each core, as far as half of the memory allows.",
    )
    spare_processes: int = Field(
        default=2, ge=0, description="Claude Code processes kept started for new conversations, beside the others."
    )
    park_seconds: Seconds = Field(
        default=120, ge=0, description="Seconds that a process waits for the next message of its conversation."
    )
    process_max_turns: int = Field(default=200, gt=0, description="Turns after which a process is replaced.")
    process_max_memory_mb: int = Field(default=600, gt=0, description="Memory (MB) at which a process is replaced.")
    queue_timeout: Seconds = Field(
        default=60, gt=0, description="Seconds that a request waits for a free process; then 503."
    )
    process_reuse: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="`auto`: processes are used again if Claude Code passes a trial at start, on a stand-in. "
        "`on`: without a trial. `off`: a process for every turn.",
    )
    claude_allowed_tools: ToolNames = Field(
        default=READING_TOOLS,
        description="Claude Code's own tools that requests with `enable_tools` may use, with commas: `Read`, `Glob` "
        "and `Grep` read, `Edit`, `Write` and `NotebookEdit` write, `Bash` runs commands, `WebFetch` and `WebSearch` "
        "use the web. See docs/agent.md.",
    )
    claude_cwd: Path | None = Field(
        default=None,
        description="Directory that these tools work in, and don't leave. None: an empty one for each request or "
        "session.",
    )
    workspaces_dir: Path | None = Field(
        default=None,
        description="Directory in which each session with such tools gets a directory of its own, kept as long as the "
        "session; shared only by servers with the same `REDIS_URL`. None: `CLAUDE_CWD`, or else a temporary one.",
    )
    workspace_max_mb: int = Field(
        default=100,
        gt=0,
        description="Size (MB) that a session's or a request's own directory may have: calls that would make it larger "
        "are denied, commands that do so are stopped.",
    )
    claude_max_turns: int = Field(
        default=50,
        gt=0,
        description="How often Claude may be asked in one request with such tools; headers may lower it.",
    )
    claude_max_budget_usd: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="Dollars that one request with such tools may cost; headers may lower it. None: no limit.",
    )
    claude_sandbox: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether `Bash` is confined by Claude Code's sandbox (on Linux: bubblewrap and socat). `auto`: "
        "where that works. `on`: or no start. `off`: commands may do what the server's user may.",
    )
    claude_allow_bypass: bool = Field(
        default=False,
        description="`true`: requests may choose the permission mode `bypassPermissions`, and leave the directory. "
        "Never for root.",
    )
    mcp_config: Path | None = Field(
        default=None, description="File of MCP servers, in the form of `.mcp.json`, for requests with such tools."
    )
    model_aliases: NameMap = Field(
        default_factory=dict, description='Foreign model names for ours, as JSON: `{"gpt-4o": "sonnet"}`.'
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description='Web origins whose pages may call, as JSON (`["https://a.example"]`) or with commas; `*`: all. '
        "None: pages from this machine.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="How much is logged.")
    log_format: LogFormat = Field(
        default="console", description="Form of the log: `console` for people, `json` for programs, one object a line."
    )
    log_prompts: bool = Field(
        default=False,
        description="`true`: what is asked and answered is logged, which nothing else does.",
    )
    demo: bool = Field(
        default=False, description="`true`: no account, answers from the built-in demo upstream (as `--demo`)."
    )
    claude_auth_method: AuthMethod | None = Field(
        default=None,
        description="Force a login: `claude_cli`, `anthropic`, `oauth_token`, `bedrock` or `vertex`. "
        "None: the first that is found.",
    )
    claude_cli_path: str | None = Field(
        default=None, description="Claude Code to run instead of the bundled one: a path, or a name to look up in PATH."
    )
    anthropic_api_key: Secret | None = Field(default=None, description="Login `anthropic`: an Anthropic API key.")
    claude_code_oauth_token: Secret | None = Field(
        default=None,
        description="Login `oauth_token`: what `claude setup-token` prints. For a subscription in a container.",
    )
    claude_use_subscription: bool = Field(default=False, description="`true` is `CLAUDE_AUTH_METHOD=claude_cli`.")
    claude_code_use_bedrock: bool = Field(
        default=False, description="`true`: Amazon Bedrock, with the usual `AWS_…` variables."
    )
    claude_code_use_vertex: bool = Field(
        default=False,
        description="`true`: Google Vertex AI, with `ANTHROPIC_VERTEX_PROJECT_ID`, `CLOUD_ML_REGION` and a login.",
    )

    # Private, or a variable ENVIRONMENT would set it.
    _environment: Mapping[str, str] = PrivateAttr(default_factory=_process_environment)

    @field_validator("max_thinking_tokens")
    @classmethod
    def _none_or_enough(cls, value: int) -> int:
        if 0 < value < LEAST_THINKING_TOKENS:
            raise ValueError(f"Claude's API takes 0, or {LEAST_THINKING_TOKENS} and more")
        return value

    @field_validator("max_timeout")
    @classmethod
    def _seconds_or_milliseconds(cls, value: int) -> int:
        if value >= _TIMEOUT_BELOW_THIS_IS_SECONDS:
            return value
        logger.warning("MAX_TIMEOUT=%d is under 1000 and taken as seconds: %d ms", value, value * 1000)
        return value * 1000

    @field_validator("claude_cwd")
    @classmethod
    def _existing_directory(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_dir():
            raise ValueError("there is no such directory")
        return value and value.resolve()

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _origins(cls, value: object) -> object:
        # Similar servers' .env files write JSON; shells and compose files prefer commas.
        return tuple(re.findall(r"[^\s,\"'\[\]]+", value)) if isinstance(value, str) else value

    @property
    def environment(self) -> Mapping[str, str]:
        """The whole environment with `.env` beneath it: logins pick from it what Claude Code needs."""
        return self._environment

    def within(self, environment: Mapping[str, str]) -> "Settings":
        """Return the same settings with another environment for logins."""
        copy = self.model_copy()
        copy._environment = environment  # noqa: SLF001 - a copy of our own
        return copy

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that the settings themselves hold: API_KEY and API_KEYS."""
        single = (self.api_key,) if self.api_key else ()
        return tuple(key.get_secret_value() for key in (*single, *self.api_keys))

    @property
    def asks_for_keys(self) -> bool:
        """Whether callers must show a key; one of a file counts as well, be the file still empty."""
        return bool(self.keys) or self.api_keys_file is not None

    @property
    def is_local(self) -> bool:
        """Whether HOST is an address that only this machine can reach."""
        return is_local_address(self.host)

    @property
    def timeout_seconds(self) -> float:
        """MAX_TIMEOUT in seconds."""
        return self.max_timeout / 1000


def is_local_address(host: str) -> bool:
    """Tell whether only this machine can reach an address; a name other than `localhost` may be any."""
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; `overrides` (say, from the command line) win over the environment.

    Raises ConfigurationError, one line a variable.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise ConfigurationError(_explain(error)) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{ENV_FILE} is not UTF-8: save it so.") from error


def _explain(error: ValidationError) -> str:
    # Never `input`: it may be a secret.
    rows = (f"{str(row['loc'][0]).upper()}: {row['msg']}" for row in error.errors(include_input=False) if row["loc"])
    return "These settings can't be used:\n  " + "\n  ".join(rows)
