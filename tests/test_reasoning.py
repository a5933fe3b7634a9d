"""How much the model thinks, and what is seen of it: efforts, budgets and thoughts, through the real CLI."""

from typing import Any

import httpx
import pytest

from chat import chunks, send
from conftest import Server, ServerFactory
from demo_upstream import Reply
from function_calls import calling, calls_of, needs_reuse, plain, results, scripted, text, tool

Json = dict[str, Any]

PROMPT: list[Json] = [{"role": "user", "content": "Why?"}]
BUDGETED, ADAPTIVE, ALWAYS = "claude-sonnet-4-5", "claude-opus-4-6", "sonnet"
BUDGET_HEADER = "X-Claude-Max-Thinking-Tokens"
THOUGHT = Reply(thinking="First this, then that", text="Because.", usage={"output_tokens": 9})


def post(server: Server, headers: dict[str, str] | None = None, **parameters: Any) -> httpx.Response:
    """Send a chat completion as it is."""
    return send(server, {"model": BUDGETED, "messages": PROMPT, **parameters}, headers)


def seen(server: Server) -> tuple[Json, str | None]:
    """What the model's API got last of thinking, less how it is to be shown, and of the effort."""
    body = server.upstream.messages_requests()[-1].body
    thinking = {name: value for name, value in body["thinking"].items() if name != "display"}
    return thinking, body.get("output_config", {}).get("effort")


def budget(tokens: int) -> Json:
    """What a model gets that has to be told how much to think."""
    return {"type": "enabled", "budget_tokens": tokens}


OFF, ON = {"type": "disabled"}, {"type": "adaptive"}


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "level"),
    [
        (BUDGETED, None, OFF, None),
        (BUDGETED, "none", OFF, None),
        (BUDGETED, "minimal", budget(1024), None),
        (BUDGETED, "medium", budget(10_000), None),
        (BUDGETED, "xhigh", budget(31_999), None),
        (ADAPTIVE, None, OFF, "high"),
        (ADAPTIVE, "none", OFF, "high"),
        (ADAPTIVE, "low", ON, "low"),
        (ADAPTIVE, "medium", ON, "medium"),
        (ADAPTIVE, "xhigh", ON, "high"),
        (ALWAYS, None, ON, "medium"),
        (ALWAYS, "none", ON, "low"),
        (ALWAYS, "minimal", ON, "low"),
        (ALWAYS, "xhigh", ON, "xhigh"),
    ],
)
def test_an_effort_is_what_the_model_has_of_it(
    server: Server, model: str, effort: str | None, thinking: Json, level: str | None
) -> None:
    """Budgets for models that want one, levels for those that have them; what a model can't do is named."""
    response = post(server, model=model, reasoning_effort=effort)
    assert response.status_code == 200
    assert seen(server) == (thinking, level)
    cant = model == ALWAYS and effort == "none"
    assert response.headers.get("x-claude-ignored-params") == ("reasoning_effort" if cant else None)
    assert post(server, model=model).status_code == 200
    assert seen(server) == ((ON, "medium") if model == ALWAYS else (OFF, "high" if model == ADAPTIVE else None))


@pytest.mark.parametrize("stream", [False, True])
def test_thoughts_are_shown_to_who_asked_for_them(server: Server, stream: bool) -> None:
    """They come whole as `reasoning_content`, or piece by piece before the text; others see only the answer."""
    for effort in ("high", None):
        scripted(server, THOUGHT)
        response = post(server, reasoning_effort=effort, stream=stream)
        if stream:
            deltas = [choice["delta"] for chunk in chunks(response) for choice in chunk["choices"]]
            thoughts = [delta["reasoning_content"] for delta in deltas if "reasoning_content" in delta]
            assert thoughts == (["First ", "this, ", "then ", "that"] if effort else [])
            assert "".join(delta.get("content") or "" for delta in deltas) == "Because."
        else:
            message = response.json()["choices"][0]["message"]
            assert message.get("reasoning_content") == ("First this, then that" if effort else None)
            assert ("reasoning_content" in message, message["content"]) == (bool(effort), "Because.")


