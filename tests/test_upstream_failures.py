"""Claude's API fails, is silent, or talks nonsense: what is asked again, what the client is told, and when."""

import json
import time
from collections.abc import Mapping

import httpx
import pytest

import chat_routes
from chat import HELLO, MODEL, a_client_left, post, sse_data
from config import load_settings
from conftest import NO_WAY_OUT, Server, ServerFactory, clean_environment
from demo_upstream import Gate, Reply
from errors import ClaudeLoginError, UpstreamRateLimitError
from upstream_failures import Failure, retried

STREAMED_OR_NOT = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
FINE = Reply(text="Fine.")


def asked(server: Server) -> int:
    """How often the model was asked."""
    return len(server.upstream.messages_requests())


def script(server: Server, *replies: Reply) -> None:
    """Let the upstream answer with these, one each."""
    for reply in replies:
        server.upstream.script(reply)


# Retries


@STREAMED_OR_NOT
@pytest.mark.parametrize(
    "failure",
    [Reply(status=500), Reply(status=429), Reply(garbage="<html>no</html>")],
    ids=["500", "429", "garbage"],
)
def test_what_fails_before_the_first_byte_is_asked_again(serve: ServerFactory, failure: Reply, stream: bool) -> None:
    """So a failure costs the client nothing but time."""
    server = serve(upstream_retries=1)
    script(server, failure, FINE)
    answer = post(server, model=MODEL, messages=HELLO, stream=stream)
    assert (answer.status_code, "Fine." in answer.text, asked(server)) == (200, True, 2)


def test_two_failures_in_a_row_are_overcome(serve: ServerFactory) -> None:
    """By default there are two retries."""
    assert load_settings(_env_file=None).upstream_retries == 2
    server = serve(upstream_retries=2)
    script(server, Reply(status=529), Reply(status=529), FINE)
    assert (post(server, model=MODEL, messages=HELLO).status_code, asked(server)) == (200, 3)


@STREAMED_OR_NOT
@pytest.mark.parametrize("retries", [0, 1])
def test_no_more_than_so_many_retries(serve: ServerFactory, retries: int, stream: bool) -> None:
    """UPSTREAM_RETRIES bounds them; then the client gets the error with its status, and may try again itself."""
    server = serve(upstream_retries=retries)
    server.upstream.script(Reply(status=529), times=None)
    answer = post(server, model=MODEL, messages=HELLO, stream=stream)
    assert (answer.status_code, answer.headers["x-should-retry"], asked(server)) == (503, "true", 1 + retries)
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413])
def test_what_a_retry_cant_help_is_not_asked_again(serve: ServerFactory, status: int) -> None:
    """Whatever is the request's fault, or the login's; Claude Code itself asks once more after 400 and 404."""
    server = serve(upstream_retries=2)
    server.upstream.script(Reply(status=status), times=None)
    answer = post(server, model=MODEL, messages=HELLO)
    assert (answer.status_code, answer.headers["x-should-retry"]) == (status, "false")
    assert asked(server) == (2 if status in (400, 404) else 1)


def test_a_broken_stream_is_not_asked_for_again(serve: ServerFactory) -> None:
    """After the first byte the client has a part of an answer; another one must not follow."""
    server = serve(upstream_retries=2)
    script(server, Reply(text=["One ", "two ", "three"], cut_after=2, delta_delay=0.2), FINE)
    *_, last = sse_data(post(server, model=MODEL, messages=HELLO, stream=True))
    assert json.loads(last)["error"]["code"] == "upstream_error"
    assert asked(server) == 1


def test_a_whole_answer_that_broke_is_asked_for_again(serve: ServerFactory) -> None:
    """Where the client gets it in one piece it has got nothing yet."""
    server = serve(upstream_retries=2)
    script(server, Reply(text=["One ", "two"], cut_after=1), FINE)
    answer = post(server, model=MODEL, messages=HELLO)
    assert answer.json()["choices"][0]["message"]["content"] == "Fine."


