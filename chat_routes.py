"""POST /v1/chat/completions, whole and streamed."""

import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import anyio
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from answer_models import ChatCompletion
from chat_service import ChoiceEvent, Completion
from client_functions import call_style
from errors import ApiError, InvalidRequestError
from message_adapter import to_chat_completion
from models import ChatCompletionRequest
from parameter_validator import Rules, check_parameters
from request_body import parse_chat_completion, parse_json_object, read_body
from request_faults import explained
from request_options import RequestOptions, read_options
from request_record import CLIENT_LEFT, record_of
from services import CallerDependency, ServicesDependency, limited_behind_key, require_quota
from streaming import ChunkEncoder
from turn_notes import TurnNotes
from turns import TurnEvent, total_cost

_LINE_END = "\n"
_PING_SECONDS = 15
"""Of silence, after which a comment keeps a stream's connection alive."""

logger = logging.getLogger(__name__)

router = APIRouter(dependencies=[*limited_behind_key("chat"), Depends(require_quota)])

# Beside those of all routes; openapi_document.py has these, and what each means.
_ANSWERS: dict[int | str, dict[str, Any]] = {status: {} for status in (404, 409, 429, 502, 504)}


@router.post("/v1/chat/completions", response_model=ChatCompletion, responses=_ANSWERS)
async def create_chat_completion(request: Request, services: ServicesDependency, caller: CallerDependency) -> Response:
    """Answer a conversation, whole or, with `stream: true`, as server-sent events."""
    raw = await read_body(request.stream(), services.settings.max_request_size)
    with explained(raw, services.rules, enabled=services.settings.debug_mode):
        parameters = parse_json_object(raw)
        options = read_options(_joined(request.headers))
        ignored = check_parameters(parameters, services.rules)
        body = parse_chat_completion(parameters)
        services.catalog.check(body.model, caller.limits)
        if not body.enable_tools:
            ignored = (*ignored, *_without_effect(options, services.rules))
        record = record_of(request)
        begin = services.chat.begin(body, caller, options, record.request_id)
        notes = TurnNotes(record)
        notes.asked(body, parameters)
        answering = _Answering(begin, body, ignored, options, notes)
        return await _unless_client_leaves(request, answering.streamed() if body.stream else answering.whole())


@dataclass(frozen=True)
class _Answering:
    """What is needed to answer a request."""

    begin: Awaitable[Completion]
    body: ChatCompletionRequest
    ignored: Sequence[str]
    options: RequestOptions
    notes: TurnNotes

    async def whole(self) -> Response:
        """Answer when all is there."""
        completion, style = await self._begun(), call_style(self.body)
        turns: list[list[TurnEvent]] = [[] for _ in range(self.body.choices)]
        turns[completion.first].append(completion.started)
        async with aclosing(completion.events) as events:
            async for index, event in events:
                self.notes.saw(event)
                turns[index].append(event)
        ends = self.notes.completed()
        in_full = self.options.usage_in_full
        answer = to_chat_completion(completion.id, completion.created, turns, style, in_full=in_full)
        steps = {"X-Claude-Turns": str(sum(ended.steps for ended in ends))} if self.body.enable_tools else {}
        headers = {**self._headers(completion), **_cost_header(total_cost(ends)), **steps}
        return JSONResponse(answer.model_dump(), headers=headers)

    async def streamed(self) -> Response:
        """Begin before the status line is sent, so that a failure until then keeps its status."""
        completion = await self._begun()
        encoder = ChunkEncoder(
            completion.id,
            completion.created,
            replace(call_style(self.body), tells_own_tools=self.options.agent.tells_events),
            self.body.choices,
            usage=("full" if self.options.usage_in_full else "openai") if self.body.include_usage else None,
        )
        data = _sse_data(encoder, completion, self.notes)
        return _TurnResponse(completion.events, data, self._headers(completion))

    async def _begun(self) -> Completion:
        completion = await self.begin
        self.notes.began(completion)
        return completion

    def _headers(self, completion: Completion) -> dict[str, str]:
        reported = sorted({*self.ignored, *(each.name for each in completion.adjusted)})
        return {
            **({"X-Claude-Ignored-Params": ", ".join(reported)} if reported else {}),
            "X-Claude-Session-Id": completion.started.claude_session_id,
            "X-Claude-Process": completion.origin,
            "X-Claude-Overhead-Ms": f"{completion.overhead_seconds * 1000:.1f}",
        }


def _joined(headers: Headers) -> Headers:
    """Join headers of the same name to one, as RFC 9110 (5.3) has it: none of a list is lost."""
    return Headers({name: ", ".join(headers.getlist(name)) for name in {*headers}})


def _without_effect(options: RequestOptions, rules: Rules) -> Sequence[str]:
    """Return the headers that mean nothing without Claude Code's tools; a strict server refuses them."""
    if options.agent.headers and rules.is_strict:
        message = f"The header {options.agent.headers[0]} means nothing without 'enable_tools'. Leave it out."
        raise InvalidRequestError(message, code="invalid_header")
    return options.agent.headers


async def _sse_data(encoder: ChunkEncoder, completion: Completion, notes: TurnNotes) -> AsyncGenerator[str, None]:
    try:
        for chunk in encoder.encode(completion.started, completion.first):
            yield chunk
        async for index, event in completion.events:
            notes.saw(event)
            for chunk in encoder.encode(event, index):
                yield chunk
        notes.completed()
    except ApiError as error:
        # The status line is out. An error event and no [DONE] is what tells a client that this is no answer.
        notes.record.note(error)
        yield json.dumps(error.body())
    except Exception:  # the request's edge, too: a cut would look like a good answer
        logger.exception("A stream broke off")
        fault = ApiError("The server had an error in the middle of its answer. Its log says which.")
        notes.record.note(fault)
        yield json.dumps(fault.body())


class _TurnResponse(EventSourceResponse):
    """An event stream that ends its turn however the response ends."""

    def __init__(
        self,
        turn: AsyncGenerator[ChoiceEvent, None],
        content: AsyncGenerator[str, None],
        headers: dict[str, str],
    ) -> None:
        super().__init__(
            content,
            headers=headers,
            ping=_PING_SECONDS,
            ping_message_factory=lambda: ServerSentEvent(comment="ping", sep=_LINE_END),
            sep=_LINE_END,
        )
        self._turn, self._content = turn, content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._content.aclose()
                await self._turn.aclose()


def _cost_header(cost_usd: float | None) -> dict[str, str]:
    return {} if cost_usd is None else {"X-Claude-Cost-USD": f"{cost_usd:.8f}"}


async def _unless_client_leaves(request: Request, work: Awaitable[Response]) -> Response:
    """Do the work, but stop it when the client hangs up."""
    response, failure = Response(status_code=CLIENT_LEFT), None
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        try:
            response = await work
        except ApiError as error:  # raised below: the task group would wrap it
            failure = error
        tasks.cancel_scope.cancel()
    if failure:
        raise failure
    return response
