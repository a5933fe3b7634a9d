"""What a request for a completion says in headers of our own, beside its body."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from agent_task import ALL_TOOLS, PERMISSION_MODES, Narrowing, PermissionMode
from config import LEAST_THINKING_TOKENS, MOST_THINKING_TOKENS
from errors import InvalidRequestError
from tool_catalog import check_tool

THINKING_HEADER = "X-Claude-Max-Thinking-Tokens"
USAGE_HEADER = "X-Claude-Usage"
EVENTS_HEADER = "X-Claude-Events"
TURNS_HEADER = "X-Claude-Max-Turns"
BUDGET_HEADER = "X-Claude-Max-Budget-USD"
ALLOWED_HEADER = "X-Claude-Allowed-Tools"
DISALLOWED_HEADER = "X-Claude-Disallowed-Tools"
MODE_HEADER = "X-Claude-Permission-Mode"
SERVERS_HEADER = "X-Claude-MCP-Servers"
_OF_OWN_TOOLS = (
    EVENTS_HEADER,
    TURNS_HEADER,
    BUDGET_HEADER,
    ALLOWED_HEADER,
    DISALLOWED_HEADER,
    MODE_HEADER,
    SERVERS_HEADER,
)

_NUMBER = re.compile(r"[0-9]{1,7}")
_DOLLARS = re.compile(r"[0-9]{1,7}(\.[0-9]{1,9})?")
_T = TypeVar("_T")


@dataclass(frozen=True)
class AgentOptions:
    """What a request says of Claude Code's own tools. All of it narrows what the operator allows."""

    narrowing: Narrowing = ALL_TOOLS
    servers: tuple[str, ...] | None = None
    """MCP servers, by their names; None: all that there are."""
    max_turns: int | None = None
    max_budget_usd: float | None = None
    mode: PermissionMode = "default"
    tells_events: bool = False
    headers: tuple[str, ...] = ()
    """Those that said so; without `enable_tools` they say nothing."""

    @property
    def is_usual(self) -> bool:
        """Whether a process that serves it may serve others that say nothing."""
        return replace(self, tells_events=False, headers=()) == AgentOptions()


@dataclass(frozen=True)
class RequestOptions:
    """Tokens that the model may think, where the request says so, and whether usage comes as Claude Code counts it."""

    thinking_tokens: int | None = None
    usage_in_full: bool = False
    agent: AgentOptions = AgentOptions()


def read_options(headers: Mapping[str, str]) -> RequestOptions:
    """Read the headers. Raises InvalidRequestError for a value that they can't have."""
    return RequestOptions(
        thinking_tokens=_read(headers, THINKING_HEADER, _thinking_tokens),
        usage_in_full=_read(headers, USAGE_HEADER, _full) or False,
        agent=_agent_options(headers),
    )


def _agent_options(headers: Mapping[str, str]) -> AgentOptions:
    return AgentOptions(
        Narrowing(_read(headers, ALLOWED_HEADER, _tools), _read(headers, DISALLOWED_HEADER, _tools) or ()),
        servers=_read(headers, SERVERS_HEADER, _words),
        max_turns=_read(headers, TURNS_HEADER, _count),
        max_budget_usd=_read(headers, BUDGET_HEADER, _dollars),
        mode=_read(headers, MODE_HEADER, _mode) or "default",
        tells_events=_read(headers, EVENTS_HEADER, _switch) or False,
        headers=tuple(name for name in _OF_OWN_TOOLS if name in headers),
    )


def _read(headers: Mapping[str, str], name: str, parse: Callable[[str], _T]) -> _T | None:
    value = headers.get(name)
    if value is None:
        return None
    try:
        return parse(value.strip())
    except ValueError as error:
        raise InvalidRequestError(f"The header {name} can't be used: {error}.", code="invalid_header") from error


def _thinking_tokens(value: str) -> int:
    number = int(value) if _NUMBER.fullmatch(value) else -1
    if number != 0 and not LEAST_THINKING_TOKENS <= number <= MOST_THINKING_TOKENS:
        range_ = f"{LEAST_THINKING_TOKENS} to {MOST_THINKING_TOKENS}, or 0 for none"
        raise ValueError(f"it is a number of tokens: {range_}")
    return number


def _full(value: str) -> bool:
    return _one_of({"full": True}, value)


def _switch(value: str) -> bool:
    return _one_of({"true": True, "false": False}, value.lower())


def _mode(value: str) -> PermissionMode:
    return _one_of({mode: mode for mode in PERMISSION_MODES}, value)


def _one_of(values: Mapping[str, _T], value: str) -> _T:
    if value not in values:
        raise ValueError(f"it accepts {' or '.join(values)}")
    return values[value]


def _count(value: str) -> int:
    if not _NUMBER.fullmatch(value) or int(value) == 0:
        raise ValueError("it is a number from 1 on")
    return int(value)


def _dollars(value: str) -> float:
    if not _DOLLARS.fullmatch(value) or float(value) <= 0:
        raise ValueError("it is a number of dollars, more than 0, like 0.25")
    return float(value)


def _words(value: str) -> tuple[str, ...]:
    return tuple(word for part in value.split(",") if (word := part.strip()))


def _tools(value: str) -> tuple[str, ...]:
    return tuple(map(check_tool, _words(value)))
