"""What the project relies on in the real `claude` CLI, one test a fact: its start, what the model gets to see, its end.

A new CLI version that changes a fact fails the test that states it. The upstream's side of the contract is in
test_cli_contract_upstream.py, the run-time controls are in test_cli_contract_engine.py.
"""

from collections.abc import Mapping

import pytest

from claude_cli import (
    API_KEY,
    NO_LOGIN,
    OAUTH_TOKEN,
    SYSTEM,
    Frame,
    Lab,
    assistant,
    contents,
    conversation,
    text,
    user,
)
from cli_launch import OLDEST_CLI, check_cli, find_cli
from demo_upstream import Reply

SECRET = "the host's secret"
CALL: Frame = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}
CALL_RESULT: Frame = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [text("21C")]}


# Start


def test_the_bundled_cli_is_new_enough() -> None:
    """The SDK bundles a CLI that is no older than the oldest one that we run."""
    assert tuple(map(int, check_cli(find_cli(None), "").split("."))) >= OLDEST_CLI


@pytest.mark.asyncio
async def test_the_system_prompt_comes_with_a_late_initialize(lab: Lab) -> None:
    """A running process takes its system prompt, a list of texts, from `initialize`, as one block."""
    async with lab.start() as cli:
        await cli.initialize("First part.", "Second part.")
        await cli.turn("Hello")
    assert [block["text"] for block in lab.bodies[0]["system"][2:]] == ["First part.\n\nSecond part."]


@pytest.mark.asyncio
@pytest.mark.parametrize(("login", "bare"), [(API_KEY, True), (OAUTH_TOKEN, False)], ids=["bare", "oauth"])
async def test_no_system_prompt_means_none(lab: Lab, login: Mapping[str, str], *, bare: bool) -> None:
    """Without a system prompt of ours the CLI puts none of its own in its place."""
    async with lab.start(login=login, bare=bare) as cli:
        await cli.initialize()
        await cli.turn("Hello")
    assert len(lab.bodies[0]["system"]) == 2


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("login", "account"),
    [
        (API_KEY, {"tokenSource": "none", "apiKeySource": "ANTHROPIC_API_KEY", "apiProvider": "firstParty"}),
        (OAUTH_TOKEN, {"tokenSource": "CLAUDE_CODE_OAUTH_TOKEN", "apiProvider": "firstParty"}),
        (NO_LOGIN, {"tokenSource": "none", "apiProvider": "firstParty"}),
    ],
    ids=["api key", "oauth token", "no login"],
)
async def test_initialize_names_the_account(lab: Lab, login: Mapping[str, str], account: Frame) -> None:
    """`initialize` answers with the login's source, and names no source where there is no login."""
    async with lab.start(login=login, bare=login is not OAUTH_TOKEN) as cli:
        assert (await cli.initialize())["account"] == account


@pytest.mark.asyncio
async def test_initialize_tells_version_and_pid(lab: Lab) -> None:
    """`initialize` answers with the CLI's version and process id."""
    async with lab.start() as cli:
        answer = await cli.initialize()
    assert (answer["claude_code_version"], answer["pid"]) == (check_cli(find_cli(None), ""), cli.process.pid)


@pytest.mark.asyncio
async def test_list_models_rows(lab: Lab) -> None:
    """`list_models` has rows of alias, resolved id, display name and whether thinking can be off; it asks nobody."""
    async with lab.start() as cli:
        await cli.initialize()
        models = {row["value"]: row for row in (await cli.control("list_models"))["models"]}
    assert {"default", "opus", "sonnet", "haiku"} <= models.keys()
    assert all(row["resolvedModel"].startswith("claude-") and row["displayName"] for row in models.values())
    assert all(row["supportsThinkingOff"] is False for row in models.values())
    assert lab.upstream.requests == []


@pytest.mark.asyncio
@pytest.mark.parametrize("model", ["claude-3-5-sonnet-20240620", "claude-opus-4-20250514", "claude-unheard-of-9"])
async def test_unlisted_models_pass(lab: Lab, model: str) -> None:
    """A model set by apply_flag_settings goes upstream as it is: not validated by a request, not mapped to a newer."""
    async with lab.bound(model=model) as cli:
        await cli.turn("Hello")
    assert [body["model"] for body in lab.bodies] == [model]
    assert len(lab.upstream.requests) == 1


