"""What clients see of the live processes: headers, costs, second tries, and the pool's own report."""

import signal
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Any

import httpx
import pytest

from chat import send
from commands import claude_processes
from conftest import Server, ServerFactory, clean_environment
from demo_upstream import Gate, Reply
from function_calls import needs_reuse

MODEL = "claude-sonnet-4-5"


def ask(server: Server, *texts: str, **more: Any) -> httpx.Response:
    """Have a conversation answered, the user's text first."""
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)]
    return send(server, {"model": MODEL, "messages": messages, **more})


@contextmanager
def hanging_request(server: Server, responses: list[httpx.Response], **more: Any) -> Generator[None, None, None]:
    """Let a request hang in the upstream; at the end kill its process, and wait for its response."""
    others = claude_processes()
    client = Thread(target=lambda: responses.append(ask(server, "Hello", **more)))
    client.start()
    server.upstream.wait_for(lambda upstream: bool(upstream.messages_requests()))
    try:
        yield
    finally:
        for process in claude_processes() - others:
            process.send_signal(signal.SIGKILL)
        client.join()


def origins(responses: Sequence[httpx.Response]) -> list[str]:
    """Where the processes came from."""
    return [response.headers["x-claude-process"] for response in responses]


@needs_reuse
@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_that_is_sent_again_is_adopted(serve: ServerFactory, stream: bool) -> None:
    """The header says where the process came from, and what the server itself took of the time."""
    server = serve()
    server.upstream.script(Reply(text="Fine."), times=None)
    responses = [ask(server, "One", stream=stream), ask(server, "One", "Fine.", "Two", stream=stream)]
    assert origins(responses)[1] == "adopted"
    assert all(float(response.headers["x-claude-overhead-ms"]) >= 0 for response in responses)
    assert len(server.upstream.messages_requests()) == 2


def test_costs_and_tokens_are_the_turns(serve: ServerFactory) -> None:
    """Turns that cost the same cost the same, though Claude Code counts all that its process ever cost."""
    server = serve()
    usage = {"input_tokens": 1000, "output_tokens": 100}
    server.upstream.script(Reply(text="Fine.", usage=usage), times=None)
    conversation = ["One"]
    responses: list[httpx.Response] = []
    for _ in range(4):
        responses.append(ask(server, *conversation))
        conversation += ["Fine.", "More"]
    costs = {response.headers["x-claude-cost-usd"] for response in responses}
    assert len(costs) == 1
    assert float(costs.pop()) > 0
    assert {response.json()["usage"]["total_tokens"] for response in responses} == {1100}


def test_a_turn_whose_process_dies_unanswered_is_tried_again(serve: ServerFactory) -> None:
    """A process that is killed before the first word costs the client time, not its answer."""
    server = serve(spare_processes=0)
    server.upstream.script(Reply(hang=True))
    server.upstream.script(Reply(text="Fine."))
    responses: list[httpx.Response] = []
    with hanging_request(server, responses):
        pass
    assert responses[0].json()["choices"][0]["message"]["content"] == "Fine."
    assert origins(responses) == ["spawned"]


def test_a_whole_answer_whose_process_dies_halfway_is_tried_again(serve: ServerFactory) -> None:
    """Before the end of a whole answer its client has got nothing, so a fresh process may play the turn."""
    server, gate = serve(spare_processes=0), Gate(after=50)
    server.upstream.script(Reply(text=["again and "] * 51, gate=gate))
    server.upstream.script(Reply(text="Fine."))
    responses: list[httpx.Response] = []
    with hanging_request(server, responses):
        gate.reached()
    assert responses[0].json()["choices"][0]["message"]["content"] == "Fine."
    assert len(server.upstream.messages_requests()) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_at_the_beginning_leaves_an_empty_answer(serve: ServerFactory, stream: bool) -> None:
    """Where that is all the model began to write, nothing of it is left, and the model isn't asked for more."""
    server = serve()
    # A model takes its time until it stops: enough for Claude Code to be told that it mustn't ask once more.
    stopped = Reply(text=[], stop_reason="stop_sequence", stop_sequence="This is", delta_delay=0.5)
    server.upstream.script(stopped, times=None)
    response = ask(server, "Hello", stop="This is", stream=stream)
    assert response.status_code == 200
    assert "[DONE]" in response.text or response.json()["choices"][0]["message"]["content"] == ""
    assert '"finish_reason":"stop"' in response.text
    assert len(server.upstream.messages_requests()) == 1


