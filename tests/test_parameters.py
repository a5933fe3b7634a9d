"""Every row of the table of parameters, through the real CLI: what the model's API got for it, or the error it made."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from chat import send
from conftest import Server, ServerFactory
from demo_upstream import Reply
from function_calls import tool
from parameter_validator import PARAMETERS
from parameter_values import REFUSED, TUNING

Json = dict[str, Any]

MODEL = "claude-opus-4-5"
JSON_PLEASE: list[Json] = [{"role": "user", "content": "Go, in JSON"}]
SCHEMA: Json = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
FORMAT: Json = {"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMA, "strict": True}}
OLD = {"name": "weather", "parameters": SCHEMA}


def post(server: Server, **parameters: Any) -> httpx.Response:
    """Send a chat completion as it is."""
    return send(server, {"model": MODEL, "messages": JSON_PLEASE, **parameters})


def seen(server: Server) -> Json:
    """The body that the model's API got last."""
    body: Json = server.upstream.messages_requests()[-1].body
    return body


Check = Callable[[Json, httpx.Response], bool]


def part(**expected: Any) -> Check:
    """Check that the API's body has these fields."""
    return lambda body, _answer: {name: body.get(name) for name in expected} == expected


def answers(server_url: httpx.URL, path: str) -> bool:
    """Whether the server knows something."""
    return httpx.get(server_url.join(path), timeout=30).status_code == 200


HONOURED: Mapping[str, tuple[Json, Check]] = {
    "model": ({"model": "claude-haiku-4-5"}, part(model="claude-haiku-4-5")),
    "messages": (
        {"messages": [{"role": "system", "content": "Be."}, {"role": "user", "content": "Hi"}]},
        lambda body, _answer: (
            body["system"][-1]["text"] == "Be." and body["messages"][-1]["content"][0]["text"] == "Hi"
        ),
    ),
    "stream": ({"stream": True}, lambda _, answer: answer.text.endswith("data: [DONE]\n\n")),
    "stream_options": (
        {"stream": True, "stream_options": {"include_usage": True}},
        lambda _, answer: '"usage":{"prompt_tokens":' in answer.text,
    ),
    "session_id": ({"session_id": "mine"}, lambda _, answer: answers(answer.url, "/v1/sessions/mine")),
    "enable_tools": (
        {"enable_tools": True},
        lambda body, _answer: [each["name"] for each in body["tools"]] == ["Glob", "Grep", "Read"],
    ),
    "max_completion_tokens": ({"max_completion_tokens": 77}, part(max_tokens=77)),
    "max_tokens": ({"max_tokens": 78}, part(max_tokens=78)),
    "n": ({"n": 2}, lambda _, answer: [each["index"] for each in answer.json()["choices"]] == [0, 1]),
    "stop": ({"stop": ["END", "Stop"]}, part(stop_sequences=["END", "Stop"])),
    "temperature": ({"temperature": 0.3}, part(temperature=0.3)),
    "top_p": ({"top_p": 0.4}, part(top_p=0.4)),
    "tools": ({"tools": [tool("mine")]}, lambda body, _answer: [each["name"] for each in body["tools"]] == ["mine"]),
    "tool_choice": (
        {"tools": [tool()], "tool_choice": "required"},
        part(tool_choice={"type": "any"}),
    ),
    "parallel_tool_calls": (
        {"tools": [tool()], "parallel_tool_calls": False},
        part(tool_choice={"type": "auto", "disable_parallel_tool_use": True}),
    ),
    "functions": ({"functions": [OLD]}, lambda body, _answer: [each["name"] for each in body["tools"]] == ["weather"]),
    "function_call": (
        {"functions": [OLD], "function_call": {"name": "weather"}},
        part(tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True}),
    ),
    "response_format": (
        {"response_format": FORMAT},
        lambda body, _answer: body["output_config"]["format"]["schema"] == {**SCHEMA, "additionalProperties": False},
    ),
    "reasoning_effort": (
        {"reasoning_effort": "low"},
        lambda body, _answer: body["output_config"]["effort"] == "low" and body["thinking"]["type"] == "enabled",
    ),
    "service_tier": ({"service_tier": "default"}, part(service_tier="standard_only")),
}
"""What is sent, and what the API's body has to have, for each parameter that takes effect."""

SOMETHING = {**TUNING, **REFUSED}
NAMES_OF = {
    fate: sorted(name for name, row in PARAMETERS.items() if row.fate == fate) for fate in ("ignored", "refused")
}
# What one request tells of the moment it was made.
MOMENTARY = frozenset({"metadata"})


def test_every_row_has_its_case() -> None:
    """The rows that take effect are the cases here."""
    assert {name for name, row in PARAMETERS.items() if row.fate in ("supported", "mapped")} == set(HONOURED)


@pytest.mark.parametrize("name", HONOURED)
def test_what_claude_has_is_in_the_body_and_gone_in_the_next(server: Server, name: str) -> None:
    """A parameter that takes effect is in the API's body, and in that of the next request nothing of it is."""
    parameters, is_there = HONOURED[name]
    before = post(server)
    plain = {key: value for key, value in seen(server).items() if key not in MOMENTARY}
    assert before.status_code == 200
    answer = post(server, **parameters)
    assert answer.status_code == 200, answer.text
    assert "x-claude-ignored-params" not in answer.headers
    assert is_there(seen(server), answer), seen(server)
    assert post(server).status_code == 200
    assert {key: value for key, value in seen(server).items() if key not in MOMENTARY} == plain


