"""Several answers to one request: side by side, each under its index, all ended together; through the real CLI."""

import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from auth import hash_key
from chat import chunks, send
from commands import wait_until, working
from conftest import Server, ServerFactory
from demo_upstream import DemoUpstream, Gate, Reply
from function_calls import calling, scripted, tool

Json = dict[str, Any]

MODEL = "claude-sonnet-4-5"
PROMPT: list[Json] = [{"role": "user", "content": "Say it your way."}]
USAGE = {"input_tokens": 10, "output_tokens": 5}


def ask(server: Server, choices: int, **parameters: Any) -> httpx.Response:
    """Ask for so many answers."""
    body = {"model": MODEL, "messages": PROMPT, "n": choices, **parameters}
    return send(server, body)


def test_each_choice_is_a_turn_of_its_own(server: Server) -> None:
    """They stand in the order of their indices, each whole, and their tokens and costs are counted together."""
    scripted(server, *(Reply(text=f"Answer {number}", usage=USAGE) for number in range(3)))
    response = ask(server, 3)
    completion = response.json()
    assert [choice["index"] for choice in completion["choices"]] == [0, 1, 2]
    contents = {choice["message"]["content"] for choice in completion["choices"]}
    assert contents == {"Answer 0", "Answer 1", "Answer 2"}
    assert (completion["usage"]["prompt_tokens"], completion["usage"]["completion_tokens"]) == (30, 15)
    assert len(server.upstream.messages_requests()) == 3
    single = float(ask(server, 1).headers["x-claude-cost-usd"])
    assert float(response.headers["x-claude-cost-usd"]) > single > 0


def test_the_choices_of_a_stream_are_interleaved(serve: ServerFactory) -> None:
    """Each comes as it is written: a slow one holds nobody up, and none ends the stream but the last."""
    server = serve(max_processes=3)
    gate = Gate(after=1)
    scripted(server, Reply(text=["Slow", "ly"], gate=gate), Reply(text=["Quick", "ly"]), Reply(text=["So", "on"]))
    body = {"model": MODEL, "messages": PROMPT, "n": 3, "stream": True, "stream_options": {"include_usage": True}}
    texts: dict[int, str] = {}
    finished: list[str] = []
    last: Json = {}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=30) as response:
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            last = json.loads(line.removeprefix("data: "))
            for choice in last["choices"]:
                index = choice["index"]
                texts[index] = texts.get(index, "") + (choice["delta"].get("content") or "")
                if choice["finish_reason"]:
                    finished.append(texts[index])
            if len(finished) == 2:
                gate.open()
    assert finished[2:] == ["Slowly"]
    assert {*finished} == {"Slowly", "Quickly", "Soon"}
    assert (last["choices"], last["usage"]["total_tokens"] > 0) == ([], True)


@pytest.mark.parametrize("stream", [False, True])
def test_the_published_client_takes_all_of_them(server: Server, stream: bool) -> None:
    """Openai's own stream helper and its whole answers have each choice."""
    completions = server.client().chat.completions
    if stream:
        with completions.stream(model=MODEL, messages=PROMPT, n=4) as events:  # type: ignore[arg-type]
            completion: Any = events.get_final_completion()
    else:
        completion = completions.create(model=MODEL, messages=PROMPT, n=4)  # type: ignore[arg-type]
    assert [choice.index for choice in completion.choices] == [0, 1, 2, 3]
    assert all("demo upstream" in choice.message.content for choice in completion.choices)


def test_more_choices_than_processes(serve: ServerFactory) -> None:
    """They are answered all the same, one after the other, streamed as well."""
    server = serve(max_processes=2, spare_processes=0, queue_timeout=20)
    assert len(ask(server, 5).json()["choices"]) == 5
    assert {choice["index"] for chunk in chunks(ask(server, 5, stream=True)) for choice in chunk["choices"]} == {
        *range(5)
    }


def test_choices_wait_for_each_other(serve: ServerFactory) -> None:
    """A place is no more than one at a time here: the later ones wait for as long as the request may take."""
    server = serve(max_processes=1, spare_processes=0, queue_timeout=0.5)
    server.upstream.script(Reply(text=["Slow", "ly"], delta_delay=0.6), times=None)
    assert [choice["message"]["content"] for choice in ask(server, 3).json()["choices"]] == ["Slowly"] * 3


