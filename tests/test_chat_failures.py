"""What a client gets where a chat completion fails, upstream, here, or by its own fault."""

import json
from typing import Any

import httpx
import openai
import pytest

from chat import HELLO, MODEL, a_client_left, post, sse_data
from conftest import Server, ServerFactory, clean_environment
from demo_upstream import Gate, Reply, ToolCall

# Failures

UPSTREAM_ERRORS = [
    # Claude Code asks again after 400 and 404, without a beta header and without streaming: neither is billed.
    (400, 400, openai.BadRequestError),
    (401, 401, openai.AuthenticationError),
    (403, 403, openai.PermissionDeniedError),
    (404, 404, openai.NotFoundError),
    (413, 413, openai.APIStatusError),
    (429, 429, openai.RateLimitError),
    (500, 500, openai.InternalServerError),
    (529, 503, openai.InternalServerError),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("upstream_status", "status", "error_class"), UPSTREAM_ERRORS)
def test_an_upstream_error_keeps_its_status(
    server: Server, upstream_status: int, status: int, error_class: type[openai.APIStatusError], stream: bool
) -> None:
    """An error of Claude's API is the response's status in OpenAI's envelope, streamed or not."""
    server.upstream.script(Reply(status=upstream_status, error_message="no such luck"), times=None)
    with pytest.raises(error_class) as caught:
        server.client().chat.completions.create(model=MODEL, messages=HELLO, stream=stream)
    assert caught.value.status_code == status
    assert set(caught.value.response.json()["error"]) == {"message", "type", "param", "code"}
    assert len(server.upstream.messages_requests()) <= (2 if upstream_status in (400, 404) else 1)


def test_upstreams_404_is_an_unknown_model(client: openai.OpenAI, server: Server) -> None:
    """A claude-* id that Claude doesn't know comes back as OpenAI's model_not_found."""
    server.upstream.script(Reply(status=404), times=None)
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="claude-unheard-of-9", messages=HELLO)
    assert caught.value.code == "model_not_found"
    assert "`claude-unheard-of-9` does not exist" in caught.value.message


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_that_cant_stream_is_answered_all_the_same(server: Server, stream: bool) -> None:
    """Where a gateway knows no streaming, Claude Code asks for the whole message; the client gets it in its form."""
    server.upstream.script(Reply(status=404), when=lambda body: bool(body["stream"]))
    server.upstream.script(Reply(text="In one piece"))
    response = post(server, model=MODEL, messages=HELLO, stream=stream)
    assert response.status_code == 200
    assert "In one piece" in response.text


@pytest.mark.parametrize("how", [{"cut_after": 1}, {"error_after": 1}])
def test_a_failure_in_mid_stream_is_an_error_event(server: Server, how: dict[str, int]) -> None:
    """After the first chunk a failure is an SSE error event, and the openai client raises; nothing is asked again."""
    gate = Gate(after=1)
    server.upstream.script(Reply(text=["one ", "two "], gate=gate, **how), times=None)  # type: ignore[arg-type]
    chunks = iter(server.client().chat.completions.create(model=MODEL, messages=HELLO, stream=True))
    assert [next(chunks).choices[0].delta.content for _ in range(2)] == ["", "one "]
    gate.open()
    with pytest.raises(openai.APIError) as caught:
        list(chunks)
    assert caught.value.code == "upstream_error"
    assert len(server.upstream.messages_requests()) == 1


def test_a_failed_stream_has_no_done(server: Server) -> None:
    """The error event ends the stream: no finish_reason and no [DONE] make it look like an answer."""
    server.upstream.script(Reply(text=["one ", "two "], error_after=1))
    *chunks, last = sse_data(post(server, model=MODEL, messages=HELLO, stream=True))
    assert set(json.loads(last)["error"]) == {"message", "type", "param", "code"}
    assert not any(json.loads(chunk)["choices"][0]["finish_reason"] for chunk in chunks)


