"""One completion, whole or streamed, from the parts below: model, adapter, process, events."""

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, AsyncExitStack, aclosing
from dataclasses import dataclass, field

import anyio

from auth import Login
from errors import ClaudeLoginError, TurnTimeoutError
from message_adapter import to_turn_request
from model_catalog import ModelCatalog
from models import ChatCompletionRequest
from process_pool import ProcessPool
from turns import TurnEvent, TurnRequest


@dataclass(frozen=True)
class CompletionHead:
    """What all parts of one completion share. `created` is in seconds since the epoch."""

    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))


class ChatService:
    """Turns a request's body into the events of its turn."""

    def __init__(self, pool: ProcessPool, catalog: ModelCatalog, login: Login, timeout: float) -> None:
        """`timeout` is in seconds, for a whole turn."""
        self._pool, self._catalog, self._login, self._timeout = pool, catalog, login, timeout

    async def events(self, body: ChatCompletionRequest) -> AsyncGenerator[TurnEvent, None]:
        """Yield the turn's events, TurnStarted first, TurnEnded last.

        Raises an ApiError at whatever point the turn fails. Close the generator to stop the turn. A cancel scope is
        never open across a yield, so its consumer may move to another task.
        """
        deadline = anyio.current_time() + self._timeout
        try:
            with _until(deadline):
                request = await self._turn_request(body)
            async with AsyncExitStack() as stack:
                with _until(deadline):
                    process = await stack.enter_async_context(self._pool.lease(request))
                events = await stack.enter_async_context(aclosing(process.turn(request.prompt)))
                while True:
                    with _until(deadline):
                        event = await anext(events, None)
                    if event is None:
                        return
                    yield event
        except TimeoutError as error:
            raise TurnTimeoutError(
                f"The request took longer than {self._timeout:g} seconds and was stopped."
            ) from error

    async def _turn_request(self, body: ChatCompletionRequest) -> TurnRequest:
        if not self._login.complete:
            message = f"This server has no complete login at Claude (missing: {', '.join(self._login.missing)}). "
            raise ClaudeLoginError(message + self._login.fix)
        return to_turn_request(await self._catalog.resolve(body.model), body.messages)


def _until(deadline: float) -> AbstractContextManager[object]:
    return anyio.fail_after(deadline - anyio.current_time())