def test_each_choice_is_asked_again_by_itself(serve: ServerFactory) -> None:
    """Of several choices the one that failed is, and no other."""
    server = serve(upstream_retries=2)
    script(server, Reply(status=500), *[FINE] * 3)
    answer = post(server, model=MODEL, messages=HELLO, n=3)
    assert [choice["message"]["content"] for choice in answer.json()["choices"]] == ["Fine."] * 3
    assert asked(server) == 4


def test_a_short_retry_after_is_waited_for(serve: ServerFactory) -> None:
    """No retry comes sooner than Claude's API wants it."""
    server = serve(upstream_retries=1)
    script(server, Reply(status=429, headers={"retry-after": "2"}), FINE)
    assert post(server, model=MODEL, messages=HELLO).status_code == 200
    first, second = server.upstream.messages_requests()
    assert second.at - first.at >= 2


@pytest.mark.parametrize(("told", "least", "most"), [("20", 20, 26), ("3600", 60, 60)])
def test_a_long_retry_after_is_the_clients(serve: ServerFactory, told: str, least: int, most: int) -> None:
    """It is told the time, of which Claude Code makes up to a quarter more; beyond a minute it tells no time at all."""
    server = serve(upstream_retries=2)
    server.upstream.script(Reply(status=429, headers={"retry-after": told}), times=None)
    answer = post(server, model=MODEL, messages=HELLO)
    assert (answer.status_code, asked(server), answer.headers["x-should-retry"]) == (429, 1, "true")
    assert least <= int(answer.headers["retry-after"]) <= most