@pytest.mark.asyncio
async def test_an_alias_resolves_as_listed(lab: Lab) -> None:
    """An alias goes upstream as the id that `list_models` resolves it to."""
    async with lab.bound(model="sonnet") as cli:
        models = {row["value"]: row["resolvedModel"] for row in (await cli.control("list_models"))["models"]}
        await cli.turn("Hello")
    assert lab.bodies[0]["model"] == models["sonnet"]


# What the model gets to see


@pytest.mark.asyncio
async def test_a_bare_request_is_ours_alone(lab: Lab) -> None:
    """Under --bare the model sees a billing header, one line of identity, our system prompt, the messages, no tools."""
    async with lab.bound() as cli:
        await cli.turn("Hello")
    [body] = lab.bodies
    billing, identity, system = (block["text"] for block in body["system"])
    assert billing.startswith("x-anthropic-billing-header: ")
    assert identity == "You are a Claude agent, built on Anthropic's Claude Agent SDK."
    assert system == SYSTEM
    assert conversation(body) == [("user", [text("Hello")])]
    assert body["tools"] == []


@pytest.mark.asyncio
async def test_thinking_is_off_where_a_model_lets_it(lab: Lab) -> None:
    """With --max-thinking-tokens 0 a model that can do without thinking is asked without."""
    async with lab.bound() as cli:
        await cli.turn("Hello")
    assert lab.bodies[0]["thinking"] == {"type": "disabled"}


@pytest.mark.asyncio
async def test_the_newest_models_keep_thinking(lab: Lab) -> None:
    """With --max-thinking-tokens 0 a model whose supportsThinkingOff is false still thinks adaptively."""
    async with lab.bound(model="sonnet") as cli:
        await cli.turn("Hello")
    assert lab.bodies[0]["thinking"]["type"] == "adaptive"


@pytest.mark.asyncio
async def test_the_newest_models_get_an_effort_marker(lab: Lab) -> None:
    """Under --bare the newest models' first user message is followed by an empty system message with the effort."""
    async with lab.bound(model="sonnet") as cli:
        await cli.turn("Hello")
    user_message, marker = lab.bodies[0]["messages"]
    assert contents(user_message) == [text("Hello")]
    assert (marker["role"], marker["content"], marker["output_config"].keys()) == ("system", [], {"effort"})


@pytest.mark.asyncio
async def test_without_bare_reminders_precede_the_prompt(lab: Lab) -> None:
    """Without --bare <system-reminder> blocks, and nothing else, stand before the client's first text."""
    async with lab.bound(login=OAUTH_TOKEN, bare=False) as cli:
        await cli.turn("Hello")
    [(role, [*reminders, prompt])] = conversation(lab.bodies[0])
    assert (role, prompt) == ("user", text("Hello"))
    assert reminders
    assert all(block["text"].startswith("<system-reminder>\n") for block in reminders)
    assert all(block["text"].rstrip().endswith("</system-reminder>") for block in reminders)


@pytest.mark.asyncio
async def test_without_bare_the_newest_models_get_one_system_message(lab: Lab) -> None:
    """Without --bare the newest models get the reminders in one system message, after an untouched user message."""
    async with lab.bound(model="sonnet", login=OAUTH_TOKEN, bare=False) as cli:
        await cli.turn("Hello")
    [prompt, (role, [reminders])] = conversation(lab.bodies[0])
    assert prompt == ("user", [text("Hello")])
    assert role == "system"
    assert "# Environment" in reminders["text"]


@pytest.mark.asyncio
async def test_paths_in_composed_prompts_are_text(lab: Lab) -> None:
    """With `client_composed` an @path in a prompt is text, and the file isn't read."""
    path = lab.home / "secret.txt"
    path.write_text(SECRET)
    async with lab.bound(login=OAUTH_TOKEN, bare=False) as cli:
        await cli.turn(f"Read @{path} now")
    assert contents(lab.bodies[0]["messages"][0])[-1] == text(f"Read @{path} now")
    assert SECRET not in str(lab.bodies[0])


