"""What the CLI does about its own tools: the facts that the policy, and the processes with tools, are built on."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from claude_cli import API_KEY, MODEL, ClaudeCli, Frame, Lab
from demo_upstream import Reply, ToolCall

NOTHING: Mapping[str, str] = {}
HOOKS = {"PreToolUse": [{"matcher": None, "hookCallbackIds": ["hook"]}]}
ALLOW = {"hookSpecificOutput": {"hookEventName": "PreToolUse", "permissionDecision": "allow"}}


@asynccontextmanager
async def agent(
    lab: Lab, tools: str, *flags: str, bare: bool = False, variables: Mapping[str, str] = NOTHING
) -> AsyncGenerator[ClaudeCli, None]:
    """Start a process with tools, whose hook has no opinion."""
    async with lab.start(*flags, tools=tools, bare=bare, login={**API_KEY, **variables}) as cli:
        await cli.control("initialize", hooks=HOOKS, appendSystemPrompt="Behind it.")
        await cli.set_settings(model=MODEL)
        yield cli


def asked(cli: ClaudeCli, subtype: str) -> list[Any]:
    """What the CLI asked about: each call's input."""
    inputs = [request["input"] for request in cli.asked if request["subtype"] == subtype]
    return [each["tool_input"] for each in inputs] if subtype == "hook_callback" else inputs


def told(lab: Lab) -> dict[str, str]:
    """What the model was told of its last calls, by their ids."""
    blocks = lab.bodies[-1]["messages"][-1]["content"]
    return {block["tool_use_id"]: json.dumps(block["content"]) for block in blocks if block["type"] == "tool_result"}


@pytest.mark.asyncio
async def test_a_hook_is_asked_before_every_call(lab: Lab) -> None:
    """Reading ones, too; places are absolute, with `~` and `..` resolved, and variables are nothing but their names."""
    places = ("a.txt", "../a.txt", "~/a.txt", "$HOME/a.txt")
    lab.script(Reply(tool_calls=[ToolCall("Read", {"file_path": place}) for place in places]))
    async with agent(lab, "Read") as cli:
        await cli.turn("Go")
    seen = sorted(each["file_path"] for each in asked(cli, "hook_callback"))
    home = lab.home
    assert seen == sorted(map(str, (home / "a.txt", home.parent / "a.txt", home / "a.txt", home / "$HOME" / "a.txt")))


@pytest.mark.asyncio
async def test_without_an_opinion_reading_stays_inside(lab: Lab, tmp_path: Path) -> None:
    """The CLI's own check lets it pass in the directory, and asks about everything else, where the answer is ours."""
    (tmp_path / "a.txt").write_text("inside")
    (tmp_path.parent / "b.txt").write_text("outside")
    calls = [ToolCall("Read", {"file_path": "a.txt"}, "inside"), ToolCall("Read", {"file_path": "../b.txt"}, "outside")]
    lab.script(Reply(tool_calls=[*calls, ToolCall("Write", {"file_path": "new.txt", "content": "x"}, "written")]))
    async with agent(lab, "Read,Write") as cli:
        await cli.turn("Go")
    assert [each["file_path"] for each in asked(cli, "can_use_tool")] == [
        str(tmp_path.parent / "b.txt"),
        str(tmp_path / "new.txt"),
    ]
    assert {call for call, result in told(lab).items() if "nobody allows it" in result} == {"outside", "written"}
    assert "inside" in told(lab)["inside"]
    assert not (tmp_path / "new.txt").exists()


@pytest.mark.asyncio
async def test_what_a_hook_allows_is_done_wherever_it_is(lab: Lab, tmp_path: Path) -> None:
    """So reading must not be allowed by it: the CLI's own check would be left out."""
    (tmp_path.parent / "b.txt").write_text("outside")
    lab.script(Reply(tool_calls=[ToolCall("Read", {"file_path": "../b.txt"}, "outside")]))
    async with agent(lab, "Read") as cli:
        cli.decide = lambda _request: ALLOW
        await cli.turn("Go")
    assert asked(cli, "can_use_tool") == []
    assert "outside" in told(lab)["outside"]


@pytest.mark.asyncio
async def test_under_bare_no_hook_is_asked(lab: Lab, tmp_path: Path) -> None:
    """Which is why processes with tools run without it."""
    (tmp_path / "a.txt").write_text("inside")
    lab.script(Reply(tool_calls=[ToolCall("Read", {"file_path": "a.txt"}, "inside")]))
    async with agent(lab, "Read", bare=True) as cli:
        await cli.turn("Go")
    assert cli.asked == []
    assert "inside" in told(lab)["inside"]


@pytest.mark.asyncio
async def test_the_prompt_is_claude_codes_own(lab: Lab) -> None:
    """With ours behind it; notes of other conversations are in it unless they are switched off."""
    for variables, is_there in ((NOTHING, True), ({"CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1"}, False)):
        lab.script()
        async with agent(lab, "Read", variables=variables) as cli:
            await cli.turn("Go")
        system = "".join(block["text"] for block in lab.bodies[0]["system"])
        assert system.endswith("Behind it.")
        assert ("persistent, file-based memory" in system) == is_there


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("flags", "reason"),
    [(("--max-turns", "2"), "max_turns"), (("--max-budget-usd", "0.000001"), "budget_exhausted")],
    ids=str,
)
async def test_limits_end_a_turn_with_their_name(lab: Lab, flags: tuple[str, str], reason: str) -> None:
    """As an error that isn't one: the tokens and the cost are told."""
    lab.script(*[Reply(text="Look.", tool_calls=[ToolCall("Glob", {"pattern": "*"})])] * 3)
    async with agent(lab, "Glob", *flags) as cli:
        result = (await cli.turn("Go")).result
    assert (result["is_error"], result["terminal_reason"]) == (True, reason)
    assert result["total_cost_usd"] > 0


@pytest.mark.asyncio
async def test_a_server_that_doesnt_start_doesnt_keep_a_turn(lab: Lab, tmp_path: Path) -> None:
    """It fails at once, or after MCP_TIMEOUT, and its state says so."""
    servers = {"broken": {"command": "/there/is/no/such/program"}, "silent": {"command": "sleep", "args": ["60"]}}
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": servers}))
    lab.script()
    async with agent(lab, "Read", "--mcp-config", str(config), variables={"MCP_TIMEOUT": "500"}) as cli:
        turn = await cli.turn("Go")
        status = {row["name"]: row["status"] for row in (await cli.control("mcp_status"))["mcpServers"]}
    assert turn.result["subtype"] == "success"
    assert status == {"broken": "failed", "silent": "failed"}


@pytest.mark.asyncio
async def test_no_command_runs_in_the_background(lab: Lab) -> None:
    """With the variable that the project sets the tool has no such switch."""
    frames: list[Frame] = []
    for variables in (NOTHING, {"CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1"}):
        lab.script()
        async with agent(lab, "Bash", variables=variables) as cli:
            await cli.turn("Go")
        frames.append(lab.bodies[0]["tools"][0]["input_schema"]["properties"])
    assert ["run_in_background" in each for each in frames] == [True, False]


@pytest.mark.asyncio
async def test_bypassing_needs_a_flag_at_the_start(lab: Lab) -> None:
    """No control request brings it about later."""
    async with agent(lab, "Read") as cli:
        for mode in ("plan", "acceptEdits", "dontAsk", "default"):
            assert (await cli.control("set_permission_mode", mode=mode))["mode"] == mode
        with pytest.raises(Exception, match="bypassPermissions"):
            await cli.control("set_permission_mode", mode="bypassPermissions")
