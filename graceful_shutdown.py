"""How a server ends: no new work, what is under way finishes in its time, and a second signal ends it at once."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from errors import ShuttingDownError
from http_layer import refuse

logger = logging.getLogger(__name__)

_LAST_WORDS_SECONDS = 2
"""For the errors of those whose time is over to reach their clients."""


@dataclass
class Drain:
    """Whether the server ends, and how many requests it still has."""

    has_begun: bool = False
    in_flight: int = 0


class DrainMiddleware:
    """ASGI middleware that counts the requests in flight, and lets none in once the drain has begun."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        """Stand in front of `app`."""
        self._app, self._drain = app, drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or turn it away."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_last(message: Message) -> None:
            if self._drain.has_begun and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        is_late, self._drain.in_flight = self._drain.has_begun, self._drain.in_flight + 1
        try:
            if is_late:
                await refuse(ShuttingDownError(), scope, receive, send_last)
            else:
                await self._app(scope, receive, send_last)
        finally:
            self._drain.in_flight -= 1


class GracefulServer(uvicorn.Server):
    """uvicorn, but at the first signal it goes on to answer what is under way, and turns others away in words."""

    def __init__(self, config: uvicorn.Config, drain: Drain, grace: float, give_up: Callable[[], None]) -> None:
        """`give_up` ends what is still under way after `grace` seconds."""
        super().__init__(config)
        self._drain, self._grace, self._give_up = drain, grace, give_up
        self._signal: tuple[int, FrameType | None] | None = None
        self._deadline = 0.0
        self._has_given_up = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if self._signal:
            self.force_exit = True
            super().handle_exit(sig, frame)
            return
        self._drain.has_begun, self._signal = True, (sig, frame)
        self._deadline = time.monotonic() + self._grace

    async def on_tick(self, counter: int) -> bool:
        """Look whether to exit."""
        if self._signal and not self.should_exit:
            self._come_to_an_end(*self._signal)
        return await super().on_tick(counter)

    def _come_to_an_end(self, sig: int, frame: FrameType | None) -> None:
        is_late = time.monotonic() > self._deadline
        if not self._drain.in_flight or (is_late and self._has_given_up):
            super().handle_exit(sig, frame)
        elif is_late:
            logger.warning("%d requests took longer than SHUTDOWN_GRACE and are ended", self._drain.in_flight)
            self._has_given_up, self._deadline = True, time.monotonic() + _LAST_WORDS_SECONDS
            self._give_up()
