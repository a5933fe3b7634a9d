"""openai-python, sync and async: `create`, `parse`, `stream`, functions, retries, every error."""

from typing import Any

import openai
import pytest
from pydantic import BaseModel

from conftest import NOWHERE, Server, ServerFactory
from demo_upstream import Reply
from published_clients import ANSWER, CITY, MODEL, PROPERTIES, QUESTION, demanded


class City(BaseModel):
    """An answer's form."""

    name: str
    people: int


ROME = City.model_validate(CITY)
ASKED: Any = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}]}


def test_create_parse_and_stream(server: Server) -> None:
    """A text, an object, and a text in pieces with its usage."""
    client = server.client()
    server.upstream.script(Reply(text=ANSWER))
    assert client.chat.completions.create(**ASKED).choices[0].message.content == ANSWER

    server.upstream.script(Reply(text=ROME.model_dump_json()))
    assert client.chat.completions.parse(**ASKED, response_format=City).choices[0].message.parsed == ROME

    server.upstream.script(Reply(text=ROME.model_dump_json()))
    with client.chat.completions.stream(**ASKED, response_format=City) as stream:
        kinds = {event.type for event in stream}
        assert stream.get_final_completion().choices[0].message.parsed == ROME
    assert demanded(server.upstream)[1:] == [("format", PROPERTIES)] * 2
    assert kinds >= {"chunk", "content.delta", "content.done"}

    server.upstream.script(Reply(text=ANSWER))
    options: Any = {"stream": True, "stream_options": {"include_usage": True}}
    *pieces, last = client.chat.completions.create(**ASKED, **options)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == ANSWER
    assert len(pieces) > 3
    assert (last.choices, last.usage.total_tokens > 0) == ([], True)


@pytest.mark.asyncio
async def test_create_parse_and_stream_async(server: Server) -> None:
    """The same of the asynchronous client."""
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        server.upstream.script(Reply(text=ANSWER))
        assert (await client.chat.completions.create(**ASKED)).choices[0].message.content == ANSWER

        server.upstream.script(Reply(text=ROME.model_dump_json()))
        parsed = await client.chat.completions.parse(**ASKED, response_format=City)
        assert parsed.choices[0].message.parsed == ROME

        server.upstream.script(Reply(text=ROME.model_dump_json()))
        async with client.chat.completions.stream(**ASKED, response_format=City) as stream:
            assert (await stream.get_final_completion()).choices[0].message.parsed == ROME
    assert demanded(server.upstream)[1:] == [("format", PROPERTIES)] * 2


ERRORS: list[tuple[int, type[openai.APIStatusError], int]] = [
    (400, openai.BadRequestError, 400),
    (401, openai.AuthenticationError, 401),
    (402, openai.APIStatusError, 402),
    (403, openai.PermissionDeniedError, 403),
    (404, openai.NotFoundError, 404),
    (409, openai.ConflictError, 409),
    (413, openai.APIStatusError, 413),
    (429, openai.RateLimitError, 429),
    (500, openai.InternalServerError, 500),
    (502, openai.InternalServerError, 502),
    (504, openai.InternalServerError, 504),
    (529, openai.InternalServerError, 503),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("status", "kind", "ours"), ERRORS)
def test_every_error_has_its_class(
    server: Server, status: int, kind: type[openai.APIStatusError], ours: int, *, stream: bool
) -> None:
    """Before a stream begins, too; with our id, a message and a type."""
    server.upstream.script(Reply(status=status), times=None)
    with pytest.raises(kind) as caught:
        server.client().chat.completions.create(**ASKED, stream=stream)
    assert caught.value.status_code == ours
    assert caught.value.request_id
    assert caught.value.type
    assert isinstance(caught.value.body, dict)
    assert caught.value.body.keys() >= {"message", "type", "param", "code"}


@pytest.mark.asyncio
async def test_errors_of_the_server_itself_have_their_classes(serve: ServerFactory) -> None:
    """A wrong key, an unknown model, a body over its limit, a time that is over, and an address over its limit."""
    limits: dict[str, Any] = {"rate_limit_enabled": True, "rate_limit_chat_per_minute": 4, "max_request_size": 2000}
    server = serve(api_key="right", max_timeout=6000, **limits)
    server.upstream.script(Reply(hang=True), times=None)
    options: Any = {"base_url": f"{server.url}/v1", "max_retries": 0}
    async with openai.AsyncOpenAI(api_key="wrong", **options) as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.chat.completions.create(**ASKED)
    async with openai.AsyncOpenAI(api_key="right", **options) as client:
        ask = client.chat.completions.create
        with pytest.raises(openai.NotFoundError):
            await ask(model="no-such-model", messages=ASKED["messages"])
        with pytest.raises(openai.APIStatusError, match="413"):
            await ask(model=MODEL, messages=[{"role": "user", "content": "x" * 2000}])
        with pytest.raises(openai.InternalServerError) as caught:
            await ask(**ASKED)
        assert caught.value.status_code == 504
        with pytest.raises(openai.RateLimitError):
            await ask(**ASKED)


def test_a_stream_that_breaks_off_is_an_error(server: Server) -> None:
    """What was written arrives, and then the error; a stream that can't be trusted never just ends."""
    server.upstream.script(Reply(text=ANSWER, error_after=3))
    stream = server.client().chat.completions.create(**ASKED, stream=True)
    text = "".join(next(stream).choices[0].delta.content or "" for _ in range(3))
    assert text
    assert ANSWER.startswith(text)
    with pytest.raises(openai.APIError):
        list(stream)


def test_who_is_not_answered_in_time_is_told(server: Server) -> None:
    """The client's own patience, and nobody at the address, have classes of their own."""
    server.upstream.script(Reply(hang=True))
    with pytest.raises(openai.APITimeoutError):
        server.client(timeout=0.5).chat.completions.create(**ASKED)
    with pytest.raises(openai.APIConnectionError):
        openai.OpenAI(base_url=f"{NOWHERE}/v1", api_key="any", max_retries=0).chat.completions.create(**ASKED)


def test_what_can_be_tried_again_is(serve: ServerFactory) -> None:
    """The client's retries, where the server says that they make sense, and no others."""
    server = serve()
    server.upstream.script(Reply(status=529))
    completion = server.client(max_retries=1).chat.completions.create(**ASKED)
    assert completion.choices[0].finish_reason == "stop"

    server.upstream.reset()
    server.upstream.script(Reply(status=401), times=None)
    with pytest.raises(openai.AuthenticationError):
        server.client(max_retries=3).chat.completions.create(**ASKED)
    assert len(server.upstream.messages_requests()) == 1
