"""One completion, whole or streamed, from the parts below: model, adapter, process, events."""

import logging
import time
import uuid
from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass, field

import anyio

from auth import Login
from errors import (
    ApiError,
    ClaudeCodeError,
    ClaudeCodeUnavailableError,
    ClaudeLoginError,
    ContextLengthExceededError,
    TurnTimeoutError,
)
from message_adapter import to_turn_request
from model_catalog import ModelCatalog
from models import ChatCompletionRequest
from parameter_validator import to_sampling
from process_pool import Lease, ProcessPool
from turns import LaunchProfile, Message, Origin, TurnEnded, TurnEvent, TurnRequest, TurnStarted

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Completion:
    """A completion whose model has begun to answer.

    `created` is in seconds since the epoch. `events` are those after `started`, TurnEnded last; they raise an ApiError
    where the turn fails. Close them to stop the turn.
    """

    started: TurnStarted
    events: AsyncGenerator[TurnEvent, None]
    origin: Origin
    overhead_seconds: float
    """Until a process was prepared for the turn, waiting in line included."""
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))


class ChatService:
    """Turns a request's body into the events of its turn."""

    def __init__(
        self, pool: ProcessPool, catalog: ModelCatalog, login: Login, profile: LaunchProfile, timeout: float
    ) -> None:
        """Chat uses processes of `profile`; `timeout` is in seconds, for a whole turn."""
        self._pool, self._catalog, self._login = pool, catalog, login
        self._profile, self._timeout = profile, timeout

    async def begin(self, body: ChatCompletionRequest, owner: str) -> Completion:
        """Wait until the model begins to answer. Raises an ApiError where it doesn't."""
        clock = _Clock(self._timeout)
        with clock.limit():
            request = await self._turn_request(body)
        turn = _Turn(clock, self._pool.lease(request, owner, self._profile))
        try:
            return await self._begun(turn, request.prompt)
        except (ClaudeCodeError, ContextLengthExceededError) as error:
            if not _is_worth_another_try(error, turn.origin):
                raise
            logger.warning("The turn is tried again with a fresh process: %s", error)
        again = _Turn(clock, self._pool.lease(request, owner, self._profile, fresh=True))
        return await self._begun(again, request.prompt)

    async def _begun(self, turn: "_Turn", prompt: Message) -> Completion:
        events = turn.events(prompt)
        started = await anext(events)
        assert isinstance(started, TurnStarted)  # noqa: S101 - for the type checker: every turn's first event
        return Completion(started, events, turn.origin, turn.overhead_seconds)

    async def _turn_request(self, body: ChatCompletionRequest) -> TurnRequest:
        if not self._login.complete:
            message = f"This server has no complete login at Claude (missing: {', '.join(self._login.missing)}). "
            raise ClaudeLoginError(message + self._login.fix)
        return to_turn_request(await self._catalog.resolve(body.model), body.messages, to_sampling(body))


def _is_worth_another_try(error: ApiError, origin: Origin) -> bool:
    """Whether a fresh process may do what this one couldn't."""
    if isinstance(error, ContextLengthExceededError):
        # Claude Code refuses what it thinks too long after earlier answers' counts; the API is to judge.
        return origin == "adopted" and not error.sent
    return not isinstance(error, ClaudeCodeUnavailableError)


@dataclass
class _Turn:
    """One turn on one process."""

    clock: "_Clock"
    lease: AbstractAsyncContextManager[Lease]
    origin: Origin = "spawned"
    overhead_seconds: float = 0

    async def events(self, prompt: Message) -> AsyncGenerator[TurnEvent, None]:
        """Yield the turn's events. No cancel scope is open across a yield: the consumer may move to another task."""
        async with AsyncExitStack() as stack:
            began = time.monotonic()
            with self.clock.limit():
                lease = await stack.enter_async_context(self.lease)
            self.origin, self.overhead_seconds = lease.origin, time.monotonic() - began
            events = await stack.enter_async_context(aclosing(lease.process.turn(prompt)))
            event = await self._next(events)
            while not isinstance(event, TurnEnded):
                yield event
                event = await self._next(events)
        # The process is free again before the client can know that its answer is complete, and come back.
        yield event

    async def _next(self, events: AsyncGenerator[TurnEvent, None]) -> TurnEvent:
        with self.clock.limit():
            return await anext(events)


class _Clock:
    """How long a request has taken, and may take."""

    def __init__(self, timeout: float) -> None:
        self._began, self._timeout = time.monotonic(), timeout

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @contextmanager
    def limit(self) -> Generator[None, None, None]:
        """Raise TurnTimeoutError in here once the time is up."""
        try:
            with anyio.fail_after(self._timeout - self.seconds):
                yield
        except TimeoutError as error:
            message = f"The request took longer than {self._timeout:g} seconds and was stopped."
            raise TurnTimeoutError(message) from error