def test_thoughts_are_asked_for_in_words(server: Server) -> None:
    """The model's API is told to show them in full sentences, where a client wants them."""
    post(server, reasoning_effort="low")
    assert server.upstream.messages_requests()[-1].body["thinking"]["display"] == "summarized"
    post(server, model=ALWAYS, reasoning_effort="low")
    assert server.upstream.messages_requests()[-1].body["thinking"]["display"] == "summarized"
    post(server, model=ALWAYS)
    assert server.upstream.messages_requests()[-1].body["thinking"]["display"] != "summarized"


def test_thinking_is_counted(server: Server) -> None:
    """`reasoning_tokens` are those that the model's API counts as thinking."""
    details: Any = {"thinking_tokens": 7}
    usage: Any = {"output_tokens": 9, "output_tokens_details": details}
    scripted(server, Reply(thinking="Hm", text="Because.", usage=usage))
    told = post(server, reasoning_effort="low").json()["usage"]
    assert (told["completion_tokens"], told["completion_tokens_details"]["reasoning_tokens"]) == (9, 7)


@pytest.mark.parametrize(
    ("headers", "parameters", "thinking"),
    [
        ({}, {}, budget(2048)),
        ({}, {"reasoning_effort": "none"}, OFF),
        ({}, {"reasoning_effort": "medium"}, budget(10_000)),
        ({BUDGET_HEADER: "0"}, {}, OFF),
        ({BUDGET_HEADER: "5000"}, {}, budget(5000)),
        ({BUDGET_HEADER: "5000"}, {"reasoning_effort": "low"}, budget(5000)),
        ({BUDGET_HEADER: "5000"}, {"max_tokens": 3000}, budget(2999)),
        ({BUDGET_HEADER: "5000"}, {"max_tokens": 1024}, OFF),
        ({}, {"max_tokens": 2000}, budget(1999)),
        ({BUDGET_HEADER: "50000"}, {"max_tokens": 64_000}, budget(50_000)),
        ({BUDGET_HEADER: "50000"}, {}, budget(31_999)),
        # What goes with no thinking the operator's setting doesn't spoil.
        ({}, {"temperature": 0.3}, OFF),
        ({}, {"top_p": 0.3}, OFF),
        ({}, {"tools": [tool()], "tool_choice": "required"}, OFF),
    ],
)
def test_the_nearest_word_decides_on_the_budget(
    serve: ServerFactory, headers: dict[str, str], parameters: Json, thinking: Json
) -> None:
    """The request's header goes before its effort, and that before the operator's setting; all stay under the limit."""
    server = serve(max_thinking_tokens=2048)
    assert post(server, headers, **parameters).status_code == 200
    assert seen(server)[0] == thinking


def test_no_room_to_think_is_named(server: Server) -> None:
    """Where the limit leaves too little for it, an effort has no effect, nor has a budget; the answer says so."""
    response = post(server, reasoning_effort="high", max_tokens=500)
    assert response.headers["x-claude-ignored-params"] == "reasoning_effort"
    assert seen(server)[0] == OFF
    for limit in (500, 3000):
        response = post(server, {BUDGET_HEADER: "5000"}, max_tokens=limit)
        assert response.headers["x-claude-ignored-params"] == BUDGET_HEADER
    assert "x-claude-ignored-params" not in post(server, {BUDGET_HEADER: "5000"}).headers
    response = post(server, {BUDGET_HEADER: "5000"}, reasoning_effort="none")
    assert (response.headers["x-claude-ignored-params"], seen(server)[0]) == ("reasoning_effort", budget(5000))
    assert post(server, {BUDGET_HEADER: "50000"}).headers["x-claude-ignored-params"] == BUDGET_HEADER


