"""Every kind of answer, in the published client's own types, strictly: whole, streamed, and errors."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from chat import chunks, send, sse_data
from conftest import Server, ServerFactory
from demo_upstream import Reply, ToolCall
from function_calls import calling, scripted, tool

Json = dict[str, Any]

MODEL = "claude-sonnet-4-5"
PROMPT: list[Json] = [{"role": "user", "content": "Go, in JSON"}]
SCHEMA: Json = {"type": "object", "properties": {"x": {"type": "integer"}}}
OURS = frozenset({"reasoning_content", "claude"})
"""What we add to OpenAI's form, for those who ask for it."""

ANSWERS: Mapping[str, tuple[Json, Reply]] = {
    "text": ({}, Reply(text="Fine, thanks.")),
    "nothing": ({}, Reply(text=" ")),
    "cut short": ({"max_tokens": 2}, Reply(text="Fine", stop_reason="max_tokens")),
    "stopped": ({"stop": "x"}, Reply(text="Fine", stop_reason="stop_sequence", stop_sequence="x")),
    "paused": ({}, Reply(text="Fine", stop_reason="pause_turn")),
    "refused": ({}, Reply(text=None, stop_reason="refusal")),
    "refused in the middle": ({}, Reply(text="Well", stop_reason="refusal")),
    "refused behind a call": ({"tools": [tool()]}, calling("weather", text=None, stop_reason="refusal")),
    "calls": ({"tools": [tool()]}, calling("weather", "weather")),
    "calls alone": ({"tools": [tool()]}, calling("weather", text=None)),
    "old call": ({"functions": [{"name": "weather"}]}, calling("weather")),
    "thoughts": ({"reasoning_effort": "low"}, Reply(thinking="Hm", text="Fine")),
    "json": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMA}}},
        Reply(text='{"x": 1}'),
    ),
    "object": (
        {"response_format": {"type": "json_object"}},
        Reply(tool_calls=[ToolCall("StructuredOutput", {"x": 1})]),
    ),
    "choices": ({"n": 3}, Reply(text="Fine")),
}


def post(server: Server, headers: dict[str, str] | None = None, **parameters: Any) -> httpx.Response:
    """Send a chat completion as it is."""
    return send(server, {"model": MODEL, "messages": PROMPT, **parameters}, headers)


def extras(value: Any) -> set[str]:
    """The fields that the published types don't know, at any depth."""
    if isinstance(value, list):
        return {name for each in value for name in extras(each)}
    if not hasattr(value, "model_fields_set"):
        return set()
    own = {*(value.model_extra or {})}
    return own.union(*(extras(getattr(value, name)) for name in type(value).model_fields))


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_whole_answer_is_of_the_published_type(server: Server, kind: str) -> None:
    """Each field has its exact type, none is missing, and none is unknown but those that were asked for."""
    parameters, reply = ANSWERS[kind]
    server.upstream.script(reply, times=None)
    response = post(server, **parameters)
    assert response.status_code == 200, response.text
    completion = ChatCompletion.model_validate_json(response.text, strict=True)
    assert extras(completion) == ({"reasoning_content"} if kind == "thoughts" else set())
    assert len(completion.choices) == parameters.get("n", 1)
    # What the published types leave open, OpenAI's API always has.
    assert {"usage", "system_fingerprint", "service_tier"} <= response.json().keys()
    assert {"role", "content", "refusal"} <= response.json()["choices"][0]["message"].keys()


@pytest.mark.parametrize("kind", ANSWERS)
def test_each_chunk_is_of_the_published_type(server: Server, kind: str) -> None:
    """So is each chunk, and together they say what the whole answer says."""
    parameters, reply = ANSWERS[kind]
    server.upstream.script(reply, times=None)
    whole = post(server, **parameters).json()
    *streamed, done = sse_data(post(server, **parameters, stream=True, stream_options={"include_usage": True}))
    assert done == "[DONE]"
    parsed = [ChatCompletionChunk.model_validate_json(chunk, strict=True) for chunk in streamed]
    assert {name for chunk in parsed for name in extras(chunk)} == (
        {"reasoning_content"} if kind == "thoughts" else set()
    )
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in parsed}) == 1
    for choice in whole["choices"]:
        own = [each for chunk in parsed for each in chunk.choices if each.index == choice["index"]]
        assert [each.finish_reason for each in own if each.finish_reason] == [choice["finish_reason"]]
        assert ("".join(each.delta.content or "" for each in own) or None) == (choice["message"]["content"] or None)
        refusals = "".join(each.delta.refusal or "" for each in own)
        assert (refusals or None) == choice["message"]["refusal"]
        assert own[0].delta.role == "assistant"