def test_a_subscriptions_limit_tells_when_it_ends(serve: ServerFactory, api_key_environment: Mapping[str, str]) -> None:
    """Claude's API names the moment, which may be hours off; the client is told the seconds until then."""
    token = {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-dummy-loopback-only"}
    server = serve(clean_environment(ANTHROPIC_BASE_URL=api_key_environment["ANTHROPIC_BASE_URL"], **token))
    ends = int(time.time()) + 5000
    limit = {"anthropic-ratelimit-unified-status": "rejected", "anthropic-ratelimit-unified-reset": str(ends)}
    server.upstream.script(Reply(status=429, headers={**limit, "retry-after": "5000"}), times=None)
    answer = post(server, model=MODEL, messages=HELLO)
    assert answer.status_code == 429
    assert 4900 < int(answer.headers["retry-after"]) <= 5000


def test_nobody_there_is_a_502(serve: ServerFactory) -> None:
    """Where no connection comes about the client gets a status, and no address of ours."""
    login = {"ANTHROPIC_API_KEY": "sk-ant-dummy-loopback-only"}
    answer = post(serve(clean_environment(**login)), model=MODEL, messages=HELLO)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
    assert NO_WAY_OUT["ANTHROPIC_BASE_URL"] not in answer.text


# Silence


@STREAMED_OR_NOT
def test_an_api_that_doesnt_begin_is_given_up(serve: ServerFactory, stream: bool) -> None:
    """FIRST_TOKEN_TIMEOUT makes a 504, streamed or not; the upstream's connection is closed, the process goes on."""
    server = serve(first_token_timeout=3)
    script(server, Reply(hang=True), FINE)
    answer = post(server, model=MODEL, messages=HELLO, stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
    server.upstream.wait_for(a_client_left)
    assert post(server, model=MODEL, messages=HELLO).status_code == 200


@STREAMED_OR_NOT
def test_an_answer_that_stops_is_given_up(serve: ServerFactory, stream: bool) -> None:
    """IDLE_TIMEOUT makes a 504, or an error event and no [DONE]; the next request is answered."""
    server = serve(idle_timeout=2)
    script(server, Reply(text=["One ", "two"], gate=Gate(after=1)), FINE)
    answer = post(server, model=MODEL, messages=HELLO, stream=stream)
    error = json.loads(sse_data(answer)[-1] if stream else answer.text)["error"]
    assert (answer.status_code, error["code"]) == (200 if stream else 504, "upstream_timeout")
    server.upstream.wait_for(a_client_left)
    assert post(server, model=MODEL, messages=HELLO).status_code == 200


def test_an_answer_that_trickles_has_its_time(serve: ServerFactory) -> None:
    """Gaps shorter than IDLE_TIMEOUT are none, however many."""
    server = serve(idle_timeout=2)
    script(server, Reply(text=[f"{number} " for number in range(6)], delta_delay=0.5))
    assert post(server, model=MODEL, messages=HELLO).status_code == 200


def test_a_silent_stream_is_kept_alive(serve: ServerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments come while nothing else does, and nothing that isn't an event's or a comment's."""
    assert chat_routes._PING_SECONDS == 15
    monkeypatch.setattr(chat_routes, "_PING_SECONDS", 0.1)
    server, gate = serve(), Gate(after=1)
    script(server, Reply(text=["One ", "two"], gate=gate))
    body = {"model": MODEL, "messages": HELLO, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=30) as response:
        lines = response.iter_lines()
        pings = [line for line in (next(lines) for _ in range(20)) if line.startswith(":")]
        gate.open()
        rest = [*lines]
    assert {*pings} == {": ping"}
    assert rest[-2:] == ["data: [DONE]", ""]


@STREAMED_OR_NOT
def test_an_answer_that_trickles_for_ever_is_given_up(serve: ServerFactory, stream: bool) -> None:
    """MAX_TIMEOUT bounds the whole."""
    server = serve(max_timeout=5)
    script(server, Reply(text=["word "] * 100, delta_delay=0.2))
    answer = post(server, model=MODEL, messages=HELLO, stream=stream)
    error = json.loads(sse_data(answer)[-1] if stream else answer.text)["error"]
    assert (answer.status_code, error["code"]) == (200 if stream else 504, "timeout")


@STREAMED_OR_NOT
@pytest.mark.parametrize(
    "nonsense",
    [
        "event: content_block_delta\ndata: {nonsense\n\n",
        'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 7, "delta": {}}\n\n',
    ],
    ids=["no JSON", "of no block"],
)
def test_nonsense_in_the_middle_is_an_error(serve: ServerFactory, nonsense: str, stream: bool) -> None:
    """What can't be read ends the answer with an error, in its place, and harms no other request."""
    server = serve()
    script(server, Reply(text=["One ", "two"], garbage=nonsense, garbage_after=1), FINE)
    answer = post(server, model=MODEL, messages=HELLO, stream=stream)
    error = json.loads(sse_data(answer)[-1] if stream else answer.text)["error"]
    assert (answer.status_code, error["code"]) == (200 if stream else 502, "upstream_error")
    assert post(server, model=MODEL, messages=HELLO).status_code == 200


# Alone


def test_a_login_that_is_refused_is_the_servers() -> None:
    """The client's key isn't at fault, and the words say where to look."""
    error = retried("claude-x", 401, 0.5)
    assert isinstance(error, ClaudeLoginError)
    assert "/v1/auth/status" in error.message


@pytest.mark.parametrize(("wait", "told"), [(0.5, 1), (7.3, 8), (None, 60)])
def test_a_limit_always_tells_a_time(wait: float | None, told: int) -> None:
    """In whole seconds, and never none: clients would come back at once."""
    error = Failure("claude-x", 429, "API Error: 429 too many", wait=wait).to_error()
    assert isinstance(error, UpstreamRateLimitError)
    assert error.headers["Retry-After"] == str(told)


def test_words_that_name_an_address_stay_here() -> None:
    """Of a server error, or none at all, the client gets the status and not Claude Code's words."""
    for status in (None, 500, 529):
        assert "10.0.0.1" not in Failure("claude-x", status, "no route to 10.0.0.1").to_error().message
