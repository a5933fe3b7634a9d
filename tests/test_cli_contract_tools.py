"""What the project relies on in the real `claude` CLI, one test a fact: the client's functions.

See test_cli_contract.py.
"""

import asyncio
import json
from collections.abc import Mapping

import pytest

from claude_cli import (
    API_KEY,
    OAUTH_TOKEN,
    ClaudeCli,
    ClientTool,
    Frame,
    Lab,
    contents,
    conversation,
    is_result,
    text,
    user,
)
from demo_upstream import Reply, ToolCall

WEATHER_CALL = Reply(text="Let me look.", tool_calls=[ToolCall("weather", {"city": "Paris"})])
ALLOWED = ("--allowed-tools", "mcp__client")


@pytest.fixture
def lab(lab: Lab) -> Lab:
    """The upstream says "Fine." to all."""
    lab.script()
    return lab


async def rewind(cli: ClaudeCli, message: Frame) -> Frame:
    """Ask for a rewind to before a message."""
    return await cli.control("rewind_conversation", target_message_uuid=message["uuid"])


def tool_names(body: Frame) -> list[str]:
    """Return the names of the tools that a request offered."""
    return [tool["name"] for tool in body["tools"]]


def own_definition(name: str) -> Frame:
    """A definition in the Messages API's terms, with what MCP doesn't know."""
    schema = {"type": "object", "properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "string"}}}
    return {"name": name, "description": "Ours.", "input_schema": schema, "strict": True}


@pytest.mark.asyncio
async def test_the_model_sees_the_clients_functions(lab: Lab) -> None:
    """An in-process MCP server's tools are the only ones, names and schemas unchanged, sorted."""
    async with lab.bound() as cli:
        await cli.set_tools("client", ClientTool("weather"), ClientTool("get time.now"))
        await cli.turn("Hello")
    assert tool_names(lab.bodies[0]) == ["get time.now", "weather"]
    assert lab.bodies[0]["tools"][1]["input_schema"] == ClientTool("weather").definition["inputSchema"]
    assert lab.bodies[0]["tools"][1]["description"] == ClientTool("weather").definition["description"]


@pytest.mark.asyncio
@pytest.mark.parametrize(("model", "bare"), [("claude-sonnet-4-5", True), ("sonnet", True), ("sonnet", False)])
async def test_a_new_server_name_replaces_the_tools(lab: Lab, model: str, *, bare: bool) -> None:
    """Tools under a new server name take the place of the old ones, in mid-conversation, with no trace of them."""
    async with lab.bound(model=model, bare=bare) as cli:
        await cli.set_tools("first", ClientTool("weather"))
        await cli.turn("One")
        await cli.set_tools("second", ClientTool("news"))
        await cli.turn("Two")
    assert tool_names(lab.bodies[-1]) == ["news"]
    assert "weather" not in str(lab.bodies[-1])


@pytest.mark.asyncio
async def test_the_same_server_name_keeps_the_tools(lab: Lab) -> None:
    """The danger: tools under a server name that is already there don't take the place of the old ones."""
    async with lab.bound() as cli:
        await cli.set_tools("same", ClientTool("weather"))
        await cli.turn("One")
        await cli.set_tools("same", ClientTool("news"))
        await cli.turn("Two")
    assert "weather" in tool_names(lab.bodies[-1])


@pytest.mark.asyncio
async def test_a_server_name_used_again_brings_its_old_tools_back(lab: Lab) -> None:
    """The danger: a server that was removed and comes back under its name with other tools has the old ones as well."""
    async with lab.bound() as cli:
        await cli.set_tools("same", ClientTool("weather"))
        await cli.turn("One")
        await cli.control("mcp_set_servers", servers={})
        await cli.set_tools("same", ClientTool("news"))
        await cli.turn("Two")
    assert sorted(tool_names(lab.bodies[-1])) == ["news", "weather"]


@pytest.mark.asyncio
async def test_no_servers_mean_no_tools(lab: Lab) -> None:
    """When mcp_set_servers names no server, the next request offers no tools."""
    async with lab.bound() as cli:
        await cli.set_tools("client", ClientTool("weather"))
        await cli.turn("One")
        await cli.control("mcp_set_servers", servers={})
        await cli.turn("Two")
    assert [tool_names(body) for body in lab.bodies] == [["weather"], []]


@pytest.mark.asyncio
async def test_a_tool_call_waits_for_its_handler(lab: Lab) -> None:
    """A call of a client's function waits until its handler returns; then the turn goes on with the result."""
    lab.script(WEATHER_CALL)
    called: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def weather(arguments: Frame) -> str:
        called.set_result(arguments)
        return await answer

    async with lab.bound(*ALLOWED) as cli:
        await cli.set_tools("client", ClientTool("weather", weather))
        await cli.send(user("Weather in Paris?"))
        assert await called == {"city": "Paris"}
        assert len(lab.bodies) == 1
        answer.set_result("21C")
        result = (await cli.receive_until(is_result)).result
    assert (result["is_error"], result["num_turns"], result["result"]) == (False, 2, "Fine.")
    [call_result] = contents(lab.bodies[1]["messages"][-1])
    assert (call_result["type"], call_result["content"]) == ("tool_result", [text("21C")])


@pytest.mark.asyncio
async def test_tool_calls_stream(lab: Lab) -> None:
    """A call's name and the pieces of its arguments arrive as the upstream's own stream events."""
    lab.script(WEATHER_CALL)
    async with lab.bound(*ALLOWED) as cli:
        await cli.set_tools("client", ClientTool("weather"))
        turn = await cli.turn("Weather in Paris?")
    events = [frame["event"] for frame in turn.of_type("stream_event")]
    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert [block["name"] for block in starts if block["type"] == "tool_use"] == ["weather"]
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    arguments = [delta["partial_json"] for delta in deltas if delta["type"] == "input_json_delta"]
    assert len(arguments) > 1
    assert json.loads("".join(arguments)) == {"city": "Paris"}


@pytest.mark.asyncio
async def test_tools_are_allowed_at_run_time(lab: Lab) -> None:
    """settings.permissions.allow lets the model call a server's functions, as --allowed-tools does at launch."""
    lab.script(WEATHER_CALL)
    async with lab.bound() as cli:
        await cli.set_settings(permissions={"allow": ["mcp__client"]})
        await cli.set_tools("client", ClientTool("weather"))
        turn = await cli.turn("Weather in Paris?")
    assert turn.result["permission_denials"] == []
    assert contents(lab.bodies[1]["messages"][-1])[0]["content"] == [text("sunny")]


@pytest.mark.asyncio
async def test_tools_not_allowed_are_denied(lab: Lab) -> None:
    """Under --permission-mode dontAsk a call of a function that isn't allowed is denied, and the turn goes on."""
    lab.script(WEATHER_CALL)
    async with lab.bound() as cli:
        await cli.set_tools("client", ClientTool("weather"))
        turn = await cli.turn("Weather in Paris?")
    assert [denial["tool_name"] for denial in turn.result["permission_denials"]] == ["weather"]
    assert contents(lab.bodies[1]["messages"][-1])[0]["is_error"] is True


@pytest.mark.asyncio
async def test_turns_with_tool_calls_can_be_rewound(lab: Lab) -> None:
    """A rewind to a message whose turn called functions drops the calls and their results too."""
    lab.script(WEATHER_CALL)
    prompt = user("Weather in Paris?")
    async with lab.bound(*ALLOWED) as cli:
        await cli.set_tools("client", ClientTool("weather"))
        await cli.turn(prompt)
        assert (await rewind(cli, prompt))["rewound"] is True
        await cli.turn("Hello")
    assert conversation(lab.bodies[-1]) == [("user", [text("Hello")])]


@pytest.mark.asyncio
async def test_a_call_names_its_tool_use(lab: Lab) -> None:
    """A `tools/call` carries the id of its `tool_use` block, so calls that are alike can be told apart."""
    calls = [ToolCall("weather", {"city": "Paris"})] * 2
    lab.script(Reply(text="Let me look.", tool_calls=calls))
    async with lab.bound(*ALLOWED) as cli:
        await cli.set_tools("client", ClientTool("weather"))
        await cli.turn("Weather in Paris?")
    blocks = contents(lab.bodies[-1]["messages"][1])
    ids = [block["id"] for block in blocks if block["type"] == "tool_use"]
    assert [call["_meta"]["claudecode/toolUseId"] for call in cli.mcp_calls] == ids


@pytest.mark.asyncio
async def test_read_only_functions_are_called_at_once(lab: Lab) -> None:
    """With the hint that they only read, calls of one answer don't wait for each other, as they do without."""
    calls = [ToolCall(name, {"city": "Paris"}) for name in ("one", "two")]
    lab.script(Reply(text="Let me look.", tool_calls=calls))
    second_called = asyncio.Event()

    async def one(_arguments: Frame) -> str:
        await second_called.wait()
        return "first"

    async def two(_arguments: Frame) -> str:
        second_called.set()
        return "second"

    async with lab.bound(*ALLOWED) as cli:
        tools = [ClientTool(name, handler, read_only=True) for name, handler in (("one", one), ("two", two))]
        await cli.set_tools("client", *tools)
        await cli.turn("Go")
    results = contents(lab.bodies[-1]["messages"][-1])
    assert [result["content"] for result in results] == [[text("first")], [text("second")]]


@pytest.mark.asyncio
async def test_an_extra_body_says_which_tools_in_which_order(lab: Lab) -> None:
    """Its `tools` take the place of the CLI's list, which is sorted, and its calls reach the functions all the same."""
    lab.script(Reply(text="Let me look.", tool_calls=[ToolCall("zeta", {"x": "y"})]))
    definitions = [own_definition(name) for name in ("zeta", "alpha")]
    async with lab.bound(*ALLOWED) as cli:
        await cli.set_settings(env={"CLAUDE_CODE_EXTRA_BODY": json.dumps({"tools": definitions})})
        await cli.set_tools("client", ClientTool("zeta"), ClientTool("alpha"))
        await cli.turn("Go")
    assert [body["tools"] for body in lab.bodies] == [definitions, definitions]
    assert contents(lab.bodies[-1]["messages"][-1])[0]["content"] == [text("sunny")]


@pytest.mark.asyncio
async def test_a_choice_of_tools_is_changed_while_a_call_waits(lab: Lab) -> None:
    """An extra body that is set while a handler waits is that of the request that carries the result."""
    lab.script(WEATHER_CALL)
    choice = {"type": "any", "disable_parallel_tool_use": True}

    async def weather(_arguments: Frame) -> str:
        await cli.set_settings(env={"CLAUDE_CODE_EXTRA_BODY": ""})
        return "21C"

    async with lab.bound(*ALLOWED) as cli:
        await cli.set_settings(env={"CLAUDE_CODE_EXTRA_BODY": json.dumps({"tool_choice": choice})})
        await cli.set_tools("client", ClientTool("weather", weather))
        await cli.turn("Weather in Paris?")
    assert [body.get("tool_choice") for body in lab.bodies] == [choice, None]


@pytest.mark.asyncio
async def test_functions_may_keep_their_own_names(lab: Lab) -> None:
    """The model sees the client's names, be they like those of the CLI's own tools, or of an MCP server's.

    They are allowed by the name of their server all the same.
    """
    names = ["get.weather", "get_weather", "Read", "ToolSearch", "Task", "mcp__other__news", "mcp__client__weather"]
    lab.script(Reply(text="Let me look.", tool_calls=[ToolCall(name, {"city": "Paris"}) for name in names]))
    async with lab.bound() as cli:
        await cli.set_settings(permissions={"allow": ["mcp__client"]})
        await cli.set_tools("client", *(ClientTool(name) for name in names))
        turn = await cli.turn("Weather in Paris?")
    assert turn.result["permission_denials"] == []
    # The danger: this one is left out.
    assert sorted(tool_names(lab.bodies[0])) == sorted({*names} - {"ToolSearch"})
    assert [call["name"] for call in cli.mcp_calls] == names


@pytest.mark.asyncio
async def test_functions_under_their_own_names_are_replaced_too(lab: Lab) -> None:
    """A new server's functions take the place of the old ones' where both have the same names."""
    asked: list[str] = []

    def said_by(who: str) -> ClientTool:
        async def weather(_arguments: Frame) -> str:
            asked.append(who)
            return who

        return ClientTool("weather", weather)

    call = Reply(text="Let me look.", tool_calls=[ToolCall("weather", {"city": "Paris"})])
    lab.script(call, Reply(text="Fine."), call)
    async with lab.bound() as cli:
        await cli.set_settings(permissions={"allow": ["mcp__first", "mcp__second"]})
        for server in ("first", "second"):
            await cli.set_tools(server, said_by(server))
            await cli.turn("Weather in Paris?")
    assert asked == ["first", "second"]
    assert all(tool_names(body) == ["weather"] for body in lab.bodies)


@pytest.mark.asyncio
async def test_a_turn_that_waits_can_be_interrupted_and_rewound(lab: Lab) -> None:
    """It ends with what it cost, nothing of it is left, and nothing more is asked of the model."""
    lab.script(WEATHER_CALL)
    called = asyncio.Event()

    async def never(_arguments: Frame) -> str:
        called.set()
        await asyncio.Event().wait()
        raise AssertionError

    prompt = user("Weather in Paris?")
    async with lab.bound(*ALLOWED) as cli:
        await cli.set_tools("client", ClientTool("weather", never))
        await cli.send(prompt)
        await called.wait()
        await cli.control("interrupt")
        result = (await cli.receive_until(is_result)).result
        assert result["total_cost_usd"] > 0
        assert (await rewind(cli, prompt))["rewound"] is True
        await cli.turn("Hello")
    assert len(lab.bodies) == 2
    assert conversation(lab.bodies[-1]) == [("user", [text("Hello")])]


@pytest.mark.asyncio
@pytest.mark.parametrize(("login", "bare"), [(API_KEY, True), (OAUTH_TOKEN, False)])
async def test_a_turn_that_waits_tells_its_cost(lab: Lab, login: Mapping[str, str], *, bare: bool) -> None:
    """`get_usage` has what the process cost so far, exactly, while a call waits; nobody is asked for it."""
    lab.script(Reply(tool_calls=WEATHER_CALL.tool_calls, usage={"input_tokens": 1000, "output_tokens": 100}))
    costs: list[float] = []

    async def weather(_arguments: Frame) -> str:
        costs.append((await cli.control("get_usage", skip_behaviors=True))["session"]["total_cost_usd"])
        return "21C"

    async with lab.bound(*ALLOWED, login=login, bare=bare) as cli:
        await cli.set_tools("client", ClientTool("weather", weather))
        await cli.turn("Weather in Paris?")
    assert costs == [pytest.approx(1000 * 3e-6 + 100 * 15e-6)]
    assert [request.path for request in lab.upstream.requests] == ["/v1/messages"] * 2
