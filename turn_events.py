"""From the SDK's messages to the events of a turn: one small handler for each kind, purely.

It takes the types of messages from the SDK.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from claude_agent_sdk import (
    AssistantMessage,
    RateLimitEvent,
    ResultMessage,
    StreamEvent,
    SystemMessage,
    UserMessage,
)
from claude_agent_sdk import Message as SdkMessage
from claude_agent_sdk import TextBlock as SdkTextBlock
from claude_agent_sdk import ThinkingBlock as SdkThinkingBlock
from claude_agent_sdk import ToolResultBlock as SdkToolResultBlock
from claude_agent_sdk import ToolUseBlock as SdkToolUseBlock

from errors import ClaudeCodeError, from_upstream
from tool_calls import Call
from turn_state import TurnState, counted_usage
from turns import (
    OUTPUT_TOOL,
    InputJsonDelta,
    Message,
    TextDelta,
    ThinkingDelta,
    ToolUseStarted,
    TurnEnded,
    TurnEvent,
    TurnStarted,
    Usage,
)
from upstream_failures import Failure, broken, retried, seconds_until

# After these the CLI prompts the model again by itself, in words of its own; there is no setting against it.
# So it does after a call of what isn't the client's, or can't be read: it would argue with it.
_CUT_SHORT = frozenset({"max_tokens", "model_context_window_exceeded"})
_STOPS_THAT_THE_CLI_CONTINUES = _CUT_SHORT | {"tool_use"}
_NO_CALLS_AFTER = _CUT_SHORT | {"refusal"}

_REFUSED = "Claude declined to answer this."
# How Claude Code says that it has reached a limit that was set for it.
_LIMITS = frozenset({"max_turns", "budget_exhausted"})
_BETWEEN_STEPS = "\n\n"


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
    if state.started and not (state.has_own_schema or state.own_calls):
        raise ClaudeCodeError("Claude Code asked the model a second time by itself.")
    started = message.event["message"]
    state.used_before, state.usage, state.has_stopped = state.used, started.get("usage") or {}, False
    _begin_step(state)
    if not state.started:
        yield _started(state, started["model"], message.session_id)
        yield from state.early


def _begin_step(state: TurnState) -> None:
    state.steps += 1
    state.has_step_spoken = False
    if state.own_calls and not (state.tells_steps or state.has_own_schema):
        state.texts = []


def _started(state: TurnState, model: str, session_id: str | None) -> TurnStarted:
    state.started = True
    return TurnStarted(model, session_id or "")


def _on_content_block_start(state: TurnState, message: StreamEvent) -> _Events:
    block = message.event["content_block"]
    if block["type"] == "text" and not state.has_own_schema:
        yield from _begin_text(state)
    if block["type"] == "tool_use" and _is_output(state, block["name"]):
        _begin_output(state)
    elif block["type"] == "tool_use" and state.own_calls and block["name"] not in state.functions:
        yield state.own_calls.begin(block["id"], block["name"])
    elif block["type"] == "tool_use":
        yield _called(state, block["id"], block["name"])


def _begin_text(state: TurnState) -> _Events:
    follows_another_step = bool(state.own_calls) and not state.has_step_spoken and any(map(str.strip, state.texts))
    state.texts.append("")
    state.has_step_spoken = True
    if follows_another_step:
        yield from _said(state, _BETWEEN_STEPS)


def _is_output(state: TurnState, name: str) -> bool:
    return state.has_own_schema and name == OUTPUT_TOOL


def _begin_output(state: TurnState) -> None:
    if state.texts:
        raise from_upstream(None, "Claude's answer didn't have the form that it has to have. Try again.", state.model)
    state.is_output = True
    state.texts.append("")


def _called(state: TurnState, identifier: str, name: str) -> ToolUseStarted:
    state.calls.append(Call(identifier, name))
    return ToolUseStarted(identifier, name)


def _on_content_block_delta(state: TurnState, message: StreamEvent) -> _Events:
    delta = message.event["delta"]
    if delta["type"] == "thinking_delta" and delta["thinking"] and state.shows_thinking:
        yield ThinkingDelta(delta["thinking"])
    if delta["type"] == "text_delta":
        yield from _said(state, delta["text"])
    # An empty one comes in front of others, and alone where there are no arguments.
    if delta["type"] == "input_json_delta" and delta["partial_json"]:
        yield from _wrote_json(state, delta["partial_json"])


def _said(state: TurnState, text: str) -> _Events:
    if state.has_own_schema:
        state.has_prose |= bool(text.strip())
        return
    state.texts[-1] += text
    if state.own_calls is None or state.tells_steps:
        yield TextDelta(text)


def _wrote_json(state: TurnState, piece: str) -> _Events:
    if state.own_calls and state.own_calls.is_writing:
        state.own_calls.write(piece)
    elif state.is_output:
        state.texts[-1] += piece
        yield TextDelta(piece)
    else:
        yield _argued(state, piece)


def _argued(state: TurnState, partial_json: str) -> InputJsonDelta:
    state.calls[-1].arguments += partial_json
    return InputJsonDelta(partial_json)


def _on_content_block_stop(state: TurnState, _message: StreamEvent) -> _Events:
    if state.own_calls and state.own_calls.is_writing:
        yield state.own_calls.end()
        return
    if state.is_output and not state.texts[-1]:
        yield from _wrote_json(state, "{}")
    if state.calls and not state.calls[-1].arguments:
        yield _argued(state, "{}")
    state.is_output = False


def _on_message_delta(state: TurnState, message: StreamEvent) -> _Events:
    state.has_stopped = True
    state.usage |= message.event.get("usage") or {}
    delta = message.event["delta"]
    if delta.get("stop_reason") == "refusal":
        state.refusal = (delta.get("stop_details") or {}).get("explanation") or _REFUSED
    return _stopped(state, delta.get("stop_reason"))


def _on_message_stop(state: TurnState, _message: StreamEvent) -> _Events:
    """Fail where the stream broke: the CLI would ask for the rest, or for all again, or wait for a call's result."""
    # Of a turn that goes on with results, the end of the message with the calls comes first.
    if state.started and not state.has_stopped:
        state.continues_by_itself = True
        raise broken(state.model)
    return iter(())