def test_a_refusal_tells_why_where_claude_does(server: Server) -> None:
    """`refusal` is what Claude's API explains, or a sentence of ours; what was said before it stays the content."""
    choice = post_refused(server, Reply(text="Well,", stop_reason="refusal"))
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Well,", "content_filter")
    assert choice["message"]["refusal"]
    choice = post_refused(server, Reply(text=None, stop_reason="refusal", refusal="It is against the policy."))
    assert (choice["message"]["content"], choice["message"]["refusal"]) == (None, "It is against the policy.")
    choice = post_refused(server, calling("weather", text=None, stop_reason="refusal"))
    assert (bool(choice["message"]["refusal"]), choice["finish_reason"]) == (True, "content_filter")
    choice = post_refused(server, Reply(text=None, stop_reason="refusal", refusal="It is against the policy."))
    # A client sends it back as it came.
    history = [*PROMPT, {"role": "assistant", "content": None, "refusal": choice["message"]["refusal"]}, *PROMPT]
    assert post(server, messages=history).status_code == 200


def post_refused(server: Server, reply: Reply) -> Json:
    """Have a request refused; return the choice."""
    scripted(server, reply)
    choice: Json = post(server).json()["choices"][0]
    return choice


@pytest.mark.parametrize("stream", [False, True])
def test_usage_in_full_is_claude_codes_own(server: Server, stream: bool) -> None:
    """Who asks for it gets the cost and the tokens as Claude Code counts them, beside OpenAI's; others don't."""
    usage = {
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_read_input_tokens": 3,
        "cache_creation_input_tokens": 2,
    }
    plain = usage_told(server, Reply(text="Fine", usage=usage), None, stream=stream)
    told = usage_told(server, Reply(text="Fine", usage=usage), {"X-Claude-Usage": "full"}, stream=stream)
    claude = told.pop("claude")
    assert (plain, plain["prompt_tokens"], plain["prompt_tokens_details"]["cached_tokens"]) == (told, 15, 3)
    cost = claude.pop("cost_usd")
    assert (claude, cost > 0) == (usage, True)


def usage_told(server: Server, reply: Reply, headers: dict[str, str] | None, *, stream: bool) -> Json:
    """The usage of an answer."""
    scripted(server, reply)
    if stream:
        response = post(server, headers, stream=True, stream_options={"include_usage": True})
        last: Json = chunks(response)[-1]["usage"]
        return last
    whole: Json = post(server, headers).json()["usage"]
    return whole


def test_usage_has_one_other_form(server: Server) -> None:
    """Any other value of the header is a 400 that names it."""
    response = post(server, {"X-Claude-Usage": "some"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_header")


ERRORS: Mapping[str, tuple[Json, Reply | None, int]] = {
    "wrong value": ({"temperature": 3}, None, 400),
    "refused parameter": ({"logprobs": True}, None, 400),
    "unknown model": ({"model": "gpt-2"}, None, 404),
    "rejected": ({}, Reply(status=400, error_message="no"), 400),
    "too long": ({}, Reply(status=400, error_message="prompt is too long: 9 tokens > 8 maximum"), 400),
    "limited": ({}, Reply(status=429, headers={"retry-after": "7"}), 429),
    "overloaded": ({}, Reply(status=529), 503),
    "failed": ({}, Reply(status=500), 500),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ERRORS)
def test_each_error_has_the_envelope(server: Server, kind: str, stream: bool) -> None:
    """Four keys, of these types, and a status, streamed or not: no error comes with a 200."""
    parameters, reply, status = ERRORS[kind]
    if reply:
        server.upstream.script(reply, times=None)
    response = post(server, **parameters, stream=stream)
    assert response.status_code == status
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert all(isinstance(error[name], str) and error[name] for name in ("message", "type"))
    assert all(error[name] is None or isinstance(error[name], str) for name in ("param", "code"))
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["x-should-retry"] in ("true", "false")


def test_a_failure_in_mid_stream_is_an_event(server: Server) -> None:
    """Whatever came before it is of the published type, it has the envelope, and no [DONE] follows."""
    server.upstream.script(Reply(text=["One", "two", "three"], error_after=2, delta_delay=0.1), times=None)
    *earlier, last = sse_data(post(server, stream=True))
    for chunk in earlier:
        ChatCompletionChunk.model_validate_json(chunk, strict=True)
    assert json.loads(last)["error"].keys() == {"message", "type", "param", "code"}


def test_headers_of_the_operator_go_along(serve: ServerFactory) -> None:
    """ANTHROPIC_CUSTOM_HEADERS reach Claude's API, a beta beside Claude Code's own."""
    server = serve(anthropic_custom_headers='{"anthropic-beta": "mine-2024-10-01", "X-Team": "a: b"}')
    assert post(server).status_code == 200
    headers = server.upstream.messages_requests()[-1].headers
    assert (headers["x-team"], "mine-2024-10-01" in headers["anthropic-beta"].split(",")) == ("a: b", True)
    assert len(headers["anthropic-beta"].split(",")) > 2
