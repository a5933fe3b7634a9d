"""What the project relies on in the real `claude` CLI, one test a fact: thinking, effort, formats, content, headers.

See test_cli_contract.py.
"""

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import pytest

from claude_cli import API_KEY, OAUTH_TOKEN, ClaudeCli, Frame, Lab, assistant, contents, text, user
from content_blocks import NATIVE_ADDRESS, NATIVE_IMAGE, NATIVE_PDF, native_text, png
from demo_upstream import Reply, ToolCall

SCHEMA: Frame = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
OUTPUT = "StructuredOutput"
TITLED: Frame = {**native_text("Words"), "title": "a.txt"}


async def asked(cli: ClaudeCli, lab: Lab) -> Frame:
    """Ask something that is then taken back; return the request's body."""
    prompt = user("Hi")
    await cli.turn(prompt)
    await cli.control("rewind_conversation", target_message_uuid=prompt["uuid"])
    return lab.bodies[-1]


async def think(cli: ClaudeCli, tokens: int, display: str | None = None) -> None:
    """Let the model think so much from now on."""
    await cli.control("set_max_thinking_tokens", max_thinking_tokens=tokens, thinking_display=display)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("model", "off", "on"),
    [
        ("claude-sonnet-4-5", {"type": "disabled"}, {"type": "enabled", "budget_tokens": 5000}),
        ("claude-opus-4-6", {"type": "disabled"}, {"type": "adaptive"}),
        ("sonnet", {"type": "adaptive"}, {"type": "adaptive"}),
    ],
)
async def test_a_budget_is_what_the_model_has_of_it(lab: Lab, model: str, off: Frame, on: Frame) -> None:
    """At run time, to and fro: a budget, a mere yes, or nothing for a model that always thinks."""
    lab.script()
    async with lab.bound(model=model) as cli:
        for tokens, expected in ((0, off), (5000, on), (0, off)):
            await think(cli, tokens, "summarized")
            thinking = (await asked(cli, lab))["thinking"]
            assert {name: value for name, value in thinking.items() if name != "display"} == expected


@pytest.mark.asyncio
async def test_a_limit_of_tokens_is_the_budgets_too(lab: Lab) -> None:
    """CLAUDE_CODE_MAX_OUTPUT_TOKENS lets a budget be so high, and no higher; without it 31,999 is the most."""
    lab.script()
    async with lab.bound(model="claude-sonnet-4-5") as cli:
        await think(cli, 50_000)
        for limit, budget, most in (("64000", 50_000, 64_000), ("3000", 2999, 3000), ("", 31_999, 32_000)):
            await cli.set_settings(env={"CLAUDE_CODE_MAX_OUTPUT_TOKENS": limit})
            body = await asked(cli, lab)
            assert (body["thinking"]["budget_tokens"], body["max_tokens"]) == (budget, most)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "model", ["claude-3-haiku-20240307", "claude-3-5-haiku-20241022", "claude-3-7-sonnet-20250219"]
)
async def test_some_models_never_think(lab: Lab, model: str) -> None:
    """Claude Code lets the Claude 3 models answer at once, whatever it is told."""
    lab.script()
    async with lab.bound(model=model) as cli:
        await think(cli, 5000)
        await cli.set_settings(effortLevel="high")
        body = await asked(cli, lab)
        assert body.get("thinking", {}).get("type") in (None, "disabled")
        assert "effort" not in body.get("output_config", {})


@pytest.mark.asyncio
async def test_thoughts_in_sentences_are_a_control_too(lab: Lab) -> None:
    """`thinking_display` holds until null takes it back."""
    lab.script()
    async with lab.bound(model="sonnet") as cli:
        usual = (await asked(cli, lab))["thinking"]["display"]
        for display, seen in (("summarized", "summarized"), (None, usual)):
            await think(cli, 5000, display)
            assert (await asked(cli, lab))["thinking"]["display"] == seen
        assert usual != "summarized"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("model", "usual", "low", "highest"),
    [
        ("claude-sonnet-4-5", None, None, None),
        ("claude-opus-4-6", "high", "low", "high"),
        ("opus", "medium", "low", "xhigh"),
    ],
)
async def test_an_effort_is_what_the_model_has_of_it(
    lab: Lab, model: str, usual: str | None, low: str | None, highest: str | None
) -> None:
    """At run time, to and fro; null is the model's own, a level that it hasn't its next, and some have none."""
    lab.script()
    async with lab.bound(model=model) as cli:
        for effort, level in (("low", low), ("xhigh", highest), (None, usual)):
            await cli.set_settings(effortLevel=effort)
            assert (await asked(cli, lab)).get("output_config", {}).get("effort") == level


