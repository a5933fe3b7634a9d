"""What the project relies on in the real `claude` CLI, one test a fact: the controls of a running process.

See test_cli_contract.py.
"""

import asyncio
import json
from typing import Any

import pytest

from claude_cli import (
    ClaudeCli,
    ClientTool,
    ControlRefusedError,
    Frame,
    Lab,
    assistant,
    contents,
    conversation,
    is_result,
    is_retry,
    is_text,
    text,
    user,
)
from demo_upstream import Gate, Reply

CALL: Frame = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}
CALL_RESULT: Frame = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [text("21C")]}
FINE = Reply(text="Fine.")


@pytest.fixture
def lab(lab: Lab) -> Lab:
    """The upstream says "Fine." to all."""
    lab.upstream.script(FINE, times=None)
    return lab


def scripted(lab: Lab, *replies: Reply) -> None:
    """Let the upstream give these replies first, one a request."""
    lab.upstream.reset()
    for reply in replies:
        lab.upstream.script(reply)
    lab.upstream.script(FINE, times=None)


async def rewind(cli: ClaudeCli, message: Frame) -> Frame:
    """Ask for a rewind to before a message."""
    return await cli.control("rewind_conversation", target_message_uuid=message["uuid"])


async def interrupted_turn(cli: ClaudeCli, prompt: Frame) -> Frame:
    """Interrupt a turn after its first text; return its result."""
    await cli.send(prompt)
    await cli.receive_until(is_text)
    await cli.control("interrupt")
    return (await cli.receive_until(is_result)).result


async def prompt_alone(cli: ClaudeCli, model: str) -> Frame:
    """Ask for another system prompt, for a process that runs `model`."""
    return await cli.control("set_model", model=model, system_prompt="New.", only_if_model_is_current=True)


# Rewinding


@pytest.mark.asyncio
async def test_a_rewound_message_is_gone(lab: Lab) -> None:
    """After a rewind to the only message, queried before, the next request shows nothing of it."""
    prompt = user("A secret")
    async with lab.bound() as cli:
        await cli.turn(prompt)
        assert (await rewind(cli, prompt))["rewound"] is True
        await cli.turn("Hello")
    assert conversation(lab.bodies[-1]) == [("user", [text("Hello")])]


@pytest.mark.asyncio
async def test_a_rewind_drops_one_exchange_at_a_time(lab: Lab) -> None:
    """Only the last message with a text can be rewound to: an earlier one is `stale_target` until it is the last."""
    first, second = user("First"), user("Second")
    async with lab.bound() as cli:
        await cli.turn(first)
        await cli.turn(second)
        too_early = await rewind(cli, first)
        assert (too_early["rewound"], too_early["reason"]) == (False, "stale_target")
        assert (await rewind(cli, second))["rewound"] is True
        assert (await rewind(cli, first))["rewound"] is True
        await cli.turn("Hello")
    assert conversation(lab.bodies[-1]) == [("user", [text("Hello")])]


@pytest.mark.asyncio
async def test_controls_are_carried_out_in_their_order(lab: Lab) -> None:
    """Controls may be sent all at once: rewinds from the last message to the first, then prompt, then model."""
    async with lab.bound() as cli:
        prompts = [user(str(number)) for number in range(4)]
        for prompt in prompts:
            await cli.turn(prompt)
        answers = await asyncio.gather(
            *(rewind(cli, prompt) for prompt in reversed(prompts)),
            cli.control("set_model", model="sonnet", system_prompt="New."),
            cli.control("apply_flag_settings", settings={"model": "claude-opus-4-1"}),
        )
        assert [answer["rewound"] for answer in answers[:4]] == [True] * 4
        await cli.turn("Hello")
    assert conversation(lab.bodies[-1]) == [("user", [text("Hello")])]
    assert (lab.bodies[-1]["model"], lab.bodies[-1]["system"][2]["text"]) == ("claude-opus-4-1", "New.")


