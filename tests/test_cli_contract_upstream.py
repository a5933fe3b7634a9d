"""What the project relies on in the real `claude` CLI, one test a fact: its requests upstream, and what fails there.

See test_cli_contract.py.
"""

import pytest

from claude_cli import NO_LOGIN, Lab, contents, is_retry, text
from demo_upstream import Reply

# How many requests a turn makes


RETRIED = (401, 408, 409, 429, 500, 503, 529)
"""The statuses after which Claude Code would make a request again."""


@pytest.mark.asyncio
async def test_a_retry_is_told_before_it_is_made(lab: Lab) -> None:
    """With CLAUDE_CODE_MAX_RETRIES=1 it says with which status a request failed, and waits for an interrupt."""
    told = {}
    async with lab.bound() as cli:
        for status in (*RETRIED, 403, 413):
            lab.upstream.reset()
            lab.upstream.script(Reply(status=status), times=None)
            last = (await cli.failed_turn()).result
            told[status] = last.get("error_status"), len(lab.bodies)
            assert not is_retry(last) or last["retry_delay_ms"] >= 500
    assert told == {**{status: (status, 1) for status in RETRIED}, 403: (None, 1), 413: (None, 1)}


@pytest.mark.asyncio
@pytest.mark.parametrize(("wait", "is_told"), [("20", True), ("60", True), ("61", False)])
async def test_a_wait_of_up_to_a_minute_is_told(lab: Lab, wait: str, is_told: bool) -> None:
    """`Retry-After` comes as the delay, with up to a quarter more; a longer one ends the turn, and isn't told."""
    lab.upstream.script(Reply(status=429, headers={"retry-after": wait}), times=None)
    async with lab.bound() as cli:
        last = (await cli.failed_turn()).result
    assert is_retry(last) == is_told
    if is_told:
        assert float(wait) <= last["retry_delay_ms"] / 1000 <= 1.26 * float(wait)
    else:
        assert last["api_error_status"] == 429


@pytest.mark.asyncio
async def test_its_patience_can_be_set(lab: Lab) -> None:
    """API_TIMEOUT_MS bounds the wait for an answer's begin, after which the request would be made again."""
    lab.upstream.script(Reply(hang=True), times=None)
    async with lab.bound(API_TIMEOUT_MS="500") as cli:
        last = (await cli.failed_turn()).result
    assert (is_retry(last), last["error_status"]) == (True, None)


@pytest.mark.asyncio
async def test_a_bad_request_is_repeated_with_fewer_betas(lab: Lab) -> None:
    """A 400 is no last word: the CLI repeats the same body with fewer anthropic-beta features (nothing is billed)."""
    lab.upstream.script(Reply(status=400), times=None)
    async with lab.bound() as cli:
        await cli.turn("Hello")
    first, second = lab.upstream.messages_requests()
    assert first.body == second.body
    assert set(first.headers["anthropic-beta"].split(",")) > set(second.headers["anthropic-beta"].split(","))


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [400, 422])
async def test_what_a_beta_may_have_caused_is_asked_once_more(lab: Lab, status: int) -> None:
    """A 400 or a 422 is repeated once, by itself, and then reported."""
    lab.upstream.script(Reply(status=status), times=None)
    async with lab.bound() as cli:
        result = (await cli.turn("Hello")).result
    assert (result["api_error_status"], len(lab.bodies)) == (status, 2)


@pytest.mark.asyncio
async def test_an_answer_that_breaks_behind_a_whole_block_is_asked_on_for(lab: Lab) -> None:
    """The danger: the CLI closes the message without saying why it stopped, and asks for the rest in its own words."""
    lab.upstream.script(Reply(text="One. ", more_text=["Two."], error_after=1))
    lab.upstream.script(Reply(text="Fine."))
    async with lab.bound() as cli:
        turn = await cli.turn("Hello")
    kinds = [frame["event"]["type"] for frame in turn.of_type("stream_event")]
    first = kinds[: kinds.index("message_stop")]
    assert ("message_delta" in first, first.count("message_start")) == (False, 1)
    assert "cut off mid-stream" in str(lab.bodies[1]["messages"][-1])


@pytest.mark.asyncio
async def test_a_404_is_repeated_without_streaming(lab: Lab) -> None:
    """A 404 is asked again without streaming, whatever CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK says."""
    lab.upstream.script(Reply(status=404), times=None)
    async with lab.bound() as cli:
        await cli.turn("Hello")
    assert [body["stream"] for body in lab.bodies] == [True, False]