@pytest.mark.asyncio
async def test_a_format_joins_the_effort(lab: Lab) -> None:
    """`output_config.format` of the extra body stands beside the effort, and goes with it alone."""
    lab.script()
    body = json.dumps({"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}})
    async with lab.bound(model="claude-opus-4-5") as cli:
        await cli.set_settings(env={"CLAUDE_CODE_EXTRA_BODY": body}, effortLevel="low")
        held: Any = (await asked(cli, lab))["output_config"]
        assert held == {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}}
        await cli.set_settings(env={"CLAUDE_CODE_EXTRA_BODY": ""})
        assert (await asked(cli, lab))["output_config"] == {"effort": "low"}


@pytest.mark.asyncio
async def test_a_schema_of_claude_codes_is_a_tool_to_answer_with(lab: Lab) -> None:
    """The turn ends with the tool's call, its input is the answer, and it can be rewound."""
    lab.script(Reply(tool_calls=[ToolCall(OUTPUT, {"n": 3})]))
    async with lab.start() as cli:
        await cli.initialize("You are a test.", jsonSchema=SCHEMA)
        prompt = user("Hi")
        turn = await cli.turn(prompt)
        assert [tool["name"] for tool in lab.bodies[-1]["tools"]] == [OUTPUT]
        assert lab.bodies[-1]["tools"][0]["input_schema"] == SCHEMA
        assert (turn.result["structured_output"], len(lab.bodies)) == ({"n": 3}, 1)
        told = await cli.control("rewind_conversation", target_message_uuid=prompt["uuid"])
        assert told["rewound"] is True


@pytest.mark.asyncio
@pytest.mark.parametrize("first", [Reply(text="No."), Reply(tool_calls=[ToolCall(OUTPUT, {"n": "x"})])])
async def test_claude_code_asks_again_until_the_form_is_kept(lab: Lab, first: Reply) -> None:
    """Where the model only talks, or its input breaks the schema, the same turn has another request."""
    lab.script(first, Reply(tool_calls=[ToolCall(OUTPUT, {"n": 3})]))
    async with lab.start() as cli:
        await cli.initialize("You are a test.", jsonSchema=SCHEMA)
        turn = await cli.turn("Hi")
        assert (turn.result["structured_output"], len(lab.bodies)) == ({"n": 3}, 2)


@pytest.mark.asyncio
@pytest.mark.parametrize("block", [NATIVE_IMAGE, NATIVE_ADDRESS, NATIVE_PDF, TITLED])
async def test_images_and_documents_pass_unchanged(lab: Lab, block: Frame) -> None:
    """In a prompt, in a seeded message, and in a seeded result."""
    lab.script()
    call = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [text("Here"), block]}
    async with lab.bound() as cli:
        await cli.seed(user([block, text("It")]), assistant(call), user([result]), assistant(text("Seen.")))
        await cli.turn(user([text("And"), block]))
    first, _, second, _, last = lab.bodies[-1]["messages"]
    assert contents(first) == [block, text("It")]
    assert contents(second)[0]["content"] == [text("Here"), block]
    assert contents(last) == [text("And"), block]


@pytest.mark.asyncio
async def test_large_images_are_scaled_down_with_a_note(lab: Lab) -> None:
    """More than 2000 pixels a side are too many for Claude Code, which says so to the model."""
    lab.script()
    source = {"type": "base64", "media_type": "image/png"}
    async with lab.bound() as cli:
        await cli.turn(user([{"type": "image", "source": {**source, "data": png(2000, 2)}}]))
        assert contents(lab.bodies[-1]["messages"][0]) == [
            {"type": "image", "source": {**source, "data": png(2000, 2)}}
        ]
        await cli.turn(user([{"type": "image", "source": {**source, "data": png(2001, 2)}}]))
        assert "original 2001x2" in contents(lab.bodies[-1]["messages"][-1])[1]["text"]


@pytest.mark.asyncio
async def test_seeded_thoughts_pass_unchanged(lab: Lab) -> None:
    """A thought with its signature may be a part of a history."""
    lab.script()
    thought = {"type": "thinking", "thinking": "Hm", "signature": b64encode(b"mine").decode()}
    async with lab.bound() as cli:
        await cli.seed(user("Hi"), assistant(thought, text("Yes?")))
        await cli.turn("Go on")
    assert contents(lab.bodies[-1]["messages"][1]) == [thought, text("Yes?")]


@pytest.mark.asyncio
@pytest.mark.parametrize(("login", "bare"), [(API_KEY, True), (OAUTH_TOKEN, False)])
async def test_headers_go_along_and_betas_by_their_own_variable(lab: Lab, login: Mapping[str, str], bare: bool) -> None:
    """A beta among the custom headers is dropped; one in ANTHROPIC_BETAS joins Claude Code's own."""
    lab.script()
    variables = {"ANTHROPIC_BETAS": "mine-1,mine-2", "ANTHROPIC_CUSTOM_HEADERS": "X-Team: a: b\nanthropic-beta: lost"}
    async with lab.start(bare=bare, login=login, **variables) as cli:
        await cli.initialize("You are a test.")
        await cli.turn("Hi")
    headers = lab.upstream.messages_requests()[-1].headers
    betas = headers["anthropic-beta"].split(",")
    assert (headers["x-team"], {"mine-1", "mine-2"} <= {*betas}, "lost" in betas) == ("a: b", True, False)
    assert len(betas) > 2