@pytest.mark.parametrize(
    "model", [ALWAYS, "claude-sonnet-5-5", "CLAUDE-SONNET-5-5", "claude-fable-5", "claude-opus-5-5[1m]"]
)
def test_a_model_that_always_thinks_is_told_so_whatever_its_name(server: Server, model: str) -> None:
    """Neither an effort of none nor a budget of 0 stops it; a small limit of tokens changes nothing of an effort."""
    headers = [
        post(server, model=model, reasoning_effort="none").headers,
        post(server, {BUDGET_HEADER: "0"}, model=model).headers,
        post(server, model=model, reasoning_effort="high", max_tokens=500).headers,
    ]
    assert [each.get("x-claude-ignored-params") for each in headers] == ["reasoning_effort", BUDGET_HEADER, None]
    assert server.upstream.messages_requests()[-1].body["thinking"] == {**ON, "display": "summarized"}


def test_the_operators_budget_shows_what_is_thought_anyway(serve: ServerFactory) -> None:
    """Also where the limit of tokens would leave no room for a budget."""
    server = serve(max_thinking_tokens=2048)
    post(server, model=ALWAYS, max_tokens=500)
    assert server.upstream.messages_requests()[-1].body["thinking"] == {**ON, "display": "summarized"}


def test_a_model_that_never_thinks_is_told_so(server: Server) -> None:
    """The Claude 3 models answer at once, whatever is asked."""
    for headers, parameters, name in (
        ({}, {"reasoning_effort": "high"}, "reasoning_effort"),
        ({BUDGET_HEADER: "5000"}, {}, BUDGET_HEADER),
    ):
        response = post(server, headers, model="claude-3-haiku-20240307", **parameters)
        assert response.headers["x-claude-ignored-params"] == name
        assert "thinking" not in server.upstream.messages_requests()[-1].body
    assert (
        "x-claude-ignored-params" not in post(server, model="claude-3-haiku-20240307", reasoning_effort="none").headers
    )


@pytest.mark.parametrize("value", ["", "many", "-1", "1023", "1e4", "99999999", "\uff15000"])
def test_a_budget_that_is_none_is_refused(server: Server, value: str) -> None:
    """A header that is no number of tokens is a 400 that names it."""
    headers = [(BUDGET_HEADER.encode(), value.encode())]
    body = {"model": BUDGETED, "messages": PROMPT}
    response = httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=30)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_header")
    assert BUDGET_HEADER in response.json()["error"]["message"]


@needs_reuse
def test_thoughts_go_back_with_the_call_that_they_led_to(serve: ServerFactory) -> None:
    """The turn that waits goes on with what the model thought; the next message finds it, too."""
    server = serve()
    scripted(server, calling("weather", thinking="I have to look"))
    first = post(server, reasoning_effort="high", tools=[tool()]).json()["choices"][0]["message"]
    assert first["reasoning_content"] == "I have to look"
    messages = [*PROMPT, first]
    messages += results(calls_of(messages), "21 °C")
    response = post(server, reasoning_effort="high", tools=[tool()], messages=messages)
    assert response.headers["x-claude-process"] == "adopted"
    thinking = server.upstream.messages_requests()[-1].body["messages"][1]["content"][0]
    assert (thinking["type"], thinking["thinking"]) == ("thinking", "I have to look")
    assert seen(server)[0] == budget(20_000)


@needs_reuse
@pytest.mark.parametrize(
    ("before", "then", "thinking"),
    [
        ({"reasoning_effort": "high"}, {"reasoning_effort": "none"}, OFF),
        ({"reasoning_effort": "high"}, {"reasoning_effort": "high", "max_tokens": 500}, OFF),
        ({}, {"reasoning_effort": "high"}, OFF),
    ],
)
def test_a_waiting_turn_isnt_asked_to_think_otherwise(
    serve: ServerFactory, before: Json, then: Json, thinking: Json
) -> None:
    """How much it thinks is settled for a whole turn: with another wish the conversation is taken up anew."""
    server = serve()
    scripted(server, calling("weather", thinking="I have to look"))
    messages = [*PROMPT, post(server, tools=[tool()], **before).json()["choices"][0]["message"]]
    messages += results(calls_of(messages), "21 °C")
    assert post(server, tools=[tool()], messages=messages, **then).status_code == 200
    assert seen(server)[0] == thinking
    assert [message["role"] for message in server.upstream.messages_requests()[-1].body["messages"]] == [
        "user",
        "assistant",
        "user",
    ]