def test_parameters_together_are_gone_in_the_next(server: Server) -> None:
    """Also what one sets for another's sake, as a limit of tokens for the budget of thinking."""
    post(server)
    plain = {key: value for key, value in seen(server).items() if key not in MOMENTARY}
    together: Json = {"max_tokens": 64_000, "reasoning_effort": "xhigh", "response_format": FORMAT, "stop": "END"}
    answer = post(server, **together, tools=[tool()], parallel_tool_calls=False, model="claude-sonnet-4-5")
    assert answer.status_code == 200, answer.text
    assert (seen(server)["max_tokens"], seen(server)["thinking"]["budget_tokens"]) == (64_000, 31_999)
    post(server, **{**together, "max_tokens": 2048}, model="claude-sonnet-4-5")
    assert (seen(server)["max_tokens"], seen(server)["thinking"]["budget_tokens"]) == (2048, 2047)
    assert post(server).status_code == 200
    assert {key: value for key, value in seen(server).items() if key not in MOMENTARY} == plain


@pytest.mark.parametrize("name", NAMES_OF["ignored"])
def test_what_claude_lacks_is_named(server: Server, name: str) -> None:
    """A parameter without effect changes nothing in the API's body, and the answer's header has its name."""
    post(server)
    plain = {key: value for key, value in seen(server).items() if key not in MOMENTARY}
    answer = post(server, **{name: SOMETHING.get(name, 1)})
    assert (answer.status_code, answer.headers["x-claude-ignored-params"]) == (200, name)
    assert {key: value for key, value in seen(server).items() if key not in MOMENTARY} == plain


@pytest.mark.parametrize("name", NAMES_OF["refused"])
def test_what_would_mislead_is_refused(server: Server, name: str) -> None:
    """A parameter that would make another answer is a 400 of its name, and nothing is asked of the model."""
    answer = post(server, **{name: SOMETHING[name]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
    assert not server.upstream.messages_requests()


@pytest.fixture
def strict(serve: ServerFactory) -> Server:
    """A server that ignores nothing."""
    return serve(strict_parameters=True)


def test_a_strict_server_refuses_what_it_would_ignore(strict: Server) -> None:
    """Each ignored parameter is a 400 of its name, so is one that nobody knows, and what would be sent otherwise."""
    for name in NAMES_OF["ignored"]:
        answer = post(strict, **{name: SOMETHING.get(name, 1)})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
    detail: Json = {"type": "image_url", "image_url": {"url": "https://images.invalid/a.png", "detail": "low"}}
    adjusted: list[tuple[str, Json]] = [
        ("messages.[0].content.[0].image_url.detail", {"messages": [{"role": "user", "content": [detail]}]}),
        ("temperature", {"temperature": 1.5}),
        ("stop", {"stop": [" "]}),
        ("max_tokens", {"max_tokens": 5, "max_completion_tokens": 6}),
        ("service_tier", {"service_tier": "flex"}),
        ("reasoning_effort", {"reasoning_effort": "none", "model": "sonnet"}),
        ("reasoning_effort", {"reasoning_effort": "high", "max_tokens": 9}),
    ]
    for place, parameters in adjusted:
        error = post(strict, **parameters).json()["error"]
        assert (error["param"], error["code"]) == (place, "unsupported_value")
        told = httpx.post(f"{strict.url}/v1/compatibility", json=parameters, timeout=30).json()
        known = parameters.get("reasoning_effort") != "none"  # Which model thinks always a body alone doesn't tell.
        assert [row["parameter"] for row in told["refused"]] == ([place.partition(".")[0]] if known else [])
    error = post(strict, enable_thinking=True).json()["error"]
    assert (error["param"], error["code"]) == ("enable_thinking", "unknown_parameter")
    assert not strict.upstream.messages_requests()
    assert post(strict, temperature=0.5, n=1, logprobs=False, store=False, user=None).status_code == 200


def test_a_parameter_that_the_model_rejects_is_its_own_400(server: Server) -> None:
    """What the model's API says of a parameter reaches the client as it is, and the next request is answered."""
    message = "temperature: this model takes none."
    server.upstream.script(Reply(status=400, error_message=message), times=None)
    answer = post(server, temperature=0.2)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == message
    server.upstream.reset()
    assert post(server).status_code == 200


@pytest.mark.parametrize(("login", "tier"), [("anthropic", "auto"), ("oauth_token", None)])
def test_service_tiers_are_the_api_keys(
    serve: ServerFactory, api_key_environment: Mapping[str, str], login: str, tier: str | None
) -> None:
    """Under another login there are none: then the parameter is ignored, and said to be."""
    environment = {**api_key_environment, "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-dummy-loopback-only"}
    server = serve(environment, claude_auth_method=login)
    answer = post(server, service_tier="auto")
    assert seen(server).get("service_tier") == tier
    assert ("x-claude-ignored-params" in answer.headers) == (tier is None)


def test_numbers_beyond_their_range_are_refused_as_openai_does(server: Server) -> None:
    """Each bound has OpenAI's code and the parameter's name."""
    cases: list[tuple[Json, str, str]] = [
        ({"temperature": 2.1}, "temperature", "decimal_above_max_value"),
        ({"temperature": -1}, "temperature", "decimal_below_min_value"),
        ({"top_p": 1.1}, "top_p", "decimal_above_max_value"),
        ({"stop": ["a"] * 5}, "stop", "array_above_max_length"),
        ({"n": 9}, "n", "integer_above_max_value"),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"reasoning_effort": "max"}, "reasoning_effort", "invalid_value"),
        ({"service_tier": "gold"}, "service_tier", "invalid_value"),
        ({"response_format": {"type": "yaml"}}, "response_format.type", "invalid_value"),
        ({"response_format": {}}, "response_format.type", "missing_required_parameter"),
    ]
    for parameters, param, code in cases:
        error = post(server, **parameters).json()["error"]
        assert (error["param"], error["code"]) == (param, code), json.dumps(error)
