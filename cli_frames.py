"""What is written to Claude Code, purely: messages as frames, and the control requests that rewind and rebind."""

import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from turns import Binding, Message

Frame = dict[str, Any]

Control = tuple[str, Frame]
"""A control request: its subtype and its fields."""

NOWHERE = "http://127.0.0.1:9"
"""The discard port, where nobody listens: a request that goes there fails at once."""

# An alias that every account has.
_SOME_ALIAS = "sonnet"
_FULL_NAME = re.compile(r"claude-\w+-\d", re.IGNORECASE)


def frame_of(message: Message, **fields: Any) -> Frame:
    """Write a message, under an id of its own; `fields` are added to the frame."""
    return {**_FRAMES[message.role]([asdict(block) for block in message.content]), **fields}


def rewind_to(target: str) -> Control:
    """Drop the message of this id, the user's last, and the answer to it."""
    return "rewind_conversation", {"target_message_uuid": target}


def redirect(base_url_variable: str, url: str) -> Control:
    """Let requests from now on go to `url`; empty: to where they go by default."""
    return "apply_flag_settings", {"settings": {"env": {base_url_variable: url}}}


def rebinding(old: Binding | None, new: Binding) -> Iterator[Control]:
    """Yield what takes a process from one binding to another.

    The conversation has to be empty then, or Claude Code tells the model of the change.
    """
    if old == new:
        return
    if old and new.system and old.system != new.system:
        if old.model == new.model and _FULL_NAME.match(new.model):
            # Four times as fast as the two controls below; of an alias Claude Code isn't sure enough.
            yield "set_model", {"model": new.model, "system_prompt": new.system, "only_if_model_is_current": True}
            return
        # With an alias: a full name would be tried out with a request, and billed.
        yield "set_model", {"model": _SOME_ALIAS, "system_prompt": new.system}
    yield "apply_flag_settings", {"settings": {"model": new.model}}


def _user_frame(content: list[dict[str, Any]]) -> dict[str, Any]:
    # `client_composed`, set by the SDK's verbatim_prompts, keeps @path and /command in it plain text.
    message = {"role": "user", "content": content}
    return {"type": "user", "message": message, "parent_tool_use_id": None, "session_id": "", "uuid": str(uuid.uuid4())}


def _assistant_frame(content: list[dict[str, Any]]) -> dict[str, Any]:
    # An id of its own, or the CLI merges the message with its neighbour.
    message = {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": content,
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }
    return {
        "type": "assistant",
        "message": message,
        "parent_tool_use_id": None,
        "session_id": "",
        "uuid": str(uuid.uuid4()),
    }


_FRAMES: Mapping[str, Callable[[list[dict[str, Any]]], dict[str, Any]]] = {
    "user": _user_frame,
    "assistant": _assistant_frame,
}