def test_a_call_whose_thoughts_are_lost_is_answered_without(serve: ServerFactory) -> None:
    """Some models refuse, while they think, a call without its thought: another process goes on without thinking."""
    server = serve(process_reuse="off")
    scripted(server, calling("weather", thinking="I have to look"))
    messages = [*PROMPT, post(server, reasoning_effort="high", tools=[tool()]).json()["choices"][0]["message"]]
    messages += results(calls_of(messages), "21 °C")
    response = post(server, reasoning_effort="high", tools=[tool()], messages=messages)
    assert (response.status_code, response.headers["x-claude-ignored-params"]) == (200, "reasoning_effort")
    assert seen(server)[0] == OFF
    blocks = server.upstream.messages_requests()[-1].body["messages"][1]["content"]
    assert [block["type"] for block in map(plain, blocks)] == ["text", "tool_use"]
    messages += [{"role": "assistant", "content": "Fine."}, *PROMPT]
    assert post(server, reasoning_effort="high", tools=[tool()], messages=messages).status_code == 200
    assert seen(server)[0] == budget(20_000)


@needs_reuse
def test_a_loop_whose_first_thoughts_are_lost_goes_on_in_one_process(serve: ServerFactory) -> None:
    """The process that took it up without thinking waits for the next results, too, and the header tells each time."""
    server = serve()
    scripted(server, calling("weather"), calling("weather"))
    messages = [*PROMPT, post(server, tools=[tool()]).json()["choices"][0]["message"], *PROMPT]
    messages[-1:] = results(calls_of(messages[:-1]), "21 °C")
    origins, named = [], []
    for _ in range(2):
        response = post(server, reasoning_effort="low", tools=[tool()], messages=messages)
        origins.append(response.headers["x-claude-process"])
        named.append(response.headers.get("x-claude-ignored-params"))
        messages.append(response.json()["choices"][0]["message"])
        if messages[-1].get("tool_calls"):
            messages += results(calls_of(messages), "22 °C")
    assert (origins[1], named) == ("adopted", ["reasoning_effort"] * 2)


@needs_reuse
def test_a_smaller_limit_leaves_a_waiting_turn_alone(serve: ServerFactory) -> None:
    """As long as the budget that it began with has room in it: clients count their limits down."""
    server = serve()
    scripted(server, calling("weather", thinking="I have to look"))
    first = post(server, reasoning_effort="low", max_tokens=6000, tools=[tool()]).json()["choices"][0]["message"]
    messages = [*PROMPT, first]
    messages += results(calls_of(messages), "21 °C")
    response = post(server, reasoning_effort="low", max_tokens=5000, tools=[tool()], messages=messages)
    assert response.headers["x-claude-process"] == "adopted"
    assert "x-claude-ignored-params" not in response.headers
    body = server.upstream.messages_requests()[-1].body
    assert (body["thinking"]["budget_tokens"], body["max_tokens"]) == (4096, 5000)


def test_a_client_may_send_thoughts_back(server: Server) -> None:
    """A field of ours that comes back in a message is passed over: only Claude's own thoughts have its signature."""
    history = [*PROMPT, {"role": "assistant", "content": "Because.", "reasoning_content": "Hm"}, *PROMPT]
    assert post(server, messages=history).status_code == 200
    assert server.upstream.messages_requests()[-1].body["messages"][1]["content"] == [text("Because.")]