@pytest.mark.asyncio
async def test_paths_in_other_prompts_are_read(lab: Lab) -> None:
    """The danger: without `client_composed` and --bare an @path is read from our disk and sent, tools or none."""
    path = lab.home / "secret.txt"
    path.write_text(SECRET)
    async with lab.bound(login=OAUTH_TOKEN, bare=False) as cli:
        await cli.turn(user(f"Read @{path} now", client_composed=False))
    assert SECRET in str(lab.bodies[0])
    assert lab.bodies[0]["tools"] == []


@pytest.mark.asyncio
@pytest.mark.parametrize(("login", "bare"), [(API_KEY, True), (OAUTH_TOKEN, False)], ids=["bare", "oauth"])
async def test_commands_in_composed_prompts_are_text(lab: Lab, login: Mapping[str, str], *, bare: bool) -> None:
    """With `client_composed` a /command in a prompt is text, for the model to see."""
    prompts = ["/clear", "/help", "/model opus"]
    async with lab.bound(login=login, bare=bare) as cli:
        for prompt in prompts:
            await cli.turn(prompt)
    assert [contents(body["messages"][-1])[-1] for body in lab.bodies] == [text(prompt) for prompt in prompts]


@pytest.mark.asyncio
async def test_commands_in_other_prompts_are_run(lab: Lab) -> None:
    """The danger: without `client_composed` the CLI runs a /command itself, and the model never sees it."""
    async with lab.bound() as cli:
        turn = await cli.turn(user("/clear", client_composed=False))
    assert not turn.result["is_error"]
    assert lab.bodies == []


@pytest.mark.asyncio
async def test_no_transcript_is_written(lab: Lab) -> None:
    """With --no-session-persistence nothing of the conversation is written below the CLI's home."""
    async with lab.bound() as cli:
        await cli.turn("A very private prompt")
        cli.stdin.close()
        await cli.exited()
    assert not (lab.home / ".claude" / "projects").exists()
    files = [path for path in lab.home.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"very private" in path.read_bytes()]


@pytest.mark.asyncio
@pytest.mark.parametrize("prompt", [user(""), user([text("")])], ids=["string", "block"])
async def test_empty_texts_are_replaced(lab: Lab, prompt: Frame) -> None:
    """The CLI puts "(no content)" where a user text is empty: why the adapter leaves empty texts out."""
    async with lab.bound() as cli:
        await cli.turn(prompt)
    assert conversation(lab.bodies[0]) == [("user", [text("(no content)")])]


# Seeding


@pytest.mark.asyncio
async def test_seeding_makes_a_native_history(lab: Lab) -> None:
    """User frames with `shouldQuery: false` and assistant frames become native messages, tool blocks included."""
    history = [
        user("Weather in Paris?"),
        assistant(text("Let me look."), CALL),
        user([CALL_RESULT]),
        assistant(text("21C.")),
    ]
    async with lab.bound() as cli:
        await cli.seed(*history)
        await cli.turn("Thanks")
    assert conversation(lab.bodies[0]) == [
        ("user", [text("Weather in Paris?")]),
        ("assistant", [text("Let me look."), CALL]),
        ("user", [CALL_RESULT]),
        ("assistant", [text("21C.")]),
        ("user", [text("Thanks")]),
    ]


@pytest.mark.asyncio
async def test_seeding_asks_nobody(lab: Lab) -> None:
    """Each seeded user frame is answered with an empty result, and no request goes upstream."""
    async with lab.bound() as cli:
        results = await cli.seed(user("One"), assistant(text("Two")), user("Three"), assistant(text("Four")))
    assert [(result["is_error"], result["result"], result["num_turns"]) for result in results] == [(False, "", 0)] * 2
    assert lab.upstream.requests == []


@pytest.mark.asyncio
async def test_a_prompt_may_be_a_tool_result_alone(lab: Lab) -> None:
    """A last user frame that carries nothing but a tool_result is sent as it is, and answered."""
    async with lab.bound() as cli:
        await cli.seed(user("Weather in Paris?"), assistant(CALL))
        turn = await cli.turn(user([CALL_RESULT]))
    assert not turn.result["is_error"]
    assert conversation(lab.bodies[0])[-1] == ("user", [CALL_RESULT])