@pytest.mark.asyncio
@pytest.mark.parametrize(("setting", "streaming"), [("1", [True]), ("", [True, False])], ids=["ours", "default"])
async def test_a_cut_stream_isnt_asked_for_again(lab: Lab, setting: str, streaming: list[bool]) -> None:
    """With CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK a stream that breaks is not asked for again; else it is, whole."""
    lab.upstream.script(Reply(text=["One ", "two"], cut_after=1))
    async with lab.bound(CLAUDE_CODE_MAX_RETRIES="0", CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK=setting) as cli:
        await cli.turn("Hello")
    assert [body["stream"] for body in lab.bodies] == streaming


@pytest.mark.asyncio
@pytest.mark.parametrize(("setting", "requests"), [("1", 1), ("", 2)], ids=["ours", "default"])
async def test_a_refusal_isnt_argued_with(lab: Lab, setting: str, requests: int) -> None:
    """With CLAUDE_CODE_DISABLE_REFUSAL_RETRY a refusal is the end of the turn; else the CLI prompts the model again."""
    lab.upstream.script(Reply(text="I'd rather", stop_reason="refusal"), times=None)
    async with lab.bound(CLAUDE_CODE_DISABLE_REFUSAL_RETRY=setting) as cli:
        await cli.turn("Hello")
    assert len(lab.bodies) == requests


@pytest.mark.asyncio
@pytest.mark.parametrize("stop_reason", ["max_tokens", "model_context_window_exceeded"])
async def test_a_truncated_answer_is_continued(lab: Lab, stop_reason: str) -> None:
    """The danger: after these stop reasons the CLI prompts again by itself, so claude_process kills it there."""
    lab.upstream.script(Reply(text="Half an ans", stop_reason=stop_reason))
    async with lab.bound() as cli:
        await cli.turn("Hello")
    assert len(lab.bodies) == 2
    asked = contents(lab.bodies[1]["messages"][-1])[0]["text"]
    assert asked.startswith("Output token limit hit.")


@pytest.mark.asyncio
async def test_an_empty_answer_is_asked_for_again(lab: Lab) -> None:
    """The danger: after an answer without content the CLI prompts again by itself, so claude_process kills it there."""
    lab.upstream.script(Reply(text=[]))
    async with lab.bound() as cli:
        await cli.turn("Hello")
    assert len(lab.bodies) == 2
    asked = contents(lab.bodies[1]["messages"][-1])[-1]["text"]
    assert asked.startswith("[Your previous response had no visible output.")


@pytest.mark.asyncio
async def test_other_stops_end_the_turn(lab: Lab) -> None:
    """After any of these stop reasons the turn is over, with one request, and its result tells the reason."""
    stop_reasons = ["end_turn", "stop_sequence", "pause_turn"]
    async with lab.bound() as cli:
        for stop_reason in stop_reasons:
            lab.upstream.script(Reply(text="Done.", stop_reason=stop_reason))
        results = [(await cli.turn("Hello")).result for _ in stop_reasons]
    assert not any(result["is_error"] for result in results)
    assert [result["stop_reason"] for result in results] == stop_reasons
    assert len(lab.bodies) == len(stop_reasons)


# What a result tells


@pytest.mark.asyncio
async def test_a_result_counts_the_turn(lab: Lab) -> None:
    """A result has the turn's usage, its cost, the reason of its stop and its text."""
    usage = {"input_tokens": 11, "output_tokens": 7, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 3}
    lab.upstream.script(Reply(text="Done.", usage=usage))
    async with lab.bound() as cli:
        result = (await cli.turn("Hello")).result
    assert {name: result["usage"][name] for name in usage} == usage
    assert result["total_cost_usd"] > 0
    assert (result["subtype"], result["is_error"], result["api_error_status"]) == ("success", False, None)
    assert (result["stop_reason"], result["terminal_reason"], result["result"]) == ("end_turn", "completed", "Done.")


@pytest.mark.asyncio
async def test_an_upstream_error_keeps_its_status(lab: Lab) -> None:
    """The result of a failed request has is_error and the upstream's status; its subtype is `success` all the same."""
    statuses = [400, 403, 404, 413]
    told = []
    async with lab.bound() as cli:
        for status in statuses:
            lab.upstream.reset()
            lab.upstream.script(Reply(status=status), times=None)
            result = (await cli.turn("Hello")).result
            told.append((result["api_error_status"], result["is_error"], result["subtype"]))
    assert told == [(status, True, "success") for status in statuses]


