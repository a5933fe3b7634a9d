"""openai-python, functions: each way that the package has to call them, until the model answers."""

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionMessageFunctionToolCall, ChatCompletionToolParam
from pydantic import BaseModel

from conftest import Server, ServerFactory
from demo_upstream import Reply
from published_clients import (
    ANSWER,
    COMPARE,
    COMPARISON,
    CONVERSATION,
    FOLLOW_UPS,
    MODEL,
    PARIS,
    PREAMBLE,
    QUESTION,
    ROME,
    TEMPERATURES,
    script_the_question,
    seen,
    went_on,
)


class GetTemperature(BaseModel):
    """The temperature in a city now."""

    city: str

    def result(self) -> str:
        """Look it up."""
        return TEMPERATURES[self.city]


class Compare(BaseModel):
    """Which of two temperatures is higher, and by how much."""

    first: str
    second: str

    def result(self) -> str:
        """Compare."""
        assert (self.first, self.second) == tuple(TEMPERATURES.values())
        return COMPARISON


FUNCTIONS: dict[str, type[GetTemperature | Compare]] = {"get_temperature": GetTemperature, "compare": Compare}
TOOLS: list[ChatCompletionToolParam] = [
    openai.pydantic_function_tool(model, name=name) for name, model in FUNCTIONS.items()
]


def question() -> list[Any]:
    """A conversation that begins: a list that grows by the client's own messages."""
    return [{"role": "user", "content": QUESTION}]


def result_of(name: str, arguments: str) -> str:
    """Call a function as a client does, with the JSON that the model wrote."""
    return FUNCTIONS[name].model_validate_json(arguments).result()


def results_of(completion: ChatCompletion) -> list[dict[str, str]]:
    """The messages that answer a completion's calls."""
    messages: list[dict[str, str]] = []
    for call in completion.choices[0].message.tool_calls or []:
        assert isinstance(call, ChatCompletionMessageFunctionToolCall)
        content = result_of(call.function.name, call.function.arguments)
        messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
    return messages


def check_completions(completions: list[ChatCompletion]) -> None:
    """Three completions: calls beside text, a call without, the answer; each has an id and a usage of its own."""
    choices = [completion.choices[0] for completion in completions]
    assert [choice.finish_reason for choice in choices] == ["tool_calls", "tool_calls", "stop"]
    assert [choice.message.content or None for choice in choices] == [PREAMBLE, None, ANSWER]
    assert [len(choice.message.tool_calls or []) for choice in choices] == [2, 1, 0]
    assert len({completion.id for completion in completions}) == 3
    usages = [completion.usage for completion in completions if completion.usage]
    assert all(usage.prompt_tokens > 0 and usage.completion_tokens > 0 for usage in usages)
    assert len(usages) == 3


@pytest.mark.parametrize("ordered", [list, reversed])
def test_create_loops_until_the_answer(serve: ServerFactory, ordered: Callable[[list[Any]], Iterable[Any]]) -> None:
    """Calls, results in whatever order, and the answer; the model sees that conversation and no other."""
    server = serve()
    script_the_question(server.upstream)
    client, messages, completions = server.client(), question(), list[ChatCompletion]()
    while not completions or completions[-1].choices[0].message.tool_calls:
        completions.append(client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS))
        messages += [completions[-1].choices[0].message, *ordered(results_of(completions[-1]))]
    check_completions(completions)
    assert completions[1].choices[0].message.content is None
    assert seen(server.upstream) == CONVERSATION
    assert went_on(server) == FOLLOW_UPS


def test_the_stream_helper_loops_until_the_answer(serve: ServerFactory) -> None:
    """`.stream()` gives text and arguments as they are written, and parsed arguments at the end of each call."""
    server = serve()
    script_the_question(server.upstream)
    client, messages, completions = server.client(), question(), list[ChatCompletion]()
    deltas, done = list[tuple[str, str]](), list[object]()
    while not completions or completions[-1].choices[0].message.tool_calls:
        with client.chat.completions.stream(
            model=MODEL, messages=messages, tools=TOOLS, stream_options={"include_usage": True}
        ) as stream:
            for event in stream:
                if event.type == "content.delta":
                    deltas.append((event.type, event.delta))
                elif event.type == "tool_calls.function.arguments.delta":
                    deltas.append((event.name, event.arguments_delta))
                elif event.type == "tool_calls.function.arguments.done":
                    done.append(event.parsed_arguments)
            completions.append(stream.get_final_completion())
        messages += [completions[-1].choices[0].message, *results_of(completions[-1])]
    check_completions(completions)
    assert done == [
        GetTemperature(city="Paris"),
        GetTemperature(city="Rome"),
        Compare(first=TEMPERATURES["Paris"], second=TEMPERATURES["Rome"]),
    ]
    written = "".join(delta for _, delta in deltas)
    assert (
        written == PREAMBLE + "".join(json.dumps(c.input, ensure_ascii=False) for c in (PARIS, ROME, COMPARE)) + ANSWER
    )
    assert len([name for name, delta in deltas if name == "get_temperature" and delta]) > 2, "arguments in one piece"
    assert seen(server.upstream) == CONVERSATION
    assert went_on(server) == FOLLOW_UPS