@pytest.mark.asyncio
async def test_a_system_prompt_is_replaced_but_never_by_none(lab: Lab) -> None:
    """`set_model` takes a text as system prompt and refuses an empty one; with an alias it asks nobody."""
    async with lab.bound() as cli:
        nothing: list[Any] = ["", None, []]
        for empty in nothing:
            with pytest.raises(ControlRefusedError):
                await cli.control("set_model", model="sonnet", system_prompt=empty)
        await cli.control("set_model", model="sonnet", system_prompt="New.")
        assert lab.bodies == []
        await cli.turn("Hello")
    assert [block["text"] for block in lab.bodies[-1]["system"][2:]] == ["New."]


@pytest.mark.asyncio
async def test_a_system_prompt_is_replaced_alone_where_the_model_is_the_one_named(lab: Lab) -> None:
    """With `only_if_model_is_current` a full name asks nobody; another model's is refused, and so is `haiku`."""
    async with lab.bound() as cli:
        await cli.control("apply_flag_settings", settings={"model": "claude-opus-4-1"})
        with pytest.raises(ControlRefusedError):
            await prompt_alone(cli, "claude-sonnet-4-5")
        await prompt_alone(cli, "claude-opus-4-1")
        assert lab.bodies == []
        await cli.turn("Hello")
        await cli.control("apply_flag_settings", settings={"model": "haiku"})
        with pytest.raises(ControlRefusedError):
            await prompt_alone(cli, "haiku")
    (body,) = lab.bodies
    assert (body["model"], [block["text"] for block in body["system"][2:]]) == ("claude-opus-4-1", ["New."])


@pytest.mark.asyncio
async def test_seeded_messages_can_be_rewound(lab: Lab) -> None:
    """A seeded message is rewound as a queried one is: not before the ones after it are gone."""
    seeded, prompt = user("Seeded"), user("Prompt")
    async with lab.bound() as cli:
        await cli.seed(seeded, assistant(text("Answer")))
        await cli.turn(prompt)
        too_early = await rewind(cli, seeded)
        assert (too_early["rewound"], too_early["reason"]) == (False, "stale_target")
        assert (await rewind(cli, prompt))["rewound"] is True
        assert (await rewind(cli, seeded))["rewound"] is True
        await cli.turn("Hello")
    assert conversation(lab.bodies[-1]) == [("user", [text("Hello")])]


@pytest.mark.asyncio
async def test_tool_results_are_rewound_with_their_call(lab: Lab) -> None:
    """A message with a tool_result is `target_splits_tool_call`; a rewind to the text before drops call and result."""
    question, prompt = user("Weather in Paris?"), user([CALL_RESULT])
    async with lab.bound() as cli:
        await cli.seed(question, assistant(CALL))
        await cli.turn(prompt)
        splitting = await rewind(cli, prompt)
        assert (splitting["rewound"], splitting["reason"]) == (False, "target_splits_tool_call")
        assert (await rewind(cli, question))["rewound"] is True
        await cli.turn("Hello")
    assert conversation(lab.bodies[-1]) == [("user", [text("Hello")])]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "failure",
    [Reply(status=500), Reply(text="No", stop_reason="refusal"), Reply(text=["One ", "two"], cut_after=1)],
    ids=["error", "refusal", "cut"],
)
async def test_failed_turns_can_be_rewound(lab: Lab, failure: Reply) -> None:
    """A message whose turn failed is rewound like any other, and leaves nothing."""
    scripted(lab, failure)
    prompt = user("A secret")
    async with lab.bound() as cli:
        last = (await cli.failed_turn(prompt)).result
        assert is_retry(last) or last["is_error"]
        assert (await rewind(cli, prompt))["rewound"] is True
        await cli.turn("Hello")
    assert conversation(lab.bodies[-1]) == [("user", [text("Hello")])]


# Interrupting