@pytest.mark.asyncio
async def test_a_bad_request_keeps_the_upstreams_words(lab: Lab) -> None:
    """The result of a 400 is "API Error: 400 " and the upstream's message."""
    lab.upstream.script(Reply(status=400, error_message="temperature: must be at most 1"), times=None)
    async with lab.bound() as cli:
        result = (await cli.turn("Hello")).result
    assert result["result"] == "API Error: 400 temperature: must be at most 1"


@pytest.mark.asyncio
async def test_server_errors_name_the_upstreams_address(lab: Lab) -> None:
    """The result of a 500 names the upstream's host: why the client doesn't get to read it."""
    lab.upstream.script(Reply(status=500), times=None)
    async with lab.bound() as cli:
        result = (await cli.turn("Hello")).result
    assert lab.url.removeprefix("http://") in result["result"]


@pytest.mark.asyncio
async def test_too_long_a_prompt_for_the_upstream(lab: Lab) -> None:
    """A 400 that says "prompt is too long" has the terminal_reason prompt_too_long, and is not repeated."""
    message = "prompt is too long: 210000 tokens > 200000 maximum"
    lab.upstream.script(Reply(status=400, error_message=message), times=None)
    async with lab.bound() as cli:
        result = (await cli.turn("Hello")).result
    assert (result["is_error"], result["terminal_reason"]) == (True, "prompt_too_long")
    assert len(lab.bodies) == 1


@pytest.mark.asyncio
async def test_too_long_a_prompt_for_the_cli(lab: Lab) -> None:
    """A prompt of 1.5 MB for a model of 200k tokens has the terminal_reason blocking_limit, and nothing is sent."""
    async with lab.bound() as cli:
        result = (await cli.turn("so " * 500_000)).result
    assert (result["is_error"], result["terminal_reason"]) == (True, "blocking_limit")
    assert lab.upstream.requests == []


@pytest.mark.asyncio
async def test_no_login(lab: Lab) -> None:
    """Without a login an assistant frame has the error authentication_failed, no status is told and nothing is sent."""
    async with lab.bound(login=NO_LOGIN) as cli:
        turn = await cli.turn("Hello")
    assert [frame["error"] for frame in turn.of_type("assistant")] == ["authentication_failed"]
    assert (turn.result["is_error"], turn.result["api_error_status"]) == (True, None)
    assert lab.upstream.requests == []


@pytest.mark.asyncio
async def test_a_cut_stream_has_no_status(lab: Lab) -> None:
    """A stream that breaks off would be asked for again, too; that is told without a status."""
    lab.upstream.script(Reply(text=["One ", "two"], cut_after=1))
    async with lab.bound() as cli:
        last = (await cli.failed_turn()).result
    assert (is_retry(last), last["error_status"], len(lab.bodies)) == (True, None, 1)


@pytest.mark.asyncio
async def test_an_error_event_has_the_status_of_its_type(lab: Lab) -> None:
    """The result of a stream that ends with an `error` event has is_error and the status that fits the error's type."""
    lab.upstream.script(Reply(text=["One ", "two"], error_after=1, error_type="overloaded_error"))
    async with lab.bound() as cli:
        result = (await cli.turn("Hello")).result
    assert (result["is_error"], result["api_error_status"]) == (True, 529)


@pytest.mark.asyncio
async def test_a_refusal_is_an_error(lab: Lab) -> None:
    """A refused turn's result has is_error and the stop_reason refusal, and no status."""
    lab.upstream.script(Reply(text="I'd rather", stop_reason="refusal"))
    async with lab.bound() as cli:
        result = (await cli.turn("Hello")).result
    assert (result["is_error"], result["stop_reason"], result["api_error_status"]) == (True, "refusal", None)


@pytest.mark.asyncio
async def test_stream_events_are_the_upstreams(lab: Lab) -> None:
    """With --include-partial-messages the Messages API's events arrive as they came, each delta for itself."""
    lab.upstream.script(Reply(text=["One ", "two ", "three"]))
    async with lab.bound() as cli:
        turn = await cli.turn("Hello")
    events = [frame["event"] for frame in turn.of_type("stream_event")]
    assert [event["delta"] for event in events if event["type"] == "content_block_delta"] == [
        {"type": "text_delta", "text": piece} for piece in ("One ", "two ", "three")
    ]
    assert [event["type"] for event in events if event["type"] != "content_block_delta"] == [
        "message_start",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert contents(turn.of_type("assistant")[0]["message"]) == [text("One two three")]
