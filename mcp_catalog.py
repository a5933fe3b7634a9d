"""What the operator's MCP servers are like: asked of a Claude Code process that has them, and kept for a while."""

import logging
import time
from collections.abc import Awaitable, Callable

import anyio

from content_log import log_content
from inspections import McpServer

logger = logging.getLogger(__name__)

_REMEMBER_SECONDS = 30

ServerNames = tuple[str, ...]


class McpCatalog:
    """Tells the state of servers. One process at a time is asked, however many ask here."""

    def __init__(
        self,
        ask: Callable[[ServerNames], Awaitable[tuple[McpServer, ...]]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ask` starts these servers and returns what became of them."""
        self._ask, self._clock = ask, clock
        self._lock = anyio.Lock()
        self._known: dict[ServerNames, tuple[float, tuple[McpServer, ...]]] = {}

    async def servers(self, names: ServerNames) -> tuple[McpServer, ...]:
        """Return these servers as they were a moment ago. Raises ClaudeCodeError where no process can be asked."""
        if self._is_known(names):
            return self._known[names][1]
        async with self._lock:
            if self._is_known(names):  # Somebody else has asked meanwhile.
                return self._known[names][1]
            found = await self._ask(names) if names else ()
            for server in found:
                if server.error:
                    logger.warning("The MCP server %s: %s", server.name, server.status)
                    # In its words may be an address with a token, or an answer.
                    log_content("mcp_error", server=server.name, reason=server.error)
            self._known[names] = (self._clock(), found)
            return found

    def _is_known(self, names: ServerNames) -> bool:
        return names in self._known and self._clock() - self._known[names][0] < _REMEMBER_SECONDS