@pytest.mark.asyncio
async def test_an_interrupt_ends_the_turn(lab: Lab) -> None:
    """An interrupt is acknowledged; the result has the terminal_reason aborted_streaming and counts no tokens."""
    scripted(lab, Reply(text=["One ", "two"], gate=Gate(after=1)))
    async with lab.bound() as cli:
        result = await interrupted_turn(cli, user("Hello"))
    assert (result["is_error"], result["terminal_reason"]) == (True, "aborted_streaming")
    assert (result["subtype"], result["stop_reason"]) == ("error_during_execution", None)
    assert result["usage"]["output_tokens"] == 0


@pytest.mark.asyncio
async def test_an_interrupt_closes_the_upstream(lab: Lab) -> None:
    """The upstream sees its connection close when a turn is interrupted, so the model stops writing."""
    scripted(lab, Reply(text=["One ", "two"], gate=Gate(after=1)))
    async with lab.bound() as cli:
        await interrupted_turn(cli, user("Hello"))
        await lab.upstream_sees(lambda upstream: upstream.messages_requests()[0].disconnected)


@pytest.mark.asyncio
async def test_an_interrupt_leaves_a_trace(lab: Lab) -> None:
    """The danger: after an interrupt, "[Request interrupted by user]" goes into the next message."""
    scripted(lab, Reply(text=["One ", "two"], gate=Gate(after=1)))
    async with lab.bound() as cli:
        await interrupted_turn(cli, user("Hello"))
        await cli.turn("Next")
    assert "[Request interrupted by user]" in str(lab.bodies[-1]["messages"])


@pytest.mark.asyncio
async def test_a_rewind_wipes_an_interrupt(lab: Lab) -> None:
    """After a rewind to the message whose turn was interrupted, nothing is left of it."""
    scripted(lab, Reply(text=["One ", "two"], gate=Gate(after=1)))
    prompt = user("A secret")
    async with lab.bound() as cli:
        await interrupted_turn(cli, prompt)
        assert (await rewind(cli, prompt))["rewound"] is True
        await cli.turn("Hello")
    assert conversation(lab.bodies[-1]) == [("user", [text("Hello")])]


# Settings


@pytest.mark.asyncio
async def test_an_extra_body_is_merged_into_requests(lab: Lab) -> None:
    """CLAUDE_CODE_EXTRA_BODY, set at run time, merges its fields into the bodies of later requests."""
    extra = {"temperature": 0.3, "top_p": 0.9, "stop_sequences": ["X"], "tool_choice": {"type": "none"}}
    async with lab.bound() as cli:
        await cli.set_settings(env={"CLAUDE_CODE_EXTRA_BODY": json.dumps(extra)})
        await cli.turn("Hello")
    assert {name: lab.bodies[0].get(name) for name in extra} == extra


@pytest.mark.asyncio
async def test_an_extra_body_goes_with_an_empty_string(lab: Lab) -> None:
    """CLAUDE_CODE_EXTRA_BODY stays when a later setting leaves it out, and goes when one sets it to ""."""
    async with lab.bound() as cli:
        await cli.set_settings(env={"CLAUDE_CODE_EXTRA_BODY": json.dumps({"top_k": 5})})
        await cli.set_settings(env={})
        await cli.turn("With")
        await cli.set_settings(env={"CLAUDE_CODE_EXTRA_BODY": ""})
        await cli.turn("Without")
    assert [body.get("top_k") for body in lab.bodies] == [5, None]


@pytest.mark.asyncio
async def test_max_output_tokens_come_and_go(lab: Lab) -> None:
    """CLAUDE_CODE_MAX_OUTPUT_TOKENS, set at run time, is max_tokens until it is set to ""."""
    async with lab.bound() as cli:
        await cli.turn("Default")
        await cli.set_settings(env={"CLAUDE_CODE_MAX_OUTPUT_TOKENS": "77"})
        await cli.turn("With")
        await cli.set_settings(env={"CLAUDE_CODE_MAX_OUTPUT_TOKENS": ""})
        await cli.turn("Without")
    default, limited, cleared = (body["max_tokens"] for body in lab.bodies)
    assert (limited, cleared) == (77, default)