@pytest.mark.asyncio
async def test_seeded_texts_are_verbatim(lab: Lab) -> None:
    """An @path and a /command in seeded messages are text and nothing else."""
    path = lab.home / "secret.txt"
    path.write_text(SECRET)
    async with lab.bound(login=OAUTH_TOKEN, bare=False) as cli:
        await cli.seed(user(f"Read @{path} now"), assistant(text("/help")), user("/help"), assistant(text(f"@{path}")))
        await cli.turn("Hello")
    texts = [blocks[-1]["text"] for _, blocks in conversation(lab.bodies[0])]
    assert texts == [f"Read @{path} now", "/help", "/help", f"@{path}", "Hello"]
    assert SECRET not in str(lab.bodies[0])


@pytest.mark.asyncio
async def test_user_messages_in_a_row_get_newlines(lab: Lab) -> None:
    """Two user messages in a row become one, with a newline glued to the first: why the adapter merges them itself."""
    async with lab.bound() as cli:
        await cli.seed(user("One"))
        await cli.turn("Two")
    assert conversation(lab.bodies[0]) == [("user", [text("One\n"), text("Two")])]


@pytest.mark.asyncio
async def test_assistant_messages_with_one_id_merge(lab: Lab) -> None:
    """Assistant frames in a row become one message where they share an id: why each seeded one has its own."""
    one, two = assistant(text("One")), assistant(text("Two"))
    two["message"]["id"] = one["message"]["id"]
    async with lab.bound() as cli:
        await cli.seed(user("Hello"), one, two)
        await cli.turn("Next")
    assert conversation(lab.bodies[0])[1] == ("assistant", [text("One"), text("Two")])


@pytest.mark.asyncio
@pytest.mark.parametrize(("other", "is_kept"), [("toolu_1_2", False), ("toolu_1-2", True)])
async def test_a_result_is_dropped_where_its_call_looks_like_a_part(lab: Lab, other: str, *, is_kept: bool) -> None:
    """The danger: beside a call `X` the result of an `X_2` gives way to words of the CLI; that of an `X-2` doesn't."""
    result = {**CALL_RESULT, "tool_use_id": other}
    async with lab.bound() as cli:
        await cli.seed(user("One"), assistant(CALL), user([CALL_RESULT]), assistant({**CALL, "id": other}))
        await cli.turn(user([result]))
    assert (conversation(lab.bodies[0])[-1] == ("user", [result])) is is_kept
    assert ("[Tool result missing" in str(lab.bodies[0])) is not is_kept


# End


@pytest.mark.asyncio
@pytest.mark.parametrize("initialized", [False, True], ids=["uninitialised", "initialised"])
async def test_the_end_of_input_ends_an_idle_process(lab: Lab, *, initialized: bool) -> None:
    """A process that has nothing to do ends by itself, with 0, when its input ends."""
    async with lab.start() as cli:
        if initialized:
            await cli.initialize()
        cli.stdin.close()
        assert await cli.exited(within=5) == 0


@pytest.mark.asyncio
async def test_sigterm_ends_a_waiting_process(lab: Lab) -> None:
    """SIGTERM ends a process whose upstream doesn't answer."""
    lab.upstream.script(Reply(hang=True))
    async with lab.bound() as cli:
        await cli.send(user("Hello"))
        await lab.upstream_sees(lambda upstream: bool(upstream.messages_requests()))
        cli.process.terminate()
        await cli.exited(within=2)


@pytest.mark.asyncio
async def test_the_end_of_input_doesnt_end_a_waiting_process(lab: Lab) -> None:
    """The end of its input doesn't end a process whose upstream doesn't answer: why `setpriv --pdeathsig` guards it."""
    lab.upstream.script(Reply(hang=True))
    async with lab.bound() as cli:
        await cli.send(user("Hello"))
        await lab.upstream_sees(lambda upstream: bool(upstream.messages_requests()))
        cli.stdin.close()
        with pytest.raises(TimeoutError):
            await cli.exited(within=2)
