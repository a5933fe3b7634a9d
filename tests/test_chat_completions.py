"""POST /v1/chat/completions, through the real app, the real CLI and the real openai client: answers and streams."""

import json
import re
import socket
from urllib.parse import urlsplit

import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from chat import HELLO, MODEL, a_client_left, post, sse_data
from conftest import Server
from demo_upstream import Gate, Reply

# So long takes a model that is slow enough for Claude Code to be told, between two events, not to ask once more.
_BETWEEN_DELTAS = 0.2

# Whole answers


def test_a_whole_completion_has_text_usage_and_cost(server: Server) -> None:
    """A whole answer carries the model's text, the CLI's token counts, and the turn's cost and session in headers."""
    server.upstream.script(
        Reply(
            text="Bonjour, monde",
            usage={
                "input_tokens": 7,
                "output_tokens": 5,
                "cache_read_input_tokens": 3,
                "cache_creation_input_tokens": 2,
            },
        )
    )
    response = server.client().chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)
    completion = response.parse()
    assert completion.choices[0].message.content == "Bonjour, monde"
    assert completion.choices[0].message.role == "assistant"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == MODEL
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{32}", completion.id)
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == 7 + 3 + 2
    assert completion.usage.completion_tokens == 5
    assert completion.usage.total_tokens == 17
    assert completion.usage.prompt_tokens_details is not None
    assert completion.usage.prompt_tokens_details.cached_tokens == 3
    assert float(response.headers["x-claude-cost-usd"]) > 0
    assert response.headers["x-claude-session-id"]


def test_an_alias_answers_with_the_resolved_model(server: Server) -> None:
    """A request for one of Claude's aliases names the full model in its answer, and so does an operator's alias."""
    sonnet = server.client().chat.completions.create(model="sonnet", messages=HELLO)
    assert re.fullmatch(r"claude-sonnet-[\d-]+", sonnet.model)
    mapped = server.client().chat.completions.create(model="gpt-4o", messages=HELLO)
    assert mapped.model == MODEL


@pytest.mark.parametrize("model", ["claude-3-5-sonnet-20241022", "claude-3-5-haiku-20241022", "claude-opus-4-20250514"])
def test_every_claude_id_passes_through(server: Server, model: str) -> None:
    """Any claude-* id reaches the model API as it is, old ones too."""
    server.client().chat.completions.create(model=model, messages=HELLO)
    (request,) = server.upstream.messages_requests()
    assert request.body["model"] == model


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [("end_turn", "stop"), ("max_tokens", "length"), ("refusal", "content_filter"), ("stop_sequence", "stop")],
)
def test_a_stop_reason_ends_the_turn_after_one_request(server: Server, stop_reason: str, finish_reason: str) -> None:
    """Whatever ends the answer, it is given as it is and the CLI doesn't ask the model again by itself."""
    server.upstream.script(Reply(text="Half an ans", stop_reason=stop_reason, delta_delay=_BETWEEN_DELTAS), times=None)
    completion = server.client().chat.completions.create(model=MODEL, messages=HELLO, max_tokens=100)
    assert completion.choices[0].message.content == "Half an ans"
    assert completion.choices[0].finish_reason == finish_reason
    assert completion.usage is not None
    assert completion.usage.completion_tokens > 0
    assert len(server.upstream.messages_requests()) == 1


def test_an_empty_answer_is_an_empty_answer(server: Server) -> None:
    """A model that says nothing isn't prompted again in words of the CLI's."""
    server.upstream.script(Reply(text=[], delta_delay=_BETWEEN_DELTAS), times=None)
    completion = server.client().chat.completions.create(model=MODEL, messages=HELLO, max_tokens=100)
    assert completion.choices[0].message.content == ""
    assert len(server.upstream.messages_requests()) == 1


# Streams


def test_a_stream_has_openais_form(server: Server) -> None:
    """Role first, one chunk a delta, a finish chunk of its own, [DONE]; no usage unless asked; one id throughout."""
    server.upstream.script(Reply(text=["Bon", "jour", " !"]))
    response = post(server, model=MODEL, messages=HELLO, stream=True)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["x-claude-session-id"]
    *data, done = sse_data(response)
    assert done == "[DONE]"
    chunks = [json.loads(chunk) for chunk in data]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Bon"},
        {"content": "jour"},
        {"content": " !"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, None, "stop"]
    assert not any("usage" in chunk for chunk in chunks)
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert all(ChatCompletionChunk.model_validate(chunk, strict=True) for chunk in chunks)


def test_usage_streams_when_asked(client: openai.OpenAI) -> None:
    """With include_usage every chunk has a null usage but the last, which has no choices."""
    stream = client.chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = list(stream)
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens > 0


def test_a_delta_is_sent_at_once(server: Server) -> None:
    """The client holds a delta while the model is still writing the next."""
    gate = Gate(after=1)
    server.upstream.script(Reply(text=["first ", "second"], gate=gate))
    stream = server.client().chat.completions.create(model=MODEL, messages=HELLO, stream=True)
    received = iter(stream)
    assert next(received).choices[0].delta.role == "assistant"
    assert next(received).choices[0].delta.content == "first "
    gate.open()
    assert next(received).choices[0].delta.content == "second"
    assert [chunk.choices[0].finish_reason for chunk in received] == ["stop"]


def test_a_client_that_leaves_a_stream_stops_the_turn(server: Server) -> None:
    """Closing the connection in mid-stream closes the upstream's, too."""
    gate = Gate(after=1)
    server.upstream.script(Reply(text=["first ", "second"], gate=gate))
    with server.client().chat.completions.create(model=MODEL, messages=HELLO, stream=True) as stream:
        next(iter(stream))
    server.upstream.wait_for(a_client_left)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_before_the_first_word_stops_the_turn(server: Server, stream: bool) -> None:
    """Hanging up while the model hasn't begun to answer closes the upstream's connection."""
    server.upstream.script(Reply(hang=True))
    body = json.dumps({"model": MODEL, "messages": HELLO, "stream": stream})
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall((head + body).encode())
        server.upstream.wait_for(lambda upstream: bool(upstream.messages_requests()))
    server.upstream.wait_for(a_client_left)
