"""The server that Claude Code takes the client's functions for: what it answers, and when."""

from typing import Any

import pytest

from cli_frames import server_name
from tool_bridge import ToolBridge, results_in
from turns import Message, TextBlock, Tool, ToolResultBlock

Json = dict[str, Any]
TOOLS = (Tool("weather", "{}"), Tool("time", "{}"))


def request(method: str, number: int = 1, **params: Any) -> Json:
    """A message of Claude Code's to the server."""
    message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    content = {"subtype": "mcp_message", "server_name": "client", "message": message}
    return {"type": "control_request", "request_id": f"r{number}", "request": content}


def call(identifier: str, number: int = 1) -> Json:
    """A call of a function."""
    return request("tools/call", number, name="weather", arguments={}, _meta={"claudecode/toolUseId": identifier})


def taken_up(identifier: str) -> Json:
    """What Claude Code says when it has a result."""
    content = [{"type": "tool_result", "tool_use_id": identifier, "content": "x"}]
    return {"type": "user", "message": {"role": "user", "content": content}}


def result(identifier: str, *texts: str) -> ToolResultBlock:
    """A result of the client's."""
    return ToolResultBlock(identifier, tuple(map(TextBlock, texts)))


def answered(frames: list[Json] | None) -> list[tuple[str, Json]]:
    """Which requests the frames answer, and with what."""
    responses = [frame["response"] for frame in frames or []]
    return [(each["request_id"], each["response"]["mcp_response"]["result"]) for each in responses]


def test_it_says_what_it_has() -> None:
    """The names of the functions of now, to be called all at once; what else it is asked it acknowledges."""
    bridge = ToolBridge()
    bridge.offer(TOOLS)
    ((_, hello),) = answered(bridge.receive(request("initialize", protocolVersion="2025-06-18")))
    assert (hello["protocolVersion"], hello["capabilities"]) == ("2025-06-18", {"tools": {}})
    assert answered(bridge.receive(request("notifications/initialized"))) == [("r1", {})]
    ((_, listed),) = answered(bridge.receive(request("tools/list")))
    assert [tool["name"] for tool in listed["tools"]] == ["weather", "time"]
    assert all(tool["annotations"] == {"readOnlyHint": True} for tool in listed["tools"])


def test_a_call_waits_for_its_result() -> None:
    """Nothing is answered until the client has; and nothing else of Claude Code's concerns the bridge."""
    bridge = ToolBridge()
    assert bridge.receive(call("a")) == []
    assert bridge.receive(taken_up("b")) is None
    assert bridge.receive({"type": "assistant"}) is None
    assert answered(bridge.answer({"a": result("a", "21", "22")})) == [
        ("r1", {"content": [{"text": "21", "type": "text"}, {"text": "22", "type": "text"}]})
    ]


def test_results_leave_in_the_clients_order_one_by_one() -> None:
    """Whenever the calls come: the next result leaves when the one before is taken up."""
    bridge = ToolBridge()
    bridge.receive(call("a", 1))
    assert bridge.answer({name: result(name, name) for name in "cab"}) == []
    assert bridge.receive(call("b", 2)) == []
    assert [name for name, _ in answered(bridge.receive(call("c", 3)))] == ["r3"]
    assert bridge.receive(taken_up("a")) is None
    assert [name for name, _ in answered(bridge.receive(taken_up("c")))] == ["r1"]
    assert [name for name, _ in answered(bridge.receive(taken_up("a")))] == ["r2"]
    assert bridge.receive(taken_up("b")) == []


def test_what_is_forgotten_is_not_answered() -> None:
    """After an interrupted turn a call of the same id is another call."""
    bridge = ToolBridge()
    bridge.receive(call("a"))
    bridge.forget()
    assert bridge.answer({"a": result("a", "x")}) == []
    assert [name for name, _ in answered(bridge.receive(call("a", 2)))] == ["r2"]


def test_other_functions_are_another_server() -> None:
    """Claude Code would add them to what the server had; their order and their schemas are no matter of its."""
    assert server_name(()) is None
    assert server_name(TOOLS) == server_name((Tool("time", "{1}"), TOOLS[0]))
    assert len({server_name(TOOLS), server_name(TOOLS[:1]), server_name((Tool("weathertime", ""),))}) == 3


@pytest.mark.parametrize(
    ("blocks", "may_wait"),
    [
        ([result("a", "x"), result("b", "y")], True),
        ([result("a", "x" * 25_000)], True),
        ([result("a", "x" * 20_000, "x" * 5_001)], False),
        ([result("a")], False),
        ([result("a", "x"), TextBlock("And?")], False),
        ([TextBlock("Hi")], False),
    ],
)
def test_which_results_a_turn_may_wait_for(blocks: list[Any], may_wait: bool) -> None:
    """Only results, and only those that Claude Code passes on as they are."""
    assert (results_in(Message("user", tuple(blocks))) is not None) == may_wait