def _stopped(state: TurnState, stop_reason: str | None) -> _Events:
    """End the turn where it waits for results, or where the CLI would go on by itself: it must not ask the model."""
    # Claude Code sees by itself whether it has an answer in the form that it has to have.
    if stop_reason is None or (state.has_own_schema and not state.calls and stop_reason not in _NO_CALLS_AFTER):
        return
    if state.own_calls and not state.calls and stop_reason == "tool_use":
        return
    # Such calls Claude Code makes, and they wait in tool_bridge; with others it argues.
    is_held = all(call.name in state.functions and call.block for call in state.calls)
    if state.calls and stop_reason not in _NO_CALLS_AFTER:
        # Whatever the API calls it: it is for its calls that Claude Code acts.
        stop_reason = "tool_use"
        state.waits_for_results = is_held
    is_blank = stop_reason != "refusal" and not state.answer.content
    goes_on = is_blank or bool(state.calls) or stop_reason in _STOPS_THAT_THE_CLI_CONTINUES
    state.continues_by_itself = goes_on and not (state.calls and is_held and stop_reason not in _CUT_SHORT)
    if goes_on:
        # Whoever is told that the answer was cut short, or refused, doesn't answer its calls.
        answer = state.spoken if stop_reason in _NO_CALLS_AFTER else state.answer
        yield from _last_words(state)
        yield _end(state, stop_reason, answer, state.used, None)


def _last_words(state: TurnState) -> _Events:
    """Say what the last step said, where no step was told while it was written."""
    if state.own_calls and not state.tells_steps and not state.has_own_schema and any(state.texts):
        yield TextDelta("".join(state.texts))


def _end(state: TurnState, stop_reason: str, answer: Message, used: Usage, cost_usd: float | None) -> TurnEnded:
    return TurnEnded(stop_reason, used, cost_usd, answer, state.refusal, state.steps)


