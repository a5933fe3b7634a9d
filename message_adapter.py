"""Pure conversion, both ways: OpenAI messages to native Claude messages, and a turn's events to a completion.

What the model sees is what the client sent: roles, order and text are kept. Only this differs, because Claude's API is
so made: system messages are joined in front, neighbours of one role are one message with several blocks, ids of calls
are unique in a conversation, and there is no blank text: a blank part joins its neighbour, a blank message is left out
(the CLI would write words of its own in its place).
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, count
from typing import Any

from pydantic_core import from_json

from conversation import digests
from errors import InvalidRequestError
from models import (
    AnswerMessage,
    AssistantMessage,
    ChatCompletion,
    ChatCompletionRequest,
    ChatMessage,
    Choice,
    CompletionUsage,
    Content,
    OtherPart,
    RefusalPart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
    finish_reason,
)
from turns import (
    Binding,
    Memory,
    Message,
    Sampling,
    TextBlock,
    TextDelta,
    ToolResultBlock,
    ToolUseBlock,
    TurnEnded,
    TurnEvent,
    TurnRequest,
    TurnStarted,
)

_ANY_SAMPLING = Sampling()
_NO_MEMORY = Memory()
_BETWEEN_SYSTEM_MESSAGES = "\n\n"
# Claude's temperatures end here, OpenAI's at 2, and it is the one that either takes by itself.
_HIGHEST_TEMPERATURE = 1
_ALL = 1
"""The `top_p` that leaves nothing out."""
_PART_OF_A_CALL = re.compile(r"_[0-9]+\Z")

# A prompt that begins with the one would take the place of Claude Code's own; one that is the other would vanish.
_BILLING_HEADER = "x-anthropic-billing-header:"
_BOUNDARY = "__SYSTEM_PROMPT_DYNAMIC_BOUNDARY__"


def to_turn_request(
    model: str,
    messages: Sequence[ChatMessage],
    sampling: Sampling = _ANY_SAMPLING,
    memory: Memory = _NO_MEMORY,
) -> TurnRequest:
    """Convert a conversation. Raises InvalidRequestError, with `param`, for one that Claude can't be asked with.

    `memory` is what a session remembers. Messages that begin with all of it go on from there, others are added to it;
    a system prompt takes the place of the one that it has.
    """
    _check_tool_order(messages)
    system = [_joined_text(message, index) for index, message in enumerate(messages) if _is_system(message)]
    converted = _merged(_converted(_with_unique_calls(messages, ())))
    if not _begins_with(converted, memory.messages):
        added = _converted(_with_unique_calls(messages, _calls_in(memory.messages)))
        converted = _merged(chain(memory.messages, added))
    if not converted or converted[-1].role != "user":
        raise InvalidRequestError(
            "The last message must be the user's, or a tool's, and not empty: Claude answers to that.",
            param=f"messages.[{len(messages) - 1}]",
        )
    return TurnRequest(
        binding=Binding(model=model, system=_system_prompt(system) or memory.system, sampling=sampling),
        history=tuple(converted[:-1]),
        prompt=converted[-1],
    )


def find_faults_of_conversation(messages: Sequence[ChatMessage]) -> tuple[InvalidRequestError, ...]:
    """Return why Claude can't be asked with these messages: each part and call that can't be converted, and the order.

    An order that is wrong in one place is not judged beyond it, and the whole only where its pieces are right.
    """
    checks = [check for index, message in enumerate(messages) for check in _piecewise(message, index)]
    checks.append(partial(_check_tool_order, messages))
    found = tuple(fault for check in checks for fault in _faults(check))
    return found or tuple(_faults(partial(to_turn_request, "", messages)))


def _piecewise(message: ChatMessage, index: int) -> Iterator[Callable[[], object]]:
    parts = message.content if isinstance(message.content, list) else ()
    yield from (partial(_part_text, number, part, index) for number, part in enumerate(parts))
    calls = message.tool_calls or () if isinstance(message, AssistantMessage) else ()
    yield from (partial(_tool_use, call, index, number) for number, call in enumerate(calls))


def _faults(check: Callable[[], object]) -> list[InvalidRequestError]:
    try:
        check()
    except InvalidRequestError as fault:
        return [fault]
    return []


def to_sampling(body: ChatCompletionRequest) -> tuple[Sampling, tuple[str, ...]]:
    """Translate what steers the model's writing; name the parameters that couldn't be translated as they were sent.

    What says nothing is left out: some models refuse even the values that they take by themselves.
    """
    temperature = None if body.temperature is None else min(body.temperature, _HIGHEST_TEMPERATURE)
    stops = tuple(stop for stop in body.stop or () if stop.strip())  # Claude refuses blank ones.
    sampling = Sampling(
        temperature=None if temperature == _HIGHEST_TEMPERATURE else temperature,
        top_p=None if body.top_p == _ALL else body.top_p,
        stop_sequences=stops,
        max_tokens=body.max_completion_tokens or body.max_tokens,
    )
    changed = {
        "max_tokens": body.max_tokens not in (None, sampling.max_tokens),
        "stop": len(stops) < len(body.stop or ()),
        "temperature": temperature != body.temperature,
    }
    return sampling, tuple(name for name, is_changed in changed.items() if is_changed)


def _begins_with(messages: Sequence[Message], remembered: Sequence[Message]) -> bool:
    beginning = [*messages[: len(remembered)]]
    if remembered and remembered[-1].role == "user" and len(beginning) == len(remembered):
        # Its answer was blank and is left out, so what the user said next stands in the same message.
        beginning[-1] = Message(beginning[-1].role, beginning[-1].content[: len(remembered[-1].content)])
    # By their digests, for which an answer is the same however many blocks it came in.
    return [*digests(beginning)] == [*digests(remembered)]


def _calls_in(messages: Sequence[Message]) -> Iterator[str]:
    return (block.id for message in messages for block in message.content if isinstance(block, ToolUseBlock))


def to_chat_completion(completion_id: str, created: int, events: Sequence[TurnEvent]) -> ChatCompletion:
    """Put the events of a whole turn together."""
    started = next(event for event in events if isinstance(event, TurnStarted))
    ended = next(event for event in events if isinstance(event, TurnEnded))
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    return ChatCompletion(
        id=completion_id,
        created=created,
        model=started.model,
        choices=[Choice(message=AnswerMessage(content=text), finish_reason=finish_reason(ended.stop_reason))],
        usage=CompletionUsage.of(ended.usage),
    )


def _system_prompt(texts: Sequence[str]) -> str | None:
    system = _BETWEEN_SYSTEM_MESSAGES.join(text for text in texts if text.strip())
    if system.startswith(_BILLING_HEADER) or system == _BOUNDARY:
        raise InvalidRequestError("Claude Code takes this system prompt for words of its own.", param="messages")
    return system or None


def _is_system(message: ChatMessage) -> bool:
    return isinstance(message, SystemMessage)


def _joined_text(message: ChatMessage, index: int) -> str:
    return "".join(block.text for block in _text_blocks(message.content or "", index))


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


def _text_blocks(content: Content, index: int) -> tuple[TextBlock, ...]:
    parts = [content] if isinstance(content, str) else [_part_text(*each, index) for each in enumerate(content)]
    texts: list[str] = []
    blank = ""
    for part in parts:
        if not part.strip():
            blank += part
        else:
            texts.append(blank + part)
            blank = ""
    if texts:
        texts[-1] += blank
    return tuple(map(TextBlock, texts))


def _part_text(number: int, part: TextPart | RefusalPart | OtherPart, index: int) -> str:
    if isinstance(part, OtherPart):
        raise InvalidRequestError(
            f"Content parts of type '{part.type}' are not supported here; send text.",
            param=f"messages.[{index}].content.[{number}].type",
            code="unsupported_content",
        )
    return part.refusal if isinstance(part, RefusalPart) else part.text


def _user(message: UserMessage, index: int) -> Message:
    return Message("user", _text_blocks(message.content, index))


def _assistant(message: AssistantMessage, index: int) -> Message:
    said = (*_text_blocks(message.content or "", index), *_text_blocks(message.refusal or "", index))
    calls = (_tool_use(call, index, number) for number, call in enumerate(message.tool_calls or ()))
    return Message("assistant", (*said, *calls))


def _tool_use(call: ToolCall, index: int, number: int) -> ToolUseBlock:
    try:
        arguments = from_json(call.function.arguments or "{}", allow_inf_nan=False)
        json.dumps(arguments, allow_nan=False)  # 1e999 is read as infinity.
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        path = f"messages.[{index}].tool_calls.[{number}].function.arguments"
        raise InvalidRequestError("A call's arguments must be a JSON object, as a string.", param=path)
    return ToolUseBlock(call.id, call.function.name, arguments)


def _tool(message: ToolMessage, index: int) -> Message:
    return Message("user", (ToolResultBlock(message.tool_call_id, _text_blocks(message.content, index)),))


_CONVERTERS: Mapping[type, Callable[[Any, int], Message]] = {
    UserMessage: _user,
    AssistantMessage: _assistant,
    ToolMessage: _tool,
}


def _check_tool_order(messages: Sequence[ChatMessage]) -> None:
    """OpenAI's rule, and Claude's: the answers to all calls follow right after the message that made them."""
    open_calls: set[str] = set()
    for index, message in enumerate(messages):
        if isinstance(message, ToolMessage):
            _close_call(open_calls, message, index)
        else:
            _refuse_open_calls(open_calls, index)
            open_calls = _calls_of(message, index)
    _refuse_open_calls(open_calls, len(messages) - 1)


def _with_unique_calls(messages: Sequence[ChatMessage], taken: Iterable[str]) -> list[ChatMessage]:
    """Some clients number their calls anew in each message; `taken` are the ids of calls before these messages.

    Claude Code drops a call whose id it has seen, and the result of an `X_2` where there is an `X`, too: it takes it
    for a part of that call.
    """
    seen = {*taken}
    wholes = {*map(_whole, seen)}
    renamed: dict[str, str] = {}
    unique: list[ChatMessage] = []
    for message in messages:
        if isinstance(message, AssistantMessage) and message.tool_calls:
            renamed = {}
            for call in message.tool_calls:
                renamed[call.id] = _unseen(call.id, seen, wholes)
                seen.add(renamed[call.id])
                wholes.add(_whole(renamed[call.id]))
            calls = [call.model_copy(update={"id": renamed[call.id]}) for call in message.tool_calls]
            unique.append(message.model_copy(update={"tool_calls": calls}))
        elif isinstance(message, ToolMessage):
            unique.append(message.model_copy(update={"tool_call_id": renamed[message.tool_call_id]}))
        else:
            unique.append(message)
    return unique


def _unseen(identifier: str, seen: set[str], wholes: set[str]) -> str:
    candidates = chain([identifier], (f"{identifier}-{number}" for number in count(2)))
    return next(each for each in candidates if not {each, _whole(each)} & seen and each not in wholes)


def _whole(identifier: str) -> str:
    """The call that Claude Code takes a call for a part of."""
    return _PART_OF_A_CALL.sub("", identifier)


def _calls_of(message: ChatMessage, index: int) -> set[str]:
    ids = [call.id for call in message.tool_calls or ()] if isinstance(message, AssistantMessage) else []
    if len(set(ids)) < len(ids):
        raise InvalidRequestError("Two calls of a message have the same id.", param=f"messages.[{index}].tool_calls")
    return set(ids)


def _close_call(open_calls: set[str], message: ToolMessage, index: int) -> None:
    if message.tool_call_id not in open_calls:
        raise InvalidRequestError(
            "messages with role 'tool' must be a response to a preceding message with 'tool_calls'.",
            param=f"messages.[{index}].role",
        )
    open_calls.remove(message.tool_call_id)


def _refuse_open_calls(open_calls: set[str], index: int) -> None:
    if open_calls:
        unanswered = ", ".join(sorted(open_calls))
        raise InvalidRequestError(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {unanswered}",
            param=f"messages.[{index}].role",
        )
