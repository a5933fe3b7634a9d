"""Answers in a form that the client wants: held to it by Claude's API, or by Claude Code; through the real CLI."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from chat import chunks, send
from conftest import Server, ServerFactory
from demo_upstream import RecordedRequest, Reply, ToolCall
from function_calls import calling, calls_of, needs_reuse, results, scripted, tool

Json = dict[str, Any]

MODEL = "claude-opus-4-1"
PROMPT: list[Json] = [{"role": "user", "content": "A city, as JSON, please."}]
SCHEMA: Json = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
}
VALUE = {"city": "Zürich", "people": 3}
FORMAT: Json = {"type": "json_schema", "json_schema": {"name": "a_city", "schema": SCHEMA, "strict": True}}
ANY_OBJECT: Json = {"type": "json_object"}
OUTPUT = "StructuredOutput"


class City(BaseModel):
    """What the published client makes a schema of."""

    city: str
    people: int


def answering(value: Json = VALUE, **more: Any) -> Reply:
    """A reply in which the model answers Claude Code's own tool."""
    return Reply(tool_calls=[ToolCall(OUTPUT, value)], **more)


def asks_for_a_form(body: Json) -> bool:
    """Whether a request wants Claude's API to hold the answer to a form."""
    return "format" in body.get("output_config", {})


def lacking(server: Server, *replies: Reply) -> None:
    """Let the model's API lack structured outputs, and otherwise give these replies, then "Fine."."""
    server.upstream.reset()
    message = "'claude-opus-4-1' does not support output format."
    server.upstream.script(Reply(status=400, error_message=message), when=asks_for_a_form, times=None)
    for reply in replies:
        server.upstream.script(reply)
    server.upstream.script(Reply(text="Fine."), times=None)


def requests(server: Server) -> list[RecordedRequest]:
    """What the model saw, less what its API refused."""
    return [record for record in server.upstream.messages_requests() if not asks_for_a_form(record.body)]


def post(server: Server, **parameters: Any) -> httpx.Response:
    """Send a chat completion as it is."""
    return send(server, {"model": MODEL, "messages": PROMPT, **parameters})


def pieces(response: httpx.Response) -> Iterator[str]:
    """The texts of a stream, one a chunk."""
    for chunk in chunks(response):
        for choice in chunk["choices"]:
            yield from filter(None, [choice["delta"].get("content")])


def answer_of(response: httpx.Response) -> Any:
    """The JSON that an answer is."""
    message = response.json()["choices"][0]["message"]
    assert not message.get("tool_calls")
    return json.loads(message["content"])


@pytest.mark.parametrize("stream", [False, True])
def test_the_published_client_parses_what_it_asked_for(server: Server, stream: bool) -> None:
    """A pydantic model goes to Claude's API as a schema, and its instance comes back, whole and streamed."""
    beta = server.client().chat.completions
    if stream:
        with beta.stream(model=MODEL, messages=PROMPT, response_format=City) as events:  # type: ignore[arg-type]
            completion = events.get_final_completion()
    else:
        completion = beta.parse(model=MODEL, messages=PROMPT, response_format=City)  # type: ignore[arg-type]
    assert completion.choices[0].message.parsed == City(city="string", people=3)
    (record,) = server.upstream.messages_requests()
    assert record.body["output_config"]["format"]["type"] == "json_schema"
    assert record.body["output_config"]["format"]["schema"]["additionalProperties"] is False
    assert record.body["tools"] == []


@pytest.mark.parametrize("response_format", [FORMAT, ANY_OBJECT], ids=["schema", "object"])
def test_an_answer_in_a_form_streams_while_it_is_written(server: Server, response_format: Json) -> None:
    """Its text comes in the pieces that the model writes, and nothing stands around it."""
    scripted(server, Reply(text=["{", '"city": ', '"Zürich", ', '"people": 3', "}"]))
    if response_format is ANY_OBJECT:
        scripted(server, answering())
    streamed = [*pieces(post(server, response_format=response_format, stream=True))]
    assert len(streamed) >= 4
    assert json.loads("".join(streamed)) == VALUE


def test_text_is_no_form(server: Server) -> None:
    """`text` is what is answered anyway: no form reaches the model, and nothing is named."""
    response = post(server, response_format={"type": "text"})
    assert (response.status_code, response.headers.get("x-claude-ignored-params")) == (200, None)
    body = server.upstream.messages_requests()[-1].body
    assert ("format" in body.get("output_config", {}), body["tools"]) == (False, [])


def test_any_object_is_claude_codes_to_hold(server: Server) -> None:
    """The model has one tool, with which it answers; nothing of it is in the answer, or in the next request."""
    scripted(server, answering())
    response = post(server, response_format=ANY_OBJECT)
    assert answer_of(response) == VALUE
    assert response.json()["choices"][0]["finish_reason"] == "stop"
    assert [each["name"] for each in server.upstream.messages_requests()[-1].body["tools"]] == [OUTPUT]
    history = [*PROMPT, {"role": "assistant", "content": json.dumps(VALUE)}, {"role": "user", "content": "And now?"}]
    assert post(server, messages=history).status_code == 200
    body = server.upstream.messages_requests()[-1].body
    assert body["tools"] == []
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][1]["content"] == [{"type": "text", "text": json.dumps(VALUE)}]


