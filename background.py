"""What a server does every so often, beside its requests."""

import logging
from collections.abc import Awaitable, Callable

import anyio

logger = logging.getLogger(__name__)


async def periodically(seconds: float, act: Callable[[], Awaitable[None]]) -> None:
    """Act every so many seconds, for ever. What fails is logged and tried again: it must not end the server."""
    while True:
        await anyio.sleep(seconds)
        try:
            await act()
        except Exception:  # a task of its own: nobody else could catch it
            logger.exception("What is done every %g seconds failed", seconds)
