"""What is written to Claude Code, purely: messages as frames, and the control requests that rewind and rebind."""

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import blake2b
from typing import Any

from turns import OUTPUT_TOOL, Binding, Message, OutputFormat, Thinking, Tool, as_json

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
    return {**_FRAMES[message.role]([as_json(block) for block in message.content]), **fields}


def rewind_to(target: str) -> Control:
    """Drop the message of this id, the user's last, and the answer to it."""
    return "rewind_conversation", {"target_message_uuid": target}


def set_environment(variables: Mapping[str, str]) -> Control:
    """Let the process have these variables from now on; an empty one is as good as none."""
    return "apply_flag_settings", {"settings": {"env": dict(variables)}}


def rebinding(old: Binding | None, new: Binding, environment: Mapping[str, str] | None = None) -> Iterator[Control]:
    """Yield what takes a process from one binding to another, and sets variables of its environment besides.

    Where the one can't follow the other the conversation has to be empty, or Claude Code tells the model of the change.
    """
    before = old or Binding("", None)
    settings: Frame = {} if new.model == before.model else {"model": new.model}
    if old and new.system and old.system != new.system:
        yield _other_prompt(new, settings)
    if server_name(new.tools) != server_name(before.tools):
        yield _servers(new, settings)
    if new.thinking.effort != before.thinking.effort:
        settings["effortLevel"] = new.thinking.effort
    if _budget(new.thinking) != _budget(before.thinking):
        yield "set_max_thinking_tokens", _budget(new.thinking)
    variables = {**(environment or {}), **_changed_variables(before, new)}
    if variables:
        settings["env"] = variables
    if settings:
        yield "apply_flag_settings", {"settings": settings}


def _other_prompt(new: Binding, settings: Frame) -> Control:
    if not settings and _FULL_NAME.match(new.model):
        # Without the settings, which take five times as long; of an alias Claude Code isn't sure enough.
        return "set_model", {"model": new.model, "system_prompt": new.system, "only_if_model_is_current": True}
    # With an alias: a full name would be tried out with a request, and billed.
    settings["model"] = new.model
    return "set_model", {"model": _SOME_ALIAS, "system_prompt": new.system}


def _servers(new: Binding, settings: Frame) -> Control:
    server = server_name(new.tools)
    if server:
        settings["permissions"] = {"allow": [f"mcp__{server}"]}
    return "mcp_set_servers", {"servers": {server: {"type": "sdk", "name": server}} if server else {}}


def server_name(tools: Sequence[Tool]) -> str | None:
    """Name the server of these functions after them.

    Claude Code never forgets what a server of a name had before, so one of other functions needs another name.
    """
    if not tools:
        return None
    names = "\0".join(sorted(tool.name for tool in tools))
    return f"client_{blake2b(names.encode(), digest_size=8).hexdigest()}"


def _changed_variables(old: Binding, new: Binding) -> Mapping[str, str]:
    if replace(old, model=new.model, system=new.system) == new:  # What they are made of is large, at times.
        return {}
    before = _variables(old)
    return {name: value for name, value in _variables(new).items() if value != before[name]}


def _variables(binding: Binding) -> Mapping[str, str]:
    """Return the variables that say what goes into each request; they stay until others take their place."""
    body, limit = _body(binding), binding.sampling.max_tokens
    return {
        # This is merged into it.
        "CLAUDE_CODE_EXTRA_BODY": json.dumps(body) if body else "",
        # And this many tokens it leaves for thinking.
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(limit) if limit and binding.thinking.budget_tokens else "",
    }


def _body(binding: Binding) -> Frame:
    choice = asdict(binding.tool_choice) if binding.tool_choice else {}
    fields = {
        **asdict(binding.sampling),
        # Those in the body take the place of all others, so beside Claude Code's own they come from tool_bridge.py.
        "tools": [] if binding.has_own_tools else [*_definitions(binding)],
        "tool_choice": {name: value for name, value in choice.items() if value},
        # Claude Code adds the effort to it.
        "output_config": _output_config(binding.output_format),
    }
    return {name: value for name, value in fields.items() if value not in (None, (), [], {})}


def _definitions(binding: Binding) -> Iterator[Frame]:
    """Yield the tools for the body: by itself Claude Code sorts them, and knows nothing of `strict`."""
    yield from (json.loads(tool.definition) for tool in binding.tools)
    # While the model has to call a function of the client's, it can't answer yet.
    is_forced = binding.tool_choice is not None and binding.tool_choice.is_forced
    if binding.tools and binding.own_schema and not is_forced:
        # Claude Code's own would be lost.
        schema = json.loads(binding.own_schema)
        yield {
            "name": OUTPUT_TOOL,
            "description": "return the final response as structured JSON",
            "input_schema": schema,
        }


def _output_config(output_format: OutputFormat | None) -> Frame:
    if output_format is None or output_format.held_by != "api":
        return {}
    return {"format": {"type": "json_schema", "schema": json.loads(output_format.schema)}}


def _budget(thinking: Thinking) -> Frame:
    return {
        "max_thinking_tokens": thinking.budget_tokens,
        "thinking_display": "summarized" if thinking.is_shown else None,
    }


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
