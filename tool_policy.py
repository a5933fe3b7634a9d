"""Whether a call of one of Claude Code's tools is made: the policy, without Claude Code.

It looks at the file system, since a link leads where it leads, and for the addresses of names: call it in a thread.
What it lets pass is judged by Claude Code's own check as well, and what that wants to ask somebody is denied.
"""

import math
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Any, ClassVar, Literal

from agent_task import Grant
from tool_catalog import OWN_TOOLS, Category, is_covered, server_of

_MEBIBYTE = 2**20
# What a pattern's parts may be separated by: its alternatives are patterns, too.
_PARTS_OF_A_PATTERN = re.compile(r"[/\\{},()|]")
_PLAIN_URL = re.compile(
    r"https?://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?([/?#][!-\[\]-~]*)?\Z", re.IGNORECASE
)
# Of several parts, and the last is no number, in any notation.
_NAME = re.compile(r"([a-z0-9-]+\.)+[a-z](?!x[0-9a-f]*\Z)[a-z0-9-]*")
# Gateways, where there are any, take these for IPv4 addresses, or for those of a site.
_WITH_OTHERS_INSIDE = tuple(
    map(IPv6Network, ("::/96", "::ffff:0:0/96", "64:ff9b::/32", "2001::/32", "2002::/16", "fec0::/10"))
)
_NAMES_OF_NETWORKS = (".localhost", ".local", ".internal", ".home.arpa", ".lan")
_STARTS_OF_A_PATTERN = re.compile(r"[{},()|]")


@dataclass(frozen=True)
class Decision:
    """What becomes of a call. `pass` leaves it to Claude Code, whose own check lets it read in its directory."""

    behavior: Literal["allow", "deny", "pass"]
    reason: str


