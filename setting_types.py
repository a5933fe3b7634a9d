"""The types of settings beyond numbers and words: how a variable's text is read, and what is refused of it.

No message has a value of a secret in it.
"""

import re
from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, RedisDsn, SecretStr, TypeAdapter
from pydantic_core import from_json
from pydantic_settings import NoDecode
from redis.connection import parse_url

from tool_catalog import OWN_TOOLS

Name = Annotated[str, Field(min_length=1)]


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


_HOST_PATTERN = re.compile(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.IGNORECASE)


def _host_names(values: tuple[str, ...]) -> tuple[str, ...]:
    for number, value in enumerate(values, start=1):
        if not _HOST_PATTERN.fullmatch(value):
            raise ValueError(f"number {number} is no name such as a.example or *.a.example, without scheme and port")
    return tuple(value.lower() for value in values)


def _own_tools(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if value not in OWN_TOOLS:
            raise ValueError(
                f"{value[:64]!r} is none of Claude Code's tools that there are here: {', '.join(OWN_TOOLS)}"
            )
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
RedisUrl = Annotated[SecretStr, AfterValidator(_redis)]
Seconds = Annotated[float, Field(allow_inf_nan=False, le=10 * 365 * 24 * 3600)]
CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
ToolNames = Annotated[CommaSeparated, AfterValidator(_own_tools)]
HostNames = Annotated[CommaSeparated, AfterValidator(_host_names)]
Networks = Annotated[CommaSeparated, AfterValidator(_networks)]
LogFormat = Literal["console", "json"]
