"""Pure conversion, both ways: OpenAI messages to native Claude messages, and a turn's events to a completion.

What the model sees is what the client sent: roles, order and text are kept. Only this differs, because Claude's API is
so made: system messages are joined in front, neighbours of one role are one message with several blocks, ids of calls
are unique in a conversation, and there is no blank text: a blank part joins its neighbour, a blank message is left out
(the CLI would write words of its own in its place).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

from answer_models import AnswerMessage, ChatCompletion, Choice, CompletionUsage
from call_history import (
    calls_with_places,
    check_order,
    in_present_form,
    is_system,
    refuse_open_calls,
    results_in_front,
    with_unique_ids,
)
from client_functions import CallStyle, native_name
from content_parts import check_text, to_block, to_blocks, to_text
from conversation import digests
from errors import InvalidRequestError
from json_values import find_unwritable
from models import AssistantMessage, ChatMessage, FunctionCall, ToolCall, ToolMessage, UserMessage
from turns import (
    Binding,
    InputJsonDelta,
    Memory,
    Message,
    TextDelta,
    ThinkingDelta,
    ToolResultBlock,
    ToolUseBlock,
    ToolUseStarted,
    TurnEnded,
    TurnEvent,
    TurnRequest,
    TurnStarted,
)

_NO_MEMORY = Memory()
_BETWEEN_SYSTEM_MESSAGES = "\n\n"

# A prompt that begins with the one would take the place of Claude Code's own; one that is the other would vanish.
_BILLING_HEADER = "x-anthropic-billing-header:"
_BOUNDARY = "__SYSTEM_PROMPT_DYNAMIC_BOUNDARY__"


def to_turn_request(binding: Binding, messages: Sequence[ChatMessage], memory: Memory = _NO_MEMORY) -> TurnRequest:
    """Convert a conversation. Raises InvalidRequestError, with `param`, for one that Claude can't be asked with.

    `binding` comes without the system prompt. `memory` is what a session remembers. Messages that begin with all of it
    go on from there, others are added to it; a system prompt takes the place of the one that it has.
    """
    awaited = _calls_in(memory.messages[-1:])
    messages = [*in_present_form(messages, awaited)]
    answered = awaited if any(results_in_front(messages)) else ()
    check_order(messages, answered)
    system = [_joined_text(message, index) for index, message in enumerate(messages) if is_system(message)]
    converted = _merged(_converted(with_unique_ids(messages, (), answered)))
    if not _begins_with(converted, memory.messages):
        if not answered:
            refuse_open_calls(awaited, 0)
        added = _converted(with_unique_ids(messages, _calls_in(memory.messages), answered))
        converted = _merged(chain(memory.messages, added))
    if not converted or converted[-1].role != "user":
        raise InvalidRequestError(
            "The last message must be the user's, or a tool's, and not empty: Claude answers to that.",
            param=f"messages.[{len(messages) - 1}]",
        )
    return TurnRequest(
        binding=replace(binding, system=_system_prompt(system) or memory.system),
        history=tuple(converted[:-1]),
        prompt=converted[-1],
    )


def find_faults_of_conversation(
    messages: Sequence[ChatMessage], *, is_whole: bool = True
) -> tuple[InvalidRequestError, ...]:
    """Return why Claude can't be asked with these messages: each part and call that can't be converted, and the order.

    An order that is wrong in one place is not judged beyond it, and the whole only where its pieces are right. Where
    they aren't the whole conversation, a session may have made the calls whose results stand in front.
    """
    present = [*in_present_form(messages, ())]
    made_before = () if is_whole else tuple(result.tool_call_id for result in results_in_front(present))
    calls = tuple(ToolUseBlock(call, "function", {}) for call in made_before)
    checks = [check for index, message in enumerate(present) for check in _piecewise(message, index)]
    checks.append(partial(check_order, present, made_before))
    found = tuple(fault for check in checks for fault in _faults(check))
    memory = Memory(messages=(Message("assistant", calls),) if calls else ())
    return found or tuple(_faults(partial(to_turn_request, Binding("", None), messages, memory)))


def _piecewise(message: ChatMessage, index: int) -> Iterator[Callable[[], object]]:
    parts = message.content if isinstance(message.content, list) else ()
    check: Callable[..., object] = to_block if isinstance(message, UserMessage | ToolMessage) else check_text
    yield from (partial(check, part, f"messages.[{index}].content.[{number}]") for number, part in enumerate(parts))
    if isinstance(message, AssistantMessage):
        yield from (partial(_tool_use, call, place) for call, place in calls_with_places(message, index))


def _faults(check: Callable[[], object]) -> list[InvalidRequestError]:
    try:
        check()
    except InvalidRequestError as fault:
        return [fault]
    return []


def _begins_with(messages: Sequence[Message], remembered: Sequence[Message]) -> bool:
    beginning = [*messages[: len(remembered)]]
    if remembered and remembered[-1].role == "user" and len(beginning) == len(remembered):
        # Its answer was blank and is left out, so what the user said next stands in the same message.
        beginning[-1] = Message(beginning[-1].role, beginning[-1].content[: len(remembered[-1].content)])
    # By their digests, for which an answer is the same however many blocks it came in.
    return [*digests(beginning)] == [*digests(remembered)]


def _calls_in(messages: Sequence[Message]) -> tuple[str, ...]:
    return tuple(block.id for message in messages for block in message.content if isinstance(block, ToolUseBlock))


def to_chat_completion(
    completion_id: str, created: int, turns: Sequence[Sequence[TurnEvent]], style: CallStyle, *, in_full: bool = False
) -> ChatCompletion:
    """Put whole turns together, each of which is a choice; `style` is how the client is told of calls.

    `in_full`: with what Claude Code counted, as it is.
    """
    started = next(event for event in turns[0] if isinstance(event, TurnStarted))
    ends = [event for events in turns for event in events if isinstance(event, TurnEnded)]
    return ChatCompletion(
        id=completion_id,
        created=created,
        model=started.model,
        choices=[
            Choice(
                index=index,
                message=_answer(events, style),
                finish_reason=style.finish_reason(ended, has_spoken=any(map(_is_spoken, events))),
            )
            for index, (events, ended) in enumerate(zip(turns, ends, strict=True))
        ],
        usage=CompletionUsage.of(ends, in_full=in_full),
    )


def _is_spoken(event: TurnEvent) -> bool:
    return isinstance(event, TextDelta | ToolUseStarted)


def _answer(events: Sequence[TurnEvent], style: CallStyle) -> AnswerMessage:
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    thoughts = "".join(event.thinking for event in events if isinstance(event, ThinkingDelta))
    refusal = next(event.refusal for event in events if isinstance(event, TurnEnded))
    calls = _calls(events, style)
    if style.is_legacy:
        told: dict[str, Any] = {"function_call": calls[0].function if calls else None}
    else:
        told = {"tool_calls": calls or None}
    content = text or (None if calls or refusal else "")
    return AnswerMessage(content=content, refusal=refusal, reasoning_content=thoughts or None, **told)


def _calls(events: Sequence[TurnEvent], style: CallStyle) -> list[ToolCall]:
    calls: list[tuple[ToolUseStarted, list[str]]] = []
    for event in events:
        if isinstance(event, ToolUseStarted):
            calls.append((event, []))
        elif isinstance(event, InputJsonDelta):
            calls[-1][1].append(event.partial_json)
    return [
        ToolCall(id=call.id, function=FunctionCall(name=style.own_name(call.name), arguments="".join(pieces)))
        for call, pieces in calls
    ]


def _system_prompt(texts: Sequence[str]) -> str | None:
    system = _BETWEEN_SYSTEM_MESSAGES.join(text for text in texts if text.strip())
    if system.startswith(_BILLING_HEADER) or system == _BOUNDARY:
        raise InvalidRequestError("Claude Code takes this system prompt for words of its own.", param="messages")
    return system or None


def _joined_text(message: ChatMessage, index: int) -> str:
    return "".join(block.text for block in to_text(message.content or "", _content_of(index)))


def _converted(messages: Sequence[ChatMessage]) -> Iterator[Message]:
    for index, message in enumerate(messages):
        convert = _CONVERTERS.get(type(message))
        if convert and (native := convert(message, index)).content:
            yield native


def _merged(messages: Iterable[Message]) -> list[Message]:
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1].role == message.role:
            merged[-1] = Message(message.role, merged[-1].content + message.content)
        else:
            merged.append(message)
    return merged


def _content_of(index: int) -> str:
    return f"messages.[{index}].content"


def _user(message: UserMessage, index: int) -> Message:
    return Message("user", to_blocks(message.content, _content_of(index)))


def _assistant(message: AssistantMessage, index: int) -> Message:
    said = (*to_text(message.content or "", _content_of(index)), *to_text(message.refusal or "", _content_of(index)))
    calls = (_tool_use(call, place) for call, place in calls_with_places(message, index))
    return Message("assistant", (*said, *calls))


def _tool_use(call: ToolCall, place: str) -> ToolUseBlock:
    arguments = call.function.arguments or "{}"
    block = ToolUseBlock.of(call.id, native_name(call.function.name), arguments)
    if block is None or find_unwritable(arguments.encode(), block.input):
        message = "A call's arguments must be a JSON object, as a string, without NUL characters."
        raise InvalidRequestError(message, param=f"{place}.arguments")
    return block


def _tool(message: ToolMessage, index: int) -> Message:
    return Message("user", (ToolResultBlock(message.tool_call_id, to_blocks(message.content, _content_of(index))),))


_CONVERTERS: Mapping[type, Callable[[Any, int], Message]] = {
    UserMessage: _user,
    AssistantMessage: _assistant,
    ToolMessage: _tool,
}
