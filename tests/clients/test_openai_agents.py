"""openai-agents: functions, handoffs and output types, streamed or not."""

import json
from pathlib import Path

import pytest

from conftest import ServerFactory
from demo_upstream import Reply, ToolCall
from published_clients import (
    ANSWER,
    CITY,
    COMPARE,
    COMPARISON,
    FOLLOW_UPS,
    MODEL,
    PARIS,
    PREAMBLE,
    PROPERTIES,
    QUESTION,
    ROME,
    TEMPERATURES,
    demanded,
    printed,
    run_python,
    script_the_question,
    seen,
    went_on,
)

HANDOFF = ToolCall("transfer_to_weather", {})


@pytest.mark.parametrize("mode", ["run", "stream"])
def test_an_agent_hands_over_to_one_with_functions(serve: ServerFactory, tmp_path: Path, mode: str) -> None:
    """The second agent goes on in the first one's conversation, with instructions and functions of its own."""
    server = serve()
    server.upstream.script(Reply(tool_calls=[HANDOFF]))
    script_the_question(server.upstream)
    result = printed(run_python(["openai_agents.py", MODEL, QUESTION, mode], server, tmp_path))
    assert (result["answer"], result["agent"], result["requests"]) == (ANSWER, "Weather", 4)
    calls = ["tool_call_item", "tool_call_item", "tool_call_output_item", "tool_call_output_item"]
    assert result["items"] == [
        "handoff_call_item",
        "handoff_output_item",
        "message_output_item",
        *calls,
        "tool_call_item",
        "tool_call_output_item",
        "message_output_item",
    ]
    assert result["total_tokens"] > 0
    if mode == "stream":
        assert result["events"]["response.output_text.delta"] > 2
        assert result["events"]["response.function_call_arguments.delta"] > 3
    handed_over = '{"assistant": "Weather"}'
    assert seen(server.upstream) == [
        ("user", [QUESTION]),
        ("assistant", [HANDOFF]),
        ("user", [handed_over]),
        ("assistant", [PREAMBLE, PARIS, ROME]),
        ("user", [*TEMPERATURES.values()]),
        ("assistant", [COMPARE]),
        ("user", [COMPARISON]),
    ]
    assert went_on(server) == FOLLOW_UPS
    first, second, *_ = [request.body for request in server.upstream.messages_requests()]
    assert [tool["name"] for tool in first["tools"]] == ["transfer_to_weather"]
    assert [tool["name"] for tool in second["tools"]] == ["get_temperature", "compare"]
    assert "Hand over to who knows." in str(first["system"])
    assert "Hand over" not in str(second["system"])


def test_answers_are_objects(serve: ServerFactory, tmp_path: Path) -> None:
    """Of an agent with an output type."""
    server = serve()
    server.upstream.script(Reply(text=json.dumps(CITY)), times=2)
    result = printed(run_python(["openai_agents.py", MODEL, QUESTION, "typed"], server, tmp_path))
    assert result == {"whole": CITY, "streamed": CITY}
    assert demanded(server.upstream) == [("format", PROPERTIES)] * 2