def test_a_failed_request_leaves_the_next_one_alone(client: openai.OpenAI, server: Server) -> None:
    """After an error the server answers as before."""
    server.upstream.script(Reply(status=500))
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model=MODEL, messages=HELLO)
    assert client.chat.completions.create(model=MODEL, messages=HELLO).choices[0].message.content


def test_an_upstream_error_names_no_address_of_ours(server: Server) -> None:
    """Where the CLI's prose names the upstream's address, the client doesn't get to see it."""
    server.upstream.script(Reply(status=529))
    response = post(server, model=MODEL, messages=HELLO)
    assert "127.0.0.1" not in response.text


def test_a_request_that_takes_too_long_is_a_504(serve: ServerFactory) -> None:
    """MAX_TIMEOUT ends a turn that hangs, and the upstream's connection with it."""
    server = serve(max_timeout=5)
    server.upstream.script(Reply(hang=True))
    with pytest.raises(openai.InternalServerError) as caught:
        server.client().chat.completions.create(model=MODEL, messages=HELLO)
    assert caught.value.status_code == 504
    server.upstream.wait_for(a_client_left)


def test_without_a_login_the_401_says_how_to_log_in(serve: ServerFactory) -> None:
    """No login is a clear error: never an answer from anywhere else."""
    server = serve(clean_environment())
    with pytest.raises(openai.AuthenticationError) as caught:
        server.client().chat.completions.create(model=MODEL, messages=HELLO)
    assert "ANTHROPIC_API_KEY" in caught.value.message
    assert "claude /login" in caught.value.message


# Bad input


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"messages": HELLO}, "model", "missing_required_parameter"),
        ({"model": MODEL}, "messages", "missing_required_parameter"),
        ({"model": MODEL, "messages": []}, "messages", "empty_array"),
        ({"model": MODEL, "messages": "Hello"}, "messages", "invalid_type"),
        ({"model": MODEL, "messages": [{"role": "wizard", "content": "Hi"}]}, "messages.[0].role", "invalid_value"),
        ({"model": MODEL, "messages": [{"role": "user", "content": 5}]}, "messages.[0].content", "invalid_type"),
        ({"model": MODEL, "messages": [{"role": "user"}]}, "messages.[0].content", "missing_required_parameter"),
        ({"model": MODEL, "messages": HELLO, "stream": "yes"}, "stream", "invalid_type"),
        ({"model": MODEL, "messages": HELLO, "stream_options": {"include_usage": True}}, "stream_options", None),
        ({"model": MODEL, "messages": HELLO, "n": 9}, "n", "integer_above_max_value"),
    ],
)
def test_bad_input_is_a_400_that_names_the_field(
    server: Server, body: dict[str, Any], param: str, code: str | None
) -> None:
    """A body that is wrong gets OpenAI's envelope with `param`, and no upstream request is made."""
    response = post(server, **body)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, code)
    assert error["type"] == "invalid_request_error"
    assert not server.upstream.messages_requests()


def test_an_unknown_role_is_named(server: Server) -> None:
    """The message of the 400 names the role that was sent."""
    response = post(server, model=MODEL, messages=[{"role": "wizard", "content": "Hi"}])
    assert "wizard" in response.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"null", b"\xff\xfe", b'{"model": NaN}'])
