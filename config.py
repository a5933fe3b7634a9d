"""The only reader of the environment: one frozen `Settings`, from the process environment and `.env`.

A value that makes no sense is refused at start, with the name of the variable. The table in the README and
`.env.example` repeat these fields' descriptions, and a test keeps them in step.
"""

import logging
import os
import re
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    RedisDsn,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from pydantic_core import from_json
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from redis.connection import parse_url

logger = logging.getLogger(__name__)

VERSION = "0.1.0"
ENV_FILE = Path(".env")
_TIMEOUT_BELOW_THIS_IS_SECONDS = 1000
LEAST_THINKING_TOKENS = 1024
"""Claude's API takes no smaller budget; https://platform.claude.com/docs/en/build-with-claude/extended-thinking"""
MOST_THINKING_TOKENS = 1_000_000
"""More than any model takes: no slip of the keyboard."""

Name = Annotated[str, Field(min_length=1)]
AuthMethod = Literal["claude_cli", "anthropic", "oauth_token", "bedrock", "vertex"]


def _split(value: object) -> object:
    return tuple(part for each in value.split(",") if (part := each.strip())) if isinstance(value, str) else value


def _at_least_one_key(value: object) -> object:
    parts = _split(value)
    if isinstance(value, str) and not parts:
        raise ValueError("there is no key in it")
    return parts


def _redis(value: SecretStr) -> SecretStr:
    try:
        TypeAdapter(RedisDsn).validate_python(value.get_secret_value())
        parse_url(value.get_secret_value())  # type: ignore[no-untyped-call]
    except ValueError:
        # Not what pydantic says: there may be a password in it.
        raise ValueError("it is no address of a Redis, like redis://:password@host:6379/0") from None
    return value


def _from_json(value: object) -> object:
    return from_json(value) if isinstance(value, str) else value


def _one_word(value: SecretStr) -> SecretStr:
    # It has to fit into a header, and an empty key would be no key at all.
    if not re.fullmatch(r"[!-~]+", value.get_secret_value()):
        raise ValueError("a key is one word of printable ASCII")
    return value


def _is_network(value: str) -> bool:
    try:
        ip_network(value)
    except ValueError:
        return False
    return True


def _networks(values: tuple[str, ...]) -> tuple[str, ...]:
    # What is none, uvicorn takes for the name of a socket, and then trusts nobody without a word.
    for number, value in enumerate(values, start=1):
        if not _is_network(value):
            raise ValueError(f"number {number} is neither an address (10.1.2.3) nor a network (10.0.0.0/8)")
    return values


_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")
_OWN_HEADERS = frozenset({"connection", "content-length", "content-type", "host", "transfer-encoding", "user-agent"})


def _header_lines(value: object) -> object:
    """Read JSON, or a header on each line, which is Claude Code's own form."""
    if not isinstance(value, str) or value.lstrip().startswith("{"):
        return _from_json(value)
    pairs = [line.partition(":") for line in value.splitlines() if line.strip()]
    if not all(colon for _, colon, _ in pairs):
        raise ValueError('it is neither JSON like {"anthropic-beta": "…"} nor lines like anthropic-beta: …')
    return {name.strip(): text.strip() for name, _, text in pairs}


def _sendable(headers: dict[str, str]) -> dict[str, str]:
    # Not a value in any message: there may be a secret in it.
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"{name[:64]!r} is not a header that can be sent")
        if name.lower() in _OWN_HEADERS:
            raise ValueError(f"{name!r} is a header that Claude Code has to set itself")
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueError("a header stands there twice")
    return headers


CustomHeaders = Annotated[
    dict[str, str], NoDecode, BeforeValidator(_header_lines), AfterValidator(_sendable), Field(repr=False, exclude=True)
]
NameMap = Annotated[dict[Name, Name], NoDecode, BeforeValidator(_from_json)]
Secret = Annotated[SecretStr, AfterValidator(_one_word)]
SecretList = Annotated[tuple[Secret, ...], NoDecode, BeforeValidator(_at_least_one_key)]
Seconds = Annotated[float, Field(allow_inf_nan=False, le=10 * 365 * 24 * 3600)]
CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Networks = Annotated[CommaSeparated, AfterValidator(_networks)]


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
    rate_limit_enabled: bool = Field(default=True, description="`false`: no limits for client addresses.")
    rate_limit_chat_per_minute: int = Field(
        default=10, gt=0, description="Chat completions a minute that a client's address may ask for."
    )
    rate_limit_session_per_minute: int = Field(
        default=15, gt=0, description="Requests a minute to `/v1/sessions` and `/v1/usage`, for an address."
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
    redis_url: Annotated[SecretStr, AfterValidator(_redis)] | None = Field(
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
    model_aliases: NameMap = Field(
        default_factory=dict, description='Foreign model names for ours, as JSON: `{"gpt-4o": "sonnet"}`.'
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description='Web origins whose pages may call, as JSON (`["https://a.example"]`) or with commas; `*`: all. '
        "None: pages from this machine.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="How much is logged.")
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