def test_a_second_try_waits_for_its_siblings_too(serve: ServerFactory) -> None:
    """A choice that is tried again in another form has given its place away, and is not turned away for that."""
    server = serve(max_processes=1, spare_processes=0, queue_timeout=0.5)
    lacks = Reply(status=400, error_message="This model does not support output format.", delay=0.4)
    server.upstream.script(lacks, when=lambda body: "format" in body.get("output_config", {}), times=None)
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    response = ask(server, 3, response_format=wanted)
    assert [json.loads(choice["message"]["content"]) for choice in response.json()["choices"]] == [{"x": 3}] * 3


def test_a_budget_that_runs_out_between_choices_lets_the_request_finish(serve: ServerFactory, tmp_path: Path) -> None:
    """It was let in as one; the next isn't."""
    entry = f'[keys.anna]\nhash = "sha256:{hash_key("anna")}"\nusd_per_day = 0.000001\n'
    (tmp_path / "keys.toml").write_text(entry, encoding="utf-8")
    server = serve(api_keys_file=tmp_path / "keys.toml", max_processes=1, spare_processes=0)
    scripted(server)
    body = {"model": MODEL, "messages": PROMPT, "n": 3}
    url, headers = f"{server.url}/v1/chat/completions", {"Authorization": "Bearer anna"}
    assert len(httpx.post(url, json=body, headers=headers, timeout=30).json()["choices"]) == 3
    assert httpx.post(url, json=body, headers=headers, timeout=30).status_code == 429


def test_choices_may_call_functions(server: Server) -> None:
    """Each has its own calls, numbered anew in each."""
    scripted(server, calling("weather", "weather"), calling("weather"))
    deltas: dict[int, list[int]] = {0: [], 1: []}
    for chunk in chunks(ask(server, 2, tools=[tool()], stream=True)):
        for choice in chunk["choices"]:
            deltas[choice["index"]] += [call["index"] for call in choice["delta"].get("tool_calls", []) if "id" in call]
    assert sorted(deltas.values(), key=len) == [[0], [0, 1]]


def test_a_request_is_one_however_many_answers_it_has(serve: ServerFactory) -> None:
    """In the key's account it is one request, with the tokens of all."""
    server = serve(api_key="ours")
    scripted(server, *(Reply(text="Fine", usage=USAGE) for _ in range(3)))
    headers = {"Authorization": "Bearer ours"}
    body = {"model": MODEL, "messages": PROMPT, "n": 3}
    assert httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=30).status_code == 200
    (day,) = httpx.get(f"{server.url}/v1/usage", headers=headers, timeout=30).json()["days"]
    assert (day["requests"], day["input_tokens"], day["output_tokens"]) == (1, 30, 15)


def left(upstream: DemoUpstream) -> bool:
    """Whether everybody who asked has left."""
    return all(record.disconnected for record in upstream.messages_requests())


def test_who_leaves_ends_all_of_them(serve: ServerFactory) -> None:
    """No turn outlives its client, begun or not."""
    server = serve(max_processes=2)
    server.upstream.script(Reply(text=["One", "two"], gate=Gate(after=1)), times=None)
    body = {"model": MODEL, "messages": PROMPT, "n": 4, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=30) as response:
        stream = response.iter_raw()
        next(stream)
        server.upstream.wait_for(lambda upstream: len(upstream.messages_requests()) == 2)
    server.upstream.wait_for(left)
    server.upstream.reset()
    assert ask(server, 2).status_code == 200
    wait_until(lambda: working(server.url) == 0)
    assert len(server.upstream.messages_requests()) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_what_one_fails_of_all_fail_of(serve: ServerFactory, stream: bool) -> None:
    """A failure is the whole request's, with its status; the other turns are stopped."""
    server = serve(max_processes=2)
    server.upstream.script(Reply(text=["One", "two"], gate=Gate(after=1)))
    server.upstream.script(Reply(status=529, error_message="busy"), times=None)
    response = ask(server, 2, stream=stream)
    if stream and response.status_code == 200:
        assert '"error"' in response.text
        assert "[DONE]" not in response.text
    else:
        assert response.status_code == 503
    server.upstream.reset()
    assert ask(server, 1).status_code == 200
    wait_until(lambda: working(server.url) == 0)


def test_there_are_only_so_many(serve: ServerFactory) -> None:
    """MAX_N is the limit, and a session goes on with one."""
    server = serve(max_n=2)
    assert len(ask(server, 2).json()["choices"]) == 2
    for choices, more in ((3, {}), (2, {"session_id": "s"})):
        error = ask(server, choices, **more).json()["error"]
        assert error["param"] == "n"
    with pytest.raises(openai.BadRequestError):
        server.client().chat.completions.create(model=MODEL, messages=PROMPT, n=3)  # type: ignore[arg-type]