def test_a_body_that_is_no_json_object_is_a_400(server: Server, body: bytes) -> None:
    """Anything but a JSON object gets a clear 400 in the envelope."""
    response = httpx.post(f"{server.url}/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_explicit_nulls_are_like_nothing(server: Server) -> None:
    """Null for an optional parameter is the same as leaving it out."""
    response = post(server, model=MODEL, messages=HELLO, stream=None, stream_options=None, tools=None, temperature=None)
    assert response.status_code == 200
    assert "x-claude-ignored-params" not in response.headers


def test_an_ignored_parameter_is_named(server: Server) -> None:
    """A parameter without effect is listed in the response, streamed or not."""
    for stream in (False, True):
        response = post(server, model=MODEL, messages=HELLO, user="me", seed=1, stream=stream)
        assert response.headers["x-claude-ignored-params"] == "seed, user"


def test_sampling_parameters_reach_the_model_under_claudes_names(server: Server) -> None:
    """What Claude has is in the upstream request, and what was sent otherwise than it came is reported."""
    parameters = {"temperature": 1.5, "top_p": 0.9, "stop": ["\n\n", "User:"], "max_tokens": 500}
    response = post(server, model=MODEL, messages=HELLO, **parameters)
    expected = {"temperature": 1, "top_p": 0.9, "stop_sequences": ["User:"], "max_tokens": 500}
    (request,) = server.upstream.messages_requests()
    assert {name: request.body[name] for name in expected} == expected
    assert response.headers["x-claude-ignored-params"] == "stop, temperature"


def test_a_stop_string_and_a_limit_end_the_answer(client: openai.OpenAI) -> None:
    """`stop` ends before the string, `max_completion_tokens` with finish_reason `length`."""
    stopped = client.chat.completions.create(model=MODEL, messages=HELLO, stop="demo").choices[0]
    limited = client.chat.completions.create(model=MODEL, messages=HELLO, max_completion_tokens=2).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == ("This is claude-wrapper's ", "stop")
    assert (limited.message.content, limited.finish_reason) == ("This is ", "length")


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("temperature", -0.1, "decimal_below_min_value"),
        ("temperature", 2.1, "decimal_above_max_value"),
        ("top_p", 1.1, "decimal_above_max_value"),
        ("max_tokens", 0, "integer_below_min_value"),
        ("stop", ["a", "b", "c", "d", "e"], "array_above_max_length"),
        ("stop", 5, "invalid_type"),
        ("temperature", "warm", "invalid_type"),
    ],
)
def test_a_sampling_parameter_out_of_its_range_is_a_400(server: Server, name: str, value: object, code: str) -> None:
    """OpenAI's codes, with the parameter's name, and nothing is spent."""
    response = post(server, model=MODEL, messages=HELLO, **{name: value})
    assert response.status_code == 400
    assert (response.json()["error"]["param"], response.json()["error"]["code"]) == (name, code)
    assert not server.upstream.messages_requests()


def test_an_unknown_model_is_a_404_and_spends_nothing(client: openai.OpenAI, server: Server) -> None:
    """A foreign model that nobody mapped is refused before a process or a request is spent on it."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-3.5-turbo", messages=HELLO)
    assert caught.value.code == "model_not_found"
    assert not server.upstream.messages_requests()


def test_a_prompt_too_long_for_its_model_is_context_length_exceeded(client: openai.OpenAI, server: Server) -> None:
    """A prompt beyond the model's window is a 400 of its own code, and nothing is compacted or sent."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "word " * 300_000}])
    assert caught.value.code == "context_length_exceeded"
    assert not server.upstream.messages_requests()


def test_upstreams_too_long_is_context_length_exceeded(client: openai.OpenAI, server: Server) -> None:
    """Where Claude's API itself finds the prompt too long, the client gets the same code."""
    too_long = "prompt is too long: 210000 tokens > 200000 maximum"
    server.upstream.script(Reply(status=400, error_message=too_long))
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO)
    assert caught.value.code == "context_length_exceeded"


def test_a_body_over_the_limit_is_a_413(serve: ServerFactory) -> None:
    """MAX_REQUEST_SIZE holds for a body of known and of unknown length."""
    server = serve(max_request_size=1000)
    url = f"{server.url}/v1/chat/completions"
    for body in (b"x" * 2000, iter([b"x" * 600] * 3)):
        response = httpx.post(url, content=body)
        assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    "reply", [Reply(text="Wait", tool_calls=[ToolCall("nothing", {})]), Reply(text=["\n", " "])], ids=["tool", "blank"]
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_claude_code_would_argue_with_is_final(server: Server, reply: Reply, stream: bool) -> None:
    """A call of a tool that nobody offered, and an answer of blanks, end the turn: one request, one answer."""
    server.upstream.script(reply)
    response = post(server, model=MODEL, messages=HELLO, stream=stream)
    assert response.status_code == 200
    assert '"finish_reason":"' in response.text.replace(" ", "")
    assert len(server.upstream.messages_requests()) == 1