def test_parse_loops_until_the_answer(serve: ServerFactory) -> None:
    """`.parse()` with `pydantic_function_tool` gives the arguments as instances of the client's models."""
    server = serve()
    script_the_question(server.upstream)
    client, messages, completions = server.client(), question(), list[ChatCompletion]()
    while not completions or completions[-1].choices[0].message.tool_calls:
        completion = client.chat.completions.parse(model=MODEL, messages=messages, tools=TOOLS)
        completions.append(completion)
        messages.append(completion.choices[0].message)
        for call in completion.choices[0].message.tool_calls or []:
            arguments = call.function.parsed_arguments
            assert isinstance(arguments, GetTemperature | Compare)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": arguments.result()})
    check_completions(completions)
    assert seen(server.upstream) == CONVERSATION
    assert went_on(server) == FOLLOW_UPS


@pytest.mark.asyncio
async def test_the_async_client_streams_until_the_answer(serve: ServerFactory) -> None:
    """A client that puts chunks together by itself: each call's id and name come once, its arguments in pieces."""
    server = serve()
    script_the_question(server.upstream)
    messages, texts = question(), list[str]()
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        while messages[-1]["role"] != "assistant":
            calls, text = dict[int, dict[str, Any]](), ""
            stream = await client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS, stream=True)
            async for chunk in stream:
                text += chunk.choices[0].delta.content or ""
                for delta in chunk.choices[0].delta.tool_calls or []:
                    assert delta.function is not None
                    if delta.index not in calls:
                        assert (delta.type, delta.function.arguments) == ("function", "")
                        function = {"name": delta.function.name, "arguments": ""}
                        calls[delta.index] = {"id": delta.id, "type": delta.type, "function": function}
                    else:
                        assert (delta.id, delta.type, delta.function.name) == (None, None, None)
                        calls[delta.index]["function"]["arguments"] += delta.function.arguments or ""
            texts.append(text)
            assert list(calls) == list(range(len(calls)))
            messages.append(
                {"role": "assistant", "content": text, **({"tool_calls": [*calls.values()]} if calls else {})}
            )
            for call in calls.values():
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": result_of(**call["function"])})
    assert texts == [PREAMBLE, "", ANSWER]
    assert seen(server.upstream) == CONVERSATION
    assert went_on(server) == FOLLOW_UPS


@pytest.mark.asyncio
async def test_calls_of_clients_at_once_stay_apart(server: Server) -> None:
    """Of conversations that wait for results at the same time, each goes on with its own."""
    cities = [f"city {number}" for number in range(4)]
    waiting, everybody = set[str](), asyncio.Event()

    async def ask(client: openai.AsyncOpenAI, city: str) -> None:
        messages: list[Any] = [{"role": "user", "content": f"How warm is it in {city}?"}]
        first = await client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS)
        (call,) = first.choices[0].message.tool_calls or []
        waiting.add(city)
        if len(waiting) == len(cities):
            everybody.set()
        await everybody.wait()
        messages += [first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": f"{city} is warm"}]
        last = await client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS)
        assert last.choices[0].finish_reason == "stop"

    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        await asyncio.gather(*(ask(client, city) for city in cities))
    last_requests = [
        each.body["messages"] for each in server.upstream.messages_requests() if len(each.body["messages"]) > 1
    ]
    assert len(last_requests) == len(cities)
    for messages in last_requests:
        (city,) = [city for city in cities if city in json.dumps(messages[0])]
        assert f"{city} is warm" in json.dumps(messages[-1])


def test_functions_of_the_old_kind_loop_until_the_answer(server: Server) -> None:
    """As before there were tools: one call a message, and a `function` message for its result."""
    server.upstream.script(Reply(text=PREAMBLE, tool_calls=[PARIS]))
    server.upstream.script(Reply(tool_calls=[COMPARE]))
    server.upstream.script(Reply(text=ANSWER))
    client, messages, reasons = server.client(), question(), list[str]()
    functions: Any = [tool["function"] for tool in TOOLS]
    while not reasons or reasons[-1] == "function_call":
        (choice,) = client.chat.completions.create(
            model=MODEL, messages=messages, functions=functions, function_call="auto"
        ).choices
        reasons.append(choice.finish_reason)
        messages.append(choice.message)
        assert choice.message.tool_calls is None
        if call := choice.message.function_call:
            messages.append({"role": "function", "name": call.name, "content": result_of(call.name, call.arguments)})
    assert reasons == ["function_call", "function_call", "stop"]
    assert messages[-1].content == ANSWER
    assert seen(server.upstream) == [
        ("user", [QUESTION]),
        ("assistant", [PREAMBLE, PARIS]),
        ("user", [TEMPERATURES["Paris"]]),
        ("assistant", [COMPARE]),
        ("user", [COMPARISON]),
    ]
