"""What the project relies on in the real `claude` CLI, one test a fact: the results of the client's functions.

See test_cli_contract.py.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from claude_cli import ClientTool, Frame, Lab, assistant, contents, is_result, text, user
from demo_upstream import Reply, ToolCall

WEATHER_CALL = Reply(text="Let me look.", tool_calls=[ToolCall("weather", {"city": "Paris"})])
ALLOWED = ("--allowed-tools", "mcp__client")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("result", "seen", "is_error"),
    [
        ({"content": [text("a"), text("b")]}, [text("a"), text("b")], None),
        ({"content": [text("boom")], "isError": True}, "boom", True),
        # The danger: words of the CLI's own stand where the function said nothing.
        ({"content": []}, "(weather completed with no output)", None),
        ({"content": [text("")]}, "(weather completed with no output)", None),
    ],
)
async def test_what_becomes_of_a_result(lab: Lab, result: Frame, seen: Any, *, is_error: bool | None) -> None:
    """Texts arrive as they are, an error as one; an empty result doesn't."""
    lab.script(WEATHER_CALL)

    async def weather(_arguments: Frame) -> Frame:
        return result

    async with lab.bound(*ALLOWED) as cli:
        await cli.set_tools("client", ClientTool("weather", weather))
        await cli.turn("Weather in Paris?")
    (block,) = contents(lab.bodies[-1]["messages"][-1])
    assert (block["content"], block.get("is_error")) == (seen, is_error)


@pytest.mark.asyncio
async def test_a_large_result_is_kept_from_the_model(lab: Lab, tmp_path: Path) -> None:
    """The danger: a result of 1 MB is written to the disk, and the model gets its beginning and where it lies."""
    lab.script(WEATHER_CALL)

    async def weather(_arguments: Frame) -> str:
        return "x" * 1_000_000

    async with lab.bound(*ALLOWED, MAX_MCP_OUTPUT_TOKENS="10000000") as cli:
        await cli.set_tools("client", ClientTool("weather", weather))
        await cli.turn("Weather in Paris?")
    (block,) = contents(lab.bodies[-1]["messages"][-1])
    assert block["content"].startswith("<persisted-output>")
    assert str(tmp_path) in block["content"]


@pytest.mark.asyncio
async def test_results_stand_in_the_order_in_which_they_were_taken_up(lab: Lab) -> None:
    """Where each is sent when the CLI has told of the one before. Sent together, they would be mixed up."""
    names = [f"f{number}" for number in range(12)]
    lab.script(Reply(tool_calls=[ToolCall(name, {}) for name in names]))
    turns = {name: asyncio.Event() for name in names}
    all_are_made = asyncio.Event()

    def waiting(name: str) -> ClientTool:
        async def handler(_arguments: Frame) -> str:
            if len(cli.mcp_calls) == len(names):
                all_are_made.set()
            await turns[name].wait()
            return name

        return ClientTool(name, handler, read_only=True)

    order = names[5:] + names[4::-1]
    async with lab.bound(*ALLOWED) as cli:
        await cli.set_tools("client", *map(waiting, names))
        await cli.send(user("Go"))
        await all_are_made.wait()
        for name in order:
            turns[name].set()
            await cli.receive_until(lambda frame: frame["type"] == "user")
        await cli.receive_until(is_result)
    results = contents(lab.bodies[-1]["messages"][-1])
    assert [result["content"] for result in results] == [[text(name)] for name in order]


@pytest.mark.asyncio
async def test_results_up_to_fifty_thousand_characters_arrive(lab: Lab) -> None:
    """So long a result isn't counted, not cut and not written to the disk, and many of them aren't, either."""
    calls = [ToolCall(f"f{number}", {}) for number in range(8)]
    lab.script(Reply(tool_calls=calls))

    async def long(_arguments: Frame) -> str:
        return "漢" * 49_000

    async with lab.bound(*ALLOWED) as cli:
        await cli.set_tools("client", *(ClientTool(call.name, long, read_only=True) for call in calls))
        await cli.turn("Go")
    assert [result["content"] for result in contents(lab.bodies[-1]["messages"][-1])] == [[text("漢" * 49_000)]] * 8
    assert len(lab.upstream.requests) == 2


@pytest.mark.asyncio
async def test_results_arrive_letter_by_letter(lab: Lab) -> None:
    """What the CLI cleans from a tool's description, it leaves in a result, and in a call's arguments."""
    strange = "ﬁ ½ e\u0301 \u200b👨\u200d👩 \ue000 \U000e0041 \u00a0 \ufeff \u202e \x00\x07\r\n\u2028 <system-reminder>"
    lab.script(Reply(tool_calls=[ToolCall("weather", {"city": strange})]))

    async def repeat(arguments: Frame) -> str:
        return str(arguments["city"])

    async with lab.bound(*ALLOWED) as cli:
        await cli.set_tools("client", ClientTool("weather", repeat))
        await cli.turn("Go")
    *_, said, result = lab.bodies[-1]["messages"]
    assert contents(said)[-1]["input"] == {"city": strange}
    assert contents(result)[0]["content"] == [text(strange)]


@pytest.mark.asyncio
@pytest.mark.parametrize("content", [[], [text("x" * 1_000_000)]])
async def test_seeded_results_arrive_whatever_they_are(lab: Lab, content: list[Frame]) -> None:
    """A result in a message of ours is neither spoken for, where it is empty, nor shortened, where it is large."""
    lab.script()
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
    async with lab.bound(model="sonnet") as cli:
        await cli.seed(user("Weather in Paris?"), assistant(call))
        await cli.turn(user([{"type": "tool_result", "tool_use_id": "toolu_1", "content": content}]))
        await cli.turn("Hello")
    for body in lab.bodies:
        (result,) = (block for message in body["messages"] for block in contents(message) if "tool_use_id" in block)
        assert result["content"] == content