def _on_assistant(state: TurnState, message: AssistantMessage) -> _Events:
    """Take over a whole message where nothing was streamed: so the CLI asks an upstream that can't stream."""
    state.login_failed |= message.error == "authentication_failed"
    if state.started or message.error:
        return
    if state.own_calls and message.stop_reason == "tool_use":
        # Of each block there is a message of its own here, and nothing tells which one is the last.
        state.continues_by_itself = True
        raise from_upstream(None, "Claude's API can't stream here, and Claude Code's tools need that.", state.model)
    _begin_step(state)
    yield _started(state, message.model, message.session_id)
    state.usage |= message.usage or {}
    for block in message.content:
        yield from _whole_block(state, block)
    yield from _stopped(state, message.stop_reason)


def _whole_block(state: TurnState, block: object) -> _Events:
    if isinstance(block, SdkThinkingBlock) and state.shows_thinking:
        yield ThinkingDelta(block.thinking)
    if isinstance(block, SdkTextBlock):
        if not state.has_own_schema:
            state.texts.append("")
        yield from _said(state, block.text)
    if isinstance(block, SdkToolUseBlock) and _is_output(state, block.name):
        _begin_output(state)
        yield from _wrote_json(state, json.dumps(block.input, ensure_ascii=False))
        state.is_output = False
    elif isinstance(block, SdkToolUseBlock):
        yield _called(state, block.id, block.name)
        yield _argued(state, json.dumps(block.input, ensure_ascii=False))


def _on_user(state: TurnState, message: UserMessage) -> _Events:
    """Tell what came of calls of Claude Code's own tools."""
    calls, content = state.own_calls, message.content
    for block in content if calls and isinstance(content, list) else ():
        if calls and isinstance(block, SdkToolResultBlock):
            ended = calls.answer(block.tool_use_id, block.content, is_error=bool(block.is_error))
            if ended and state.started:
                yield ended
            elif ended:
                state.early.append(ended)


def _on_result(state: TurnState, message: ResultMessage) -> _Events:
    stop_reason = message.stop_reason or "end_turn"
    if state.own_calls and message.terminal_reason in _LIMITS:
        stop_reason = str(message.terminal_reason)
    elif message.is_error and stop_reason != "refusal":
        raise _failure(state, message).to_error()
    if state.has_own_schema and not state.texts and stop_reason not in _LIMITS | {"refusal"}:
        raise from_upstream(None, "Claude gave no answer in the form that it has to have. Try again.", state.model)
    if state.has_own_schema and stop_reason == "tool_use":
        stop_reason = "end_turn"
    if stop_reason == "refusal":
        state.refusal = state.refusal or _REFUSED
    # The result counts all of a turn that has waited for results, and nothing of one that was refused.
    used = state.used if state.usage else counted_usage(message.usage or {})
    yield from _last_words(state)
    yield _end(state, stop_reason, state.answer, used, state.cost_usd)


def _failure(state: TurnState, result: ResultMessage) -> Failure:
    status = result.api_error_status
    prose = result.result or "; ".join(result.errors or ())
    wait = seconds_until(state.limit_resets_at)
    return Failure(state.model, status, prose, result.terminal_reason, state.login_failed, wait)


def _on_system(state: TurnState, message: SystemMessage) -> _Events:
    """Fail where Claude Code would make a request again: whether and when is the server's to decide, or the client's.

    It waits for half a second at least, and the process is interrupted meanwhile.
    """
    if message.subtype == "api_retry":
        raise retried(state.model, message.data["error_status"], message.data["retry_delay_ms"] / 1000)
    return iter(())


def _on_rate_limit(state: TurnState, message: RateLimitEvent) -> _Events:
    """Note when a subscription's limit ends: its requests aren't made again."""
    info = message.rate_limit_info
    state.limit_resets_at = info.resets_at if info.status == "rejected" else None
    return iter(())


_STREAM_HANDLERS: Mapping[str, Callable[[TurnState, StreamEvent], _Events]] = {
    "message_start": _on_message_start,
    "content_block_start": _on_content_block_start,
    "content_block_delta": _on_content_block_delta,
    "content_block_stop": _on_content_block_stop,
    "message_delta": _on_message_delta,
    "message_stop": _on_message_stop,
}
_HANDLERS: Mapping[type, Callable[[TurnState, Any], _Events]] = {
    StreamEvent: _on_stream_event,
    AssistantMessage: _on_assistant,
    UserMessage: _on_user,
    ResultMessage: _on_result,
    SystemMessage: _on_system,
    RateLimitEvent: _on_rate_limit,
}
