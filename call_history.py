"""The calls of a conversation: in one form, each with its result, under ids of their own; purely."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count, takewhile

from errors import InvalidRequestError
from models import AssistantMessage, ChatMessage, FunctionMessage, SystemMessage, ToolCall, ToolMessage

_PART_OF_A_CALL = re.compile(r"_[0-9]+\Z")


def in_present_form(messages: Sequence[ChatMessage], awaited: Sequence[str]) -> Iterator[ChatMessage]:
    """Write function calls, which tools have taken the place of, as calls of tools, and what came of them as results.

    They have no ids: what a function answered belongs to the call before it, the first time to the one in `awaited`.
    """
    call_id = awaited[0] if awaited else ""
    for index, message in enumerate(messages):
        if isinstance(message, AssistantMessage) and message.function_call:
            call_id = f"function-call-{index}"
            call = ToolCall(id=call_id, function=message.function_call)
            yield message.model_copy(update={"tool_calls": [*(message.tool_calls or ()), call]})
        elif isinstance(message, FunctionMessage):
            yield ToolMessage(role="tool", content=message.content or "", tool_call_id=call_id)
        else:
            yield message


def is_system(message: ChatMessage) -> bool:
    """Whether a message is a part of the system prompt."""
    return isinstance(message, SystemMessage)


def results_in_front(messages: Iterable[ChatMessage]) -> list[ToolMessage]:
    """Return the results that stand before anything that is said: they belong to calls that were made before."""
    spoken = (message for message in messages if not is_system(message))
    results = takewhile(lambda message: isinstance(message, ToolMessage), spoken)
    return [result for result in results if isinstance(result, ToolMessage)]


def calls_with_places(message: AssistantMessage, index: int) -> Iterator[tuple[ToolCall, str]]:
    """Yield the calls of a message, each with where it stands in the request; one in the old form is the last."""
    calls = message.tool_calls or []
    for number, call in enumerate(calls):
        is_old = message.function_call is not None and number == len(calls) - 1
        yield call, f"messages.[{index}]." + ("function_call" if is_old else f"tool_calls.[{number}].function")


def check_order(messages: Sequence[ChatMessage], made_before: Iterable[str]) -> None:
    """OpenAI's rule, and Claude's: the answers to all calls follow right after the message that made them.

    `made_before` are the calls that were made right before these messages.
    """
    open_calls = {*made_before}
    # In front they leave a session's calls open: they only join the system prompt.
    begin = sum(1 for _ in takewhile(is_system, messages))
    for index, message in enumerate(messages[begin:], begin):
        if isinstance(message, ToolMessage):
            _close_call(open_calls, message, index)
        else:
            refuse_open_calls(open_calls, index)
            open_calls = _calls_of(message, index)
    refuse_open_calls(open_calls, len(messages) - 1)


def with_unique_ids(
    messages: Sequence[ChatMessage], taken: Iterable[str], made_before: Iterable[str]
) -> list[ChatMessage]:
    """Some clients number their calls anew in each message; `taken` are the ids of calls before these messages.

    Of these, `made_before` are the ones that are still to be answered. Claude Code drops a call whose id it has seen,
    and the result of an `X_2` where there is an `X`, too: it takes it for a part of that call.
    """
    seen = {*taken}
    wholes = {*map(_whole, seen)}
    renamed = {call: call for call in made_before}
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


def refuse_open_calls(open_calls: Iterable[str], index: int) -> None:
    """Raise InvalidRequestError where calls are open at the message of this index."""
    if open_calls := sorted(open_calls):
        unanswered = ", ".join(open_calls)
        raise InvalidRequestError(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {unanswered}",
            param=f"messages.[{index}].role",
        )