@needs_reuse
def test_a_process_that_holds_answers_is_used_again(serve: ServerFactory) -> None:
    """The next question for an object goes to it; one for something else doesn't, and none shows the other."""
    server = serve(max_processes=1, spare_processes=0)
    scripted(server, answering(), answering({"n": 2}))
    assert post(server, response_format=ANY_OBJECT).headers["x-claude-process"] == "spawned"
    other = [{"role": "user", "content": "Another JSON object."}]
    second = post(server, response_format=ANY_OBJECT, messages=other)
    assert answer_of(second) == {"n": 2}
    assert second.headers["x-claude-process"] == "recycled"
    assert len(server.upstream.messages_requests()[-1].body["messages"]) == 1
    assert post(server).headers["x-claude-process"] == "spawned"


def test_a_model_that_lacks_formats_is_held_by_claude_code(serve: ServerFactory) -> None:
    """Its API's 400 never reaches the client; it is asked once, and remembered for that model alone."""
    server = serve()
    lacking(server, answering())
    assert answer_of(post(server, response_format=FORMAT)) == VALUE
    assert [each["name"] for each in requests(server)[-1].body["tools"]] == [OUTPUT]
    assert requests(server)[-1].body["tools"][0]["input_schema"] == {**SCHEMA, "additionalProperties": False}
    lacking(server, answering())
    assert json.loads("".join(pieces(post(server, response_format=FORMAT, stream=True)))) == VALUE
    assert len(server.upstream.messages_requests()) == 1
    server.upstream.reset()
    assert post(server, response_format=FORMAT, model="claude-opus-4-5").status_code == 200
    assert asks_for_a_form(server.upstream.messages_requests()[-1].body)


def test_another_400_is_not_taken_for_that(server: Server) -> None:
    """What the API says of the schema, or of something else, is the client's to know, and nothing else is tried."""
    for message in ("output_config.format.schema: too complex, not supported", "max_tokens: not supported"):
        server.upstream.reset()
        server.upstream.script(Reply(status=400, error_message=message), times=None)
        response = post(server, response_format=FORMAT)
        assert (response.status_code, response.json()["error"]["message"]) == (400, message)
        assert all(asks_for_a_form(record.body) for record in server.upstream.messages_requests())


def test_a_model_that_gives_no_object_is_an_error(server: Server) -> None:
    """An answer that ends otherwise than it may, without the object, is none: it isn't passed off as an empty one."""
    scripted(server, Reply(text="No", stop_reason="pause_turn"))
    response = post(server, response_format=ANY_OBJECT)
    assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_error")


def test_while_a_function_has_to_be_called_there_is_nothing_to_answer_with(server: Server) -> None:
    """With `tool_choice: required` the model sees the client's functions alone; behind their results it answers."""
    scripted(server, calling("weather", text=None), answering())
    first = post(server, response_format=ANY_OBJECT, tools=[tool()], tool_choice="required").json()["choices"][0]
    assert [each["name"] for each in server.upstream.messages_requests()[-1].body["tools"]] == ["weather"]
    messages = [*PROMPT, first["message"]]
    messages += results(calls_of(messages), "21 °C")
    assert answer_of(post(server, response_format=ANY_OBJECT, tools=[tool()], messages=messages)) == VALUE


def test_a_session_may_have_spoken_of_json_before(serve: ServerFactory) -> None:
    """What the session remembers says it for the next turn, too."""
    server = serve()
    scripted(server, answering(), answering())
    for said in ("A city, as JSON.", "Another one."):
        messages = [{"role": "user", "content": said}]
        assert answer_of(post(server, response_format=ANY_OBJECT, messages=messages, session_id="s")) == VALUE


def test_a_description_of_the_form_reaches_the_model(server: Server) -> None:
    """It stands in the schema, where Claude finds it."""
    wanted = {**FORMAT, "json_schema": {**FORMAT["json_schema"], "description": "A city by a lake."}}
    assert post(server, response_format=wanted).status_code == 200
    schema = server.upstream.messages_requests()[-1].body["output_config"]["format"]["schema"]
    assert schema["description"] == "A city by a lake."


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_model_writes_beside_the_answer_is_left_out(server: Server, stream: bool) -> None:
    """Where it only talks, Claude Code asks again; the tokens of both are counted."""
    usage = {"input_tokens": 10, "output_tokens": 5}
    scripted(
        server,
        Reply(text="Here you are: nothing.", usage=usage),
        answering(text="Here is your JSON:", usage=usage),
    )
    options: Json = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    response = post(server, response_format=ANY_OBJECT, **options)
    if stream:
        assert json.loads("".join(pieces(response))) == VALUE
        told = chunks(response)[-1]["usage"]
    else:
        assert answer_of(response) == VALUE
        told = response.json()["usage"]
    assert (told["prompt_tokens"], told["completion_tokens"]) == (20, 10)
    assert len(server.upstream.messages_requests()) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_breaks_its_form_is_an_error(serve: ServerFactory, stream: bool) -> None:
    """A model without formats may answer with something else: never is that passed off as the answer."""
    server = serve()
    lacking(server, answering({"city": 5}), answering())
    response = post(server, response_format=FORMAT, stream=stream)
    if stream:
        assert '"error"' in response.text
        assert "[DONE]" not in response.text
    else:
        assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_error")
    assert post(server).status_code == 200


