"""The client's functions as Claude Code sees them: one MCP server, whose calls wait until the client has the results.

Without I/O: a frame comes in, frames go out. What the model is told of a function stands in the request's body, see
cli_frames.py; Claude Code needs to know only its name.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from cli_frames import Frame
from turns import Message, TextBlock, Tool, ToolResultBlock, as_json

# Somewhat longer ones Claude Code lets Claude count, and then writes to the disk. A character may be two of UTF-16.
_LONGEST_RESULT = 50_000 // 2


def results_in(prompt: Message) -> Mapping[str, ToolResultBlock] | None:
    """Return the results that a prompt consists of, by their calls; None where it has anything else.

    And None where a result wouldn't reach the model as it is: of an empty one Claude Code speaks in its own words.
    """
    results = {block.tool_use_id: block for block in prompt.content if isinstance(block, ToolResultBlock)}
    is_all = len(results) == len(prompt.content)
    return results if is_all and all(map(_arrives_unchanged, results.values())) else None


def _arrives_unchanged(result: ToolResultBlock) -> bool:
    # Images have another form here, and documents have none.
    texts = [block.text for block in result.content if isinstance(block, TextBlock)]
    return len(texts) == len(result.content) and 0 < sum(map(len, texts)) <= _LONGEST_RESULT


@dataclass
class ToolBridge:
    """Answers the requests that Claude Code makes of the server: its calls once there are results, others at once."""

    _tools: tuple[Tool, ...] = ()
    _tells_all: bool = False
    _calls: dict[str, Frame] = field(default_factory=dict)
    _results: dict[str, ToolResultBlock] = field(default_factory=dict)
    _sent: str | None = None
    """The call whose result was sent, and not taken up yet."""

    def offer(self, tools: tuple[Tool, ...], *, in_full: bool = False) -> None:
        """Have these functions from now on; `in_full`: tell all of them, not only their names."""
        self._tools, self._tells_all = tools, in_full

    def receive(self, frame: Frame) -> list[Frame] | None:
        """Take a frame of Claude Code's; return the frames that are due now, or None for one that isn't ours."""
        if frame.get("type") == "control_request" and frame["request"].get("subtype") == "mcp_message":
            return self._serve(frame)
        if self._sent and frame.get("type") == "user" and self._sent in _results_of(frame):
            self._sent = None
            return self._due()
        return None

    def answer(self, results: Mapping[str, ToolResultBlock]) -> list[Frame]:
        """Take the results of calls, whether or not Claude Code has made them yet; return the frames that are due."""
        self._results.update(results)
        return self._due()

    def forget(self) -> None:
        """Drop all calls: Claude Code was told to stop."""
        self._calls.clear()
        self._results.clear()
        self._sent = None

    def _serve(self, request: Frame) -> list[Frame]:
        message = request["request"]["message"]
        if message["method"] == "tools/call":
            self._calls[message["params"]["_meta"]["claudecode/toolUseId"]] = request
            return self._due()
        answer = self._answers.get(message["method"], _nothing)
        return [_reply(request, answer(self, message.get("params") or {}))]

    def _due(self) -> list[Frame]:
        """Answer the next call, in the order of the results, which is the client's.

        One after the other, each when Claude Code has taken up the one before: together it would mix them up.
        """
        call = next(iter(self._results), None)
        if self._sent or call not in self._calls:
            return []
        self._sent = call
        content = [as_json(block) for block in self._results.pop(call).content]
        return [_reply(self._calls.pop(call), {"content": content})]

    def _initialize(self, params: Frame) -> Frame:
        version = params["protocolVersion"]
        server = {"name": "client", "version": "1"}
        return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": server}

    def _list(self, _params: Frame) -> Frame:
        return {"tools": [{**_listed(tool), **(_described(tool) if self._tells_all else {})} for tool in self._tools]}

    _answers: ClassVar[Mapping[str, Callable[..., Frame]]] = {"initialize": _initialize, "tools/list": _list}


def _results_of(frame: Frame) -> Iterator[str]:
    """The calls whose results a message of the user's brings."""
    content = frame["message"]["content"]
    return (block["tool_use_id"] for block in content if isinstance(block, dict) and "tool_use_id" in block)


def _nothing(_bridge: ToolBridge, _params: Frame) -> Frame:
    return {}


def _listed(tool: Tool) -> Frame:
    return {
        "name": tool.name,
        "inputSchema": {"type": "object"},
        # Or calls of one answer would be made one after the other, each when the one before has its result.
        "annotations": {"readOnlyHint": True},
        "_meta": {"anthropic/alwaysLoad": True},
    }


def _described(tool: Tool) -> Frame:
    definition = json.loads(tool.definition)
    return {"description": definition.get("description", ""), "inputSchema": definition["input_schema"]}


def _reply(request: Frame, result: Frame) -> Frame:
    # Also to a notification, which has no id: the control request that brings it is to be answered.
    message = {"jsonrpc": "2.0", "id": request["request"]["message"].get("id", 0), "result": result}
    response = {"subtype": "success", "request_id": request["request_id"], "response": {"mcp_response": message}}
    return {"type": "control_response", "response": response}