def test_a_second_try_keeps_its_place(serve: ServerFactory) -> None:
    """With one place and somebody waiting for it, a turn that is tried again isn't sent to the back of the queue."""
    server = serve(max_processes=1, spare_processes=0, queue_timeout=30)
    server.upstream.script(Reply(hang=True), when="Hello")
    server.upstream.script(Reply(text="Fine.", delay=1), when="Hello")
    responses: list[httpx.Response] = []
    others: list[httpx.Response] = []
    with hanging_request(server, responses):
        waiting = Thread(target=lambda: others.append(ask(server, "Other")))
        waiting.start()
    waiting.join()
    assert [response.status_code for response in (*responses, *others)] == [200, 200]
    prompts = [request.body["messages"][-1]["content"][0]["text"] for request in server.upstream.messages_requests()]
    assert prompts == ["Hello", "Hello", "Other"]


@needs_reuse
def test_parameters_are_the_requests_own(serve: ServerFactory) -> None:
    """A process that is adopted or recycled takes on a request's parameters, and keeps none of an earlier one's."""
    server = serve(max_processes=1)
    server.upstream.script(Reply(text="Fine."), times=None)
    hot, plain, cold = {"temperature": 0.9, "stop": "END"}, dict[str, Any](), {"temperature": 0.1, "max_tokens": 77}
    responses = [
        ask(server, "One", **hot),
        ask(server, "One", "Fine.", "Two", **plain),
        ask(server, "One", "Fine.", "Two", "Fine.", "Three", **cold),
        ask(server, "Another", **hot),
        ask(server, "Yet another", **plain),
    ]
    assert origins(responses)[1:] == ["adopted", "adopted", "recycled", "recycled"]
    bodies = [request.body for request in server.upstream.messages_requests()]
    seen = [(body["temperature"], body.get("stop_sequences")) for body in bodies]
    # 1 is Claude Code's own for this model.
    assert seen == [(0.9, ["END"]), (1, None), (0.1, None), (0.9, ["END"]), (1, None)]
    limits = [body["max_tokens"] for body in bodies]
    assert limits[2] == 77
    assert len({*limits[:2], *limits[3:]}) == 1


@needs_reuse
def test_whether_a_conversation_is_too_long_is_the_apis_to_say(serve: ServerFactory) -> None:
    """Claude Code refuses to go on after an answer whose count is near the limit: a fresh process asks the API."""
    server = serve()
    server.upstream.script(Reply(text="Fine.", usage={"input_tokens": 190_000, "output_tokens": 10}))
    server.upstream.script(Reply(text="Still fine."))
    assert ask(server, "One").status_code == 200
    response = ask(server, "One", "Fine.", "Two")
    assert response.json()["choices"][0]["message"]["content"] == "Still fine."
    assert origins([response]) == ["spawned"]


def test_who_waits_too_long_gets_a_503(serve: ServerFactory) -> None:
    """Beyond MAX_PROCESSES a request waits for QUEUE_TIMEOUT, and is told then when to come back."""
    server = serve(max_processes=1, spare_processes=0, queue_timeout=0.1)
    server.upstream.script(Reply(hang=True))
    with hanging_request(server, []):
        response = ask(server, "Hello")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "overloaded"
    assert int(response.headers["retry-after"]) > 0


def test_the_pool_reports_behind_the_key(serve: ServerFactory) -> None:
    """GET /v1/pool tells processes by state, the four ways, and the queue; to nobody without a key."""
    server = serve(api_key="sesame", max_processes=3)
    url, headers = f"{server.url}/v1/pool", {"Authorization": "Bearer sesame"}
    assert httpx.get(url).status_code == 401
    report = httpx.get(url, headers=headers).json()
    assert report["limit"] == 3
    assert set(report["processes"]) == {"working", "parked", "spare"}
    assert set(report["leases"]) == {"adopted", "recycled", "spare", "spawned"}
    assert report["queue"] == {"length": 0}


@needs_reuse
def test_a_subscriptions_reminders_stay_the_only_addition(
    serve: ServerFactory, api_key_environment: Mapping[str, str]
) -> None:
    """With an OAuth token Claude Code adds its reminders once a conversation, and a recycled process's are its own."""
    token = "sk-ant-oat01-dummy"
    environment = clean_environment(
        CLAUDE_CODE_OAUTH_TOKEN=token, ANTHROPIC_BASE_URL=api_key_environment["ANTHROPIC_BASE_URL"]
    )
    server = serve(environment, max_processes=1)
    server.upstream.script(Reply(text="Fine."), times=None)
    conversations = [("One",), ("One", "Fine.", "Two"), ("One", "Fine.", "Edited"), ("Other", "Yes.", "More")]
    responses = [ask(server, *conversation) for conversation in conversations]
    assert origins(responses)[1:] == ["adopted", "adopted", "recycled"]
    for conversation, request in zip(conversations, server.upstream.messages_requests(), strict=True):
        texts = [block["text"] for message in request.body["messages"] for block in message["content"]]
        assert [text for text in texts if not text.startswith("<system-reminder>")] == [*conversation]
        assert len(texts) - len(conversation) == 3