@pytest.mark.asyncio
async def test_requests_are_redirected_at_run_time(lab: Lab) -> None:
    """ANTHROPIC_BASE_URL, set at run time, is where later requests go; one that is under way isn't touched."""
    async with lab.bound() as cli:
        prompt = user("One")
        scripted(lab, Reply(text=["One ", "two ", "three"], stop_reason="max_tokens", delta_delay=0.1))
        await cli.send(prompt)
        await cli.receive_until(is_text)
        await cli.set_settings(env={"ANTHROPIC_BASE_URL": "http://127.0.0.1:9"})
        result = (await cli.receive_until(is_result)).result
        assert (result["is_error"], len(lab.bodies)) == (True, 1)
        await cli.set_settings(env={"ANTHROPIC_BASE_URL": lab.url})
        assert (await rewind(cli, prompt))["rewound"] is True
        await cli.turn("Two")
    assert conversation(lab.bodies[-1]) == [("user", [text("Two")])]


@pytest.mark.asyncio
async def test_effort_is_set_at_run_time(lab: Lab) -> None:
    """settings.effortLevel is the effort of later requests to the newest models."""
    async with lab.bound(model="sonnet") as cli:
        await cli.set_settings(effortLevel="high")
        await cli.turn("Hello")
    assert lab.bodies[0]["output_config"]["effort"] == "high"


@pytest.mark.asyncio
async def test_an_output_format_merges_with_the_effort(lab: Lab) -> None:
    """An extra body's `output_config.format` stands beside the CLI's own `output_config.effort`."""
    output_format = {"type": "json_schema", "schema": ClientTool("weather").definition["inputSchema"]}
    async with lab.bound(model="sonnet") as cli:
        await cli.set_settings(env={"CLAUDE_CODE_EXTRA_BODY": json.dumps({"output_config": {"format": output_format}})})
        await cli.turn("Hello")
    assert lab.bodies[0]["output_config"].keys() == {"format", "effort"}
    assert lab.bodies[0]["output_config"]["format"] == output_format


@pytest.mark.asyncio
async def test_a_rewound_process_takes_another_model(lab: Lab) -> None:
    """A model set while the conversation is empty, by a rewind, leaves nothing in the messages."""
    prompt = user("Hello")
    async with lab.bound() as cli:
        await cli.turn(prompt)
        await rewind(cli, prompt)
        await cli.set_settings(model="claude-opus-4-6")
        await cli.turn("Hello again")
    assert lab.bodies[-1]["model"] == "claude-opus-4-6"
    assert conversation(lab.bodies[-1]) == [("user", [text("Hello again")])]


@pytest.mark.asyncio
async def test_a_model_set_in_mid_conversation_leaves_a_trace(lab: Lab) -> None:
    """The danger: a model set in mid-conversation puts the text of a /model command into the next message."""
    async with lab.bound() as cli:
        await cli.turn("Hello")
        await cli.set_settings(model="claude-opus-4-6")
        await cli.turn("Hello again")
    assert "Set model to" in str(contents(lab.bodies[-1]["messages"][-1]))


@pytest.mark.asyncio
async def test_costs_accumulate(lab: Lab) -> None:
    """A result's total_cost_usd is the process's so far, and its usage is the turn's."""
    scripted(lab, *[Reply(text="Fine.", usage={"input_tokens": 1000, "output_tokens": 100})] * 2)
    async with lab.bound() as cli:
        first, second = (await cli.turn("One")).result, (await cli.turn("Two")).result
    assert second["total_cost_usd"] == pytest.approx(2 * first["total_cost_usd"])
    assert second["usage"]["output_tokens"] == first["usage"]["output_tokens"] == 100