@pytest.mark.parametrize("said", [None, "Let me look."])
@pytest.mark.parametrize("held_by", ["api", "claude_code"])
def test_functions_are_called_beside_a_form(serve: ServerFactory, held_by: str, said: str | None) -> None:
    """The model calls a function of the client's, gets its result, and answers in the form.

    What it says beside its call the client gets where the API sees to the form, which would let pass nothing wrong.
    """
    server = serve()
    wanted, offered = FORMAT if held_by == "api" else ANY_OBJECT, [tool()]
    final = Reply(text=json.dumps(VALUE)) if held_by == "api" else answering()
    scripted(server, calling("weather", text=said), final)
    first = post(server, response_format=wanted, tools=offered).json()["choices"][0]
    content = said if held_by == "api" else None
    assert (first["finish_reason"], first["message"]["content"]) == ("tool_calls", content)
    names = [each["name"] for each in server.upstream.messages_requests()[-1].body["tools"]]
    assert names == (["weather"] if held_by == "api" else ["weather", OUTPUT])
    messages = [*PROMPT, first["message"]]
    messages += results(calls_of(messages), "21 °C")
    assert answer_of(post(server, response_format=wanted, tools=offered, messages=messages)) == VALUE


@pytest.mark.parametrize("wanted", [ANY_OBJECT, FORMAT], ids=["object", "schema"])
def test_functions_that_may_not_be_called_stay_out_of_the_way(serve: ServerFactory, wanted: Json) -> None:
    """With `tool_choice: none` Claude Code's own tool can still be called, and no other."""
    server = serve()
    lacking(server, answering())
    assert answer_of(post(server, response_format=wanted, tools=[tool()], tool_choice="none")) == VALUE
    body = server.upstream.messages_requests()[-1].body
    assert [each["name"] for each in body["tools"]] == [OUTPUT]
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


@pytest.mark.parametrize("response_format", [FORMAT, ANY_OBJECT], ids=["schema", "object"])
def test_an_answer_that_is_cut_short_says_so(server: Server, response_format: Json) -> None:
    """Half a JSON has `finish_reason: length`, as at OpenAI, and the published client's parse raises."""
    reply = Reply(text='{"city": ', stop_reason="max_tokens", delta_delay=0.3)
    if response_format is ANY_OBJECT:
        reply = answering(stop_reason="max_tokens")
    scripted(server, reply)
    choice = post(server, response_format=response_format, max_tokens=5).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    if response_format is FORMAT:
        scripted(server, reply)
        with pytest.raises(openai.LengthFinishReasonError):
            server.client().chat.completions.parse(model=MODEL, messages=PROMPT, response_format=City)  # type: ignore[arg-type]


@pytest.mark.parametrize("response_format", [FORMAT, ANY_OBJECT], ids=["schema", "object"])
def test_a_refusal_is_none_of_the_form(server: Server, response_format: Json) -> None:
    """A model that refuses says so in `refusal`, and its content is null."""
    scripted(server, Reply(text=None, stop_reason="refusal"))
    choice = post(server, response_format=response_format).json()["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("stop", None)
    assert choice["message"]["refusal"]


def test_what_cant_be_held_to_is_refused(server: Server) -> None:
    """A schema beyond Claude's means, one that is none, and an object that nobody speaks of are a 400 each."""
    bounded = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}
    cases: list[tuple[Json, str, str | None]] = [
        ({"response_format": _format(bounded)}, "response_format.json_schema.schema", "invalid_json_schema"),
        ({"response_format": _format({"type": 5})}, "response_format.json_schema.schema", "invalid_json_schema"),
        ({"response_format": ANY_OBJECT, "messages": [{"role": "user", "content": "Hi"}]}, "messages", None),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing_required_parameter"),
        ({"response_format": ANY_OBJECT, "tools": [tool(OUTPUT)]}, "tools[0].function.name", None),
        ({"response_format": FORMAT, "functions": [{"name": OUTPUT}]}, "functions[0].name", None),
    ]
    for parameters, param, code in cases:
        error = post(server, **parameters).json()["error"]
        assert (error["param"], error["code"]) == (param, code), error
    assert not server.upstream.messages_requests()


def _format(schema: Json) -> Json:
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