@dataclass(frozen=True)
class ToolPolicy:
    """Decides on the calls of one turn: a grant, in a directory. `functions` are the client's own."""

    grant: Grant
    directory: Path
    functions: frozenset[str] = frozenset()

    def decide(self, name: str, arguments: Mapping[str, Any]) -> Decision:
        """Decide on a call."""
        if name in self.functions:
            return Decision("pass", "it is the client's own")
        if server_of(name):
            return self._decide_on_mcp(name)
        if name not in OWN_TOOLS or name not in self.grant.tools:
            return _denied("this tool is not allowed here")
        if self.grant.mode == "bypassPermissions":
            return Decision("allow", "the operator lets permissions be bypassed")
        return self._decide_on_own(name, arguments)

    def _decide_on_own(self, name: str, arguments: Mapping[str, Any]) -> Decision:
        tool = OWN_TOOLS[name]
        if self.grant.mode == "plan" and not tool.is_safe:
            return _denied("in plan mode tools only read")
        places = [*self._places(name, arguments)]
        if not all(map(self._is_inside, places)):
            return _denied("it is outside the working directory")
        if not all(_is_ordinary(Path(self.directory, str(place)).expanduser()) for place in places):
            return _denied("it is neither a file nor a directory")
        return self._judges[tool.category](self, arguments)

    def _decide_on_mcp(self, name: str) -> Decision:
        if not is_covered(name, self.grant.mcp_tools) or is_covered(name, self.grant.denied):
            return _denied("this tool is not allowed here")
        if self.grant.mode == "plan":
            return _denied("in plan mode no MCP server is called")
        return Decision("allow", "the operator gives this MCP server")

    def _places(self, name: str, arguments: Mapping[str, Any]) -> Iterator[object]:
        """Yield where a call reaches."""
        yield from (arguments[place] for place in OWN_TOOLS[name].places if arguments.get(place) is not None)
        if name == "Glob":
            pattern = str(arguments.get("pattern", ""))
            yield from (start for start in _STARTS_OF_A_PATTERN.split(pattern) if start.startswith(("/", "~")))
            if ".." in _PARTS_OF_A_PATTERN.split(pattern):
                yield None

    def _is_inside(self, place: object) -> bool:
        if not isinstance(place, str) or "\0" in place:
            return False
        # As the tools do it: `~` is the home, a variable is nothing but its name.
        try:
            path = os.path.realpath(self.directory / Path(place).expanduser())
        except RuntimeError:  # nobody's home
            return False
        return Path(path).is_relative_to(os.path.realpath(self.directory))

    def _judge_reading(self, arguments: Mapping[str, Any]) -> Decision:  # noqa: ARG002 - as the other judges
        return Decision("pass", "it reads in the working directory")

    def _judge_writing(self, arguments: Mapping[str, Any]) -> Decision:
        added = sum(len(value.encode()) for value in arguments.values() if isinstance(value, str))
        if arguments.get("replace_all"):
            added *= self._occurrences(arguments)
        return (
            Decision("allow", "the operator allows it, in the working directory")
            if self._has_room(added)
            else self._no_room
        )

    def _occurrences(self, arguments: Mapping[str, Any]) -> int:
        """Count what an Edit replaces."""
        with suppress(OSError, KeyError, TypeError, AttributeError):  # Then Claude Code has none to make, either.
            content = Path(self.directory, arguments["file_path"]).read_bytes()
            return content.count(arguments["old_string"].encode())
        return 1

    def _judge_running(self, arguments: Mapping[str, Any]) -> Decision:  # noqa: ARG002 - as the other judges
        return Decision("allow", "the operator allows it") if self._has_room(0) else self._no_room

    def _judge_web(self, arguments: Mapping[str, Any]) -> Decision:
        if "url" in arguments and not _is_public(str(arguments["url"]), by_proxy=self.grant.fetches_by_proxy):
            return _denied("it is an address inside a network, or none")
        return Decision("allow", "the operator allows it")

    _judges: ClassVar[Mapping[Category, Callable[..., Decision]]] = {
        "read": _judge_reading,
        "write": _judge_writing,
        "run": _judge_running,
        "web": _judge_web,
    }

    def _has_room(self, added: int) -> bool:
        return self.grant.most_bytes is None or size_of(self.directory) + added <= self.grant.most_bytes

    @property
    def _no_room(self) -> Decision:
        most = (self.grant.most_bytes or 0) // _MEBIBYTE
        return _denied(f"the working directory is larger than it may be ({most} MB), or a part of it is closed")


def _denied(reason: str) -> Decision:
    return Decision("deny", reason)


def _is_ordinary(path: Path) -> bool:
    """Whether reading it ends: a pipe waits for somebody to write."""
    with suppress(OSError, ValueError):  # A name that can't be one names nothing.
        return path.is_file() or path.is_dir() or not path.exists()
    return True


def size_of(directory: Path) -> float:
    """Return how many bytes the files in a directory have, links not followed; infinite where a part is closed."""
    total = 0.0
    closed: list[OSError] = []
    for parent, _, files in os.walk(directory, onerror=closed.append):
        for file in files:
            with suppress(OSError):  # It went meanwhile.
                total += Path(parent, file).lstat().st_size
    return math.inf if any(isinstance(error, PermissionError) for error in closed) else total


def _is_public(url: str, *, by_proxy: bool) -> bool:
    """Whether an address lies beyond the networks that only this host, or its neighbours, can reach.

    Only plain ones: of others two programs may read two hosts. A name that nobody knows here is for the proxy to find,
    if there is one.
    """
    found = _PLAIN_URL.match(url)
    host = found["host"].rstrip(".").lower() if found else ""
    if not _NAME.fullmatch(host):
        return _is_global(host.strip("[]"))
    try:
        addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return by_proxy and not host.endswith(_NAMES_OF_NETWORKS)
    return all(_is_global(str(address[0]).partition("%")[0]) for *_, address in addresses)


def _is_global(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and any(address in network for network in _WITH_OTHERS_INSIDE):
        return False
    return address.is_global and not address.is_multicast
