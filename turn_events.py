"""From the SDK's messages to the events of a turn: one small handler for each kind, purely.

With claude_process.py the only module that imports the SDK, of which it takes the types of messages.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from claude_agent_sdk import AssistantMessage, ResultMessage, StreamEvent
from claude_agent_sdk import Message as SdkMessage
from claude_agent_sdk import TextBlock as SdkTextBlock

from errors import ApiError, ClaudeCodeError, ClaudeLoginError, ContextLengthExceededError, from_upstream
from turns import TextDelta, TurnEnded, TurnEvent, TurnStarted, Usage

logger = logging.getLogger(__name__)

# After these the CLI prompts the model again by itself, in words of its own; there is no setting against it.
# `tool_use` is one of them as long as no tools are offered: a call of something else would be argued with.
_STOPS_THAT_THE_CLI_CONTINUES = frozenset({"max_tokens", "model_context_window_exceeded", "tool_use"})

_TOO_LONG_FOR_THE_CLI = "blocking_limit"
_TOO_LONG = frozenset({_TOO_LONG_FOR_THE_CLI, "prompt_too_long"})
_FIRST_SERVER_ERROR = 500


@dataclass
class TurnState:
    """What a turn has shown so far. `cost_usd` is to be set before its result is taken."""

    model: str
    texts: list[str] = field(default_factory=list)
    cost_usd: float | None = None
    started: bool = False
    login_failed: bool = False
    continues_by_itself: bool = False
    usage: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The answer's text up to now."""
        return "".join(self.texts)


_Events = Iterator[TurnEvent]


def _ignore(_state: TurnState, _message: object) -> _Events:
    return iter(())


def events_of(state: TurnState, message: SdkMessage) -> _Events:
    """Yield what a message of the SDK's means for a turn, and note it in the turn's state.

    Raises ClaudeCodeError for what can't be understood, and the ApiError that the turn failed with.
    """
    try:
        yield from _HANDLERS.get(type(message), _ignore)(state, message)
    except (LookupError, TypeError, AttributeError) as error:
        raise ClaudeCodeError("Claude Code said something that we don't understand.") from error


def _on_stream_event(state: TurnState, message: StreamEvent) -> _Events:
    handler = _STREAM_HANDLERS.get(message.event["type"])
    return handler(state, message) if handler else iter(())


def _on_message_start(state: TurnState, message: StreamEvent) -> _Events:
    if state.started:
        raise ClaudeCodeError("Claude Code asked the model a second time by itself.")
    started = message.event["message"]
    state.usage |= started.get("usage") or {}
    yield _started(state, started["model"], message.session_id)


def _started(state: TurnState, model: str, session_id: str | None) -> TurnStarted:
    state.started = True
    return TurnStarted(model, session_id or "")


def _on_content_block_start(state: TurnState, message: StreamEvent) -> _Events:
    if message.event["content_block"]["type"] == "text":
        state.texts.append("")
    return iter(())


def _on_content_block_delta(state: TurnState, message: StreamEvent) -> _Events:
    delta = message.event["delta"]
    if delta["type"] == "text_delta":
        state.texts[-1] += delta["text"]
        yield TextDelta(delta["text"])


def _on_message_delta(state: TurnState, message: StreamEvent) -> _Events:
    """End the turn here where the CLI would go on by itself: its next request must not be made."""
    stop_reason = message.event["delta"].get("stop_reason")
    state.usage |= message.event.get("usage") or {}
    if stop_reason is None:
        return
    is_blank = stop_reason != "refusal" and not state.text.strip()
    if stop_reason in _STOPS_THAT_THE_CLI_CONTINUES or is_blank:
        state.continues_by_itself = True
        yield TurnEnded(stop_reason, _usage(state.usage), cost_usd=None)


def _on_assistant(state: TurnState, message: AssistantMessage) -> _Events:
    """Take over a whole message where nothing was streamed: so the CLI asks an upstream that can't stream."""
    state.login_failed |= message.error == "authentication_failed"
    if state.started or message.error:
        return
    yield _started(state, message.model, message.session_id)
    for block in message.content:
        if isinstance(block, SdkTextBlock):
            yield TextDelta(block.text)


def _on_result(state: TurnState, message: ResultMessage) -> _Events:
    stop_reason = message.stop_reason or "end_turn"
    if message.is_error and stop_reason != "refusal":
        raise _failure(state, message)
    # A refused turn's result counts nothing; its stream did.
    usage = state.usage if stop_reason == "refusal" else message.usage or {}
    yield TurnEnded(stop_reason, _usage(usage), state.cost_usd)


_STREAM_HANDLERS: Mapping[str, Callable[[TurnState, StreamEvent], _Events]] = {
    "message_start": _on_message_start,
    "content_block_start": _on_content_block_start,
    "content_block_delta": _on_content_block_delta,
    "message_delta": _on_message_delta,
}
_HANDLERS: Mapping[type, Callable[[TurnState, Any], _Events]] = {
    StreamEvent: _on_stream_event,
    AssistantMessage: _on_assistant,
    ResultMessage: _on_result,
}


def _usage(counted: Mapping[str, Any]) -> Usage:
    details = counted.get("output_tokens_details") or {}
    return Usage(
        input_tokens=counted.get("input_tokens") or 0,
        output_tokens=counted.get("output_tokens") or 0,
        cache_read_input_tokens=counted.get("cache_read_input_tokens") or 0,
        cache_creation_input_tokens=counted.get("cache_creation_input_tokens") or 0,
        reasoning_tokens=details.get("thinking_tokens") or 0,
    )


def _failure(state: TurnState, result: ResultMessage) -> ApiError:
    status = result.api_error_status
    prose = (result.result or "").removeprefix("API Error: ").removeprefix(f"{status} ")
    if result.terminal_reason in _TOO_LONG:
        message = "This conversation is too long for its model. Shorten the messages."
        return ContextLengthExceededError(message, sent=result.terminal_reason != _TOO_LONG_FOR_THE_CLI)
    if status is None and state.login_failed:
        return ClaudeLoginError("Claude Code is not logged in. GET /v1/auth/status says what is missing.")
    if status is None or status >= _FIRST_SERVER_ERROR:
        # The CLI's prose names the upstream's address here.
        logger.warning("Claude's API failed (HTTP %s): %s", status, prose or result.errors)
        prose = f"Claude's API failed ({f'HTTP {status}' if status else 'no answer'}). Try again in a moment."
    return from_upstream(status, prose, state.model)
