"""Sessions, as clients see them: through the real app and the real CLI, kept in memory and in a real Redis."""

import json
import socket
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from commands import wait_until
from conftest import Server, ServerFactory
from demo_upstream import Gate, Reply
from real_services import RedisServer

MODEL = "claude-sonnet-4-5"
Json = dict[str, Any]
StoreSettings = Mapping[str, str]


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> StoreSettings:
    """The settings of each kind of store."""
    if request.param == "memory":
        return {}
    redis: RedisServer = request.getfixturevalue("redis_server")
    return {"redis_url": redis.url}


@pytest.fixture
def name() -> str:
    """A session that nobody has used."""
    return f"session {uuid.uuid4().hex}"


def user(text: str) -> Json:
    """A message of the user's."""
    return {"role": "user", "content": text}


def ask(server: Server, session_id: str, *messages: Json, key: str = "any", **more: Any) -> httpx.Response:
    """Send messages of a session."""
    body = {"model": MODEL, "messages": messages, "session_id": session_id, **more}
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=60)


def get(server: Server, path: str, key: str = "any", method: str = "GET") -> httpx.Response:
    """Ask about sessions."""
    return httpx.request(method, f"{server.url}{path}", headers={"Authorization": f"Bearer {key}"}, timeout=30)


def seen(server: Server, number: int = -1) -> list[tuple[str, str]]:
    """What the model saw of a conversation, as roles and texts."""
    body = server.upstream.messages_requests()[number].body
    return [(message["role"], "".join(block["text"] for block in message["content"])) for message in body["messages"]]


def system(server: Server) -> str:
    """The system prompt that the model saw last, less Claude Code's own lines."""
    return "".join(block["text"] for block in server.upstream.messages_requests()[-1].body["system"][2:])


@pytest.mark.parametrize("stream", [False, True])
def test_a_session_remembers_what_was_said(serve: ServerFactory, store: StoreSettings, name: str, stream: bool) -> None:
    """The published client sends only what is new, streamed or not, and the model sees all, the system prompt, too."""
    server = serve(**store)
    for number in range(3):
        server.upstream.script(Reply(text=f"Answer {number}."))
    client = server.client()
    for number in range(3):
        first = [{"role": "system", "content": "Be brief."}] if not number else []
        messages: Any = [*first, user(f"Say {number}")]
        answer: Any = client.chat.completions.create(
            model=MODEL, messages=messages, stream=stream, extra_body={"session_id": name}
        )
        assert [*answer] if stream else answer
    said = [[("user", f"Say {number}"), ("assistant", f"Answer {number}.")] for number in range(3)]
    assert seen(server) == [*said[0], *said[1], *said[2][:1]]
    assert system(server) == "Be brief."


def test_a_resent_history_counts_once(serve: ServerFactory, store: StoreSettings, name: str) -> None:
    """A client that sends all again goes on from there; anything else is added, be it the same as a part of it."""
    server = serve(**store)
    server.upstream.script(Reply(text="Fine."), times=None)
    fine = {"role": "assistant", "content": "Fine."}
    ask(server, name, user("One"))
    ask(server, name, user("One"), fine, user("Two"))
    assert seen(server) == [("user", "One"), ("assistant", "Fine."), ("user", "Two")]
    ask(server, name, user("One"))
    assert seen(server)[3:] == [("assistant", "Fine."), ("user", "One")]
    assert len(seen(server)) == 5
    ask(server, name, {"role": "system", "content": "Be kind."}, user("Three"))
    assert (len(seen(server)), system(server)) == (7, "Be kind.")


def test_calls_and_their_results_are_remembered(serve: ServerFactory, store: StoreSettings, name: str) -> None:
    """The native blocks of a history stay what they are, and the ids of later calls stay apart from theirs."""
    server = serve(**store)
    server.upstream.script(Reply(text="Fine."), times=None)
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Zürich"}'}}
    used: list[Json] = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "21C"},
    ]
    ask(server, name, user("One"), *used)
    ask(server, name, user("Two"), *used)
    blocks = [
        block for message in server.upstream.messages_requests()[-1].body["messages"] for block in message["content"]
    ]
    assert [block["id"] for block in blocks if block["type"] == "tool_use"] == ["call_1", "call_1-2"]
    results = [
        (block["tool_use_id"], block["content"][0]["text"]) for block in blocks if block["type"] == "tool_result"
    ]
    assert results == [("call_1", "21C"), ("call_1-2", "21C")]


FAILURES: Mapping[str, Callable[[], Reply]] = {
    "an error": lambda: Reply(status=500),
    "a cut": lambda: Reply(text=["One ", "two"], cut_after=1),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("stream", [False, True])
def test_a_failed_turn_leaves_the_session_as_it_was(
    serve: ServerFactory, store: StoreSettings, name: str, failure: str, stream: bool
) -> None:
    """What the model never answered to the end isn't remembered, and the session isn't begun by it."""
    server = serve(**store)
    server.upstream.script(FAILURES[failure](), when="Two", times=None)
    server.upstream.script(Reply(text="Fine."), times=None)
    ask(server, name, user("Two"), stream=stream)
    assert get(server, f"/v1/sessions/{name}").status_code == 404
    ask(server, name, user("One"))
    before = get(server, f"/v1/sessions/{name}").json()
    ask(server, name, user("Two"), stream=stream)
    assert get(server, f"/v1/sessions/{name}").json() == before
    assert ask(server, name, user("Three")).status_code == 200
    assert seen(server) == [("user", "One"), ("assistant", "Fine."), ("user", "Three")]


@pytest.mark.parametrize("stream", [False, True])
def test_a_turn_that_is_left_leaves_the_session_as_it_was(
    serve: ServerFactory, store: StoreSettings, name: str, stream: bool
) -> None:
    """A client that hangs up has neither said anything nor keeps the session from the next."""
    server, gate = serve(**store), Gate(after=1)
    server.upstream.script(Reply(text=["One ", "two"], gate=gate), when="Left")
    server.upstream.script(Reply(text="Fine."), times=None)
    body = {"model": MODEL, "messages": [user("Left")], "session_id": name, "stream": stream}
    with leaving(f"{server.url}/v1/chat/completions", body):
        gate.reached()
    server.upstream.wait_for(lambda upstream: upstream.messages_requests()[0].disconnected, 20)
    assert ask(server, name, user("One")).status_code == 200
    assert seen(server) == [("user", "One")]


@contextmanager
def leaving(url: str, body: Json) -> Generator[None, None, None]:
    """Send a request, and hang up at the end."""
    address, content = urlsplit(url), json.dumps(body).encode()
    head = f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        connection.sendall(head.encode() + content)
        yield


def test_a_turn_that_takes_too_long_leaves_the_session_as_it_was(
    serve: ServerFactory, store: StoreSettings, name: str
) -> None:
    """After MAX_TIMEOUT the client gets a 504, and the session is free and as before."""
    server = serve(**store, max_timeout=5000)  # Enough to answer the second on a busy machine.
    server.upstream.script(Reply(hang=True), when="Hang", times=None)
    server.upstream.script(Reply(text="Fine."), times=None)
    assert ask(server, name, user("Hang")).status_code == 504
    assert get(server, f"/v1/sessions/{name}").status_code == 404
    assert ask(server, name, user("One")).status_code == 200
    assert seen(server) == [("user", "One")]


def test_turns_of_a_session_run_one_after_the_other(serve: ServerFactory, store: StoreSettings, name: str) -> None:
    """A second request waits for the first, and sees its answer; other sessions don't wait."""
    server, gate = serve(**store), Gate(after=1)
    server.upstream.script(Reply(text=["First ", "answer"], gate=gate), when="First")
    server.upstream.script(Reply(text="Fine."), times=None)
    with ThreadPoolExecutor() as threads:
        first = threads.submit(ask, server, name, user("First"))
        gate.reached()
        second = threads.submit(ask, server, name, user("Second"))
        assert ask(server, f"{name} 2", user("Another")).status_code == 200
        assert not second.done()
        gate.open()
        assert (first.result().status_code, second.result().status_code) == (200, 200)
    assert seen(server) == [("user", "First"), ("assistant", "First answer"), ("user", "Second")]


def test_who_waits_for_a_session_too_long_is_told(serve: ServerFactory, redis_server: RedisServer, name: str) -> None:
    """A request whose session stays busy for as long as it may take gets a 409, be it busy on another server."""
    patient = serve(redis_url=redis_server.url, spare_processes=0)
    hasty = serve(redis_url=redis_server.url, spare_processes=0, max_timeout=1000)
    gate = Gate(after=1)
    patient.upstream.script(Reply(text=["a ", "b"], gate=gate))
    with ThreadPoolExecutor() as threads:
        first = threads.submit(ask, patient, name, user("First"))
        gate.reached()
        second = ask(hasty, name, user("Second"))
        gate.open()
    assert first.result().status_code == 200
    assert (second.status_code, second.json()["error"]["code"]) == (409, "session_busy")


def test_a_session_outlives_its_process_and_its_server(
    serve: ServerFactory, redis_server: RedisServer, name: str
) -> None:
    """Another server that shares the Redis goes on with the session: the process was but a cache."""
    servers = [serve(redis_url=redis_server.url, spare_processes=0) for _ in range(2)]
    servers[0].upstream.script(Reply(text="Fine."), times=None)
    for number, server in enumerate([*servers, *servers]):
        assert ask(server, name, user(str(number))).status_code == 200
    expected = [each for number in range(4) for each in (("user", str(number)), ("assistant", "Fine."))]
    assert seen(servers[0]) == expected[:-1]


def test_whatever_can_be_read_has_its_headers(server: Server) -> None:
    """HEAD is answered like GET, without a body."""
    for path in ("/v1/sessions", "/v1/sessions/stats", "/v1/usage"):
        response = get(server, path, method="HEAD")
        assert (response.status_code, response.content) == (200, b"")


def test_a_session_is_shown_with_its_totals(serve: ServerFactory, store: StoreSettings, name: str) -> None:
    """Messages, turns, tokens and cost are those of all its turns; it expires an hour after the last."""
    server = serve(**store, api_key="anna")
    server.upstream.script(Reply(text="Fine.", usage={"input_tokens": 1000, "output_tokens": 100}), times=None)
    costs = [float(ask(server, name, user("Hi"), key="anna").headers["x-claude-cost-usd"]) for _ in range(2)]
    shown = get(server, f"/v1/sessions/{name}", "anna").json()
    assert (shown["session_id"], shown["message_count"], shown["turn_count"], shown["model"]) == (name, 4, 2, MODEL)
    assert (shown["usage"]["input_tokens"], shown["usage"]["output_tokens"]) == (2000, 200)
    assert shown["cost_usd"] == pytest.approx(sum(costs))
    assert shown["created_at"] < shown["last_accessed"] < shown["expires_at"]
    listed = get(server, "/v1/sessions", "anna").json()
    assert shown in listed["sessions"]
    assert listed["total"] == len(listed["sessions"])


def test_the_statistics_count_the_keys_own(serve: ServerFactory, store: StoreSettings, name: str) -> None:
    """Sessions and messages of this key, how often is swept, and how long a session lives."""
    keys = [uuid.uuid4().hex for _ in range(2)]
    server = serve(**store, api_keys=",".join(keys), session_ttl_seconds=7200)
    for number in range(2):
        ask(server, f"{name} {number}", user("Hi"), key=keys[0])
    stats = [get(server, "/v1/sessions/stats", key).json() for key in keys]
    assert stats[0] == {
        "session_stats": {"active_sessions": 2, "expired_sessions": 0, "total_messages": 4},
        "cleanup_interval_minutes": 5,
        "default_ttl_hours": 2,
    }
    assert stats[1]["session_stats"]["active_sessions"] == 0


def test_each_key_sees_only_its_own(serve: ServerFactory, store: StoreSettings, name: str) -> None:
    """Another key's session is a 404, also to delete, and the same id is another session."""
    keys = [uuid.uuid4().hex for _ in range(2)]
    server = serve(**store, api_keys=",".join(keys))
    server.upstream.script(Reply(text="Fine."), times=None)
    ask(server, name, user("Anna's"), key=keys[0])
    for method in ("GET", "DELETE"):
        answer = get(server, f"/v1/sessions/{name}", keys[1], method)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "session_not_found")
    assert get(server, "/v1/sessions", keys[1]).json() == {"sessions": [], "total": 0}
    ask(server, name, user("Berta's"), key=keys[1])
    assert seen(server) == [("user", "Berta's")]
    for path in ("/v1/sessions", "/v1/sessions/stats", f"/v1/sessions/{name}", "/v1/usage"):
        assert get(server, path, "wrong").status_code == 401


def test_a_deleted_session_is_forgotten(serve: ServerFactory, store: StoreSettings, name: str) -> None:
    """It is gone at once, and its id begins another."""
    server = serve(**store)
    server.upstream.script(Reply(text="Fine."), times=None)
    ask(server, name, user("One"))
    answer = get(server, f"/v1/sessions/{name}", method="DELETE")
    assert (answer.status_code, answer.json()["deleted"]) == (200, True)
    assert get(server, f"/v1/sessions/{name}").status_code == 404
    ask(server, name, user("Two"))
    assert seen(server) == [("user", "Two")]


def test_a_session_that_is_deleted_in_mid_turn_stays_deleted(
    serve: ServerFactory, store: StoreSettings, name: str
) -> None:
    """The turn under way is told that it isn't part of a session any more."""
    server, gate = serve(**store), Gate(after=1)
    server.upstream.script(Reply(text="Fine."), when="One")
    server.upstream.script(Reply(text=["a ", "b"], gate=gate), when="Two")
    ask(server, name, user("One"))
    with ThreadPoolExecutor() as threads:
        turn = threads.submit(ask, server, name, user("Two"))
        gate.reached()
        assert get(server, f"/v1/sessions/{name}", method="DELETE").status_code == 200
        gate.open()
    assert (turn.result().status_code, turn.result().json()["error"]["code"]) == (409, "session_lost")
    assert get(server, f"/v1/sessions/{name}").status_code == 404


def test_sessions_have_their_limits(serve: ServerFactory, store: StoreSettings, name: str) -> None:
    """One session too many, and one message too many, are 400s that say what to do, and spend nothing."""
    key = uuid.uuid4().hex
    server = serve(**store, api_key=key, session_max_count=1, session_max_messages=4)
    server.upstream.script(Reply(text="Fine."), times=None)
    for _ in range(2):
        assert ask(server, name, user("Hi"), key=key).status_code == 200
    for session_id, code in ((name, "session_too_long"), ("more", "too_many_sessions")):
        error = ask(server, session_id, user("Hi"), key=key).json()["error"]
        assert (error["code"], error["param"]) == (code, "session_id")
    assert len(server.upstream.messages_requests()) == 2


def test_a_session_expires(serve: ServerFactory, store: StoreSettings, name: str) -> None:
    """After SESSION_TTL_SECONDS without a turn the conversation is forgotten."""
    server = serve(**store, session_ttl_seconds=0.001)
    server.upstream.script(Reply(text="Fine."), times=None)
    ask(server, name, user("One"))
    assert get(server, f"/v1/sessions/{name}").status_code == 404
    ask(server, name, user("Two"))
    assert seen(server) == [("user", "Two")]


@pytest.mark.parametrize("session_id", ["", "x" * 129, "a\nb", "\x00", "\u200b"])
def test_an_id_that_cannot_be_one_is_a_400(server: Server, session_id: str) -> None:
    """An id has 1 to 128 printable characters."""
    answer = ask(server, session_id, user("Hi"))
    assert answer.status_code == 400
    code = "invalid_value" if "\0" in session_id else "invalid_session_id"
    assert (answer.json()["error"]["param"], answer.json()["error"]["code"]) == ("session_id", code)
    assert not server.upstream.messages_requests()


@pytest.mark.parametrize("session_id", ["x" * 128, "a/b", "100 %?#", "漢字"])
def test_an_id_may_have_any_printable_characters(server: Server, session_id: str) -> None:
    """Whatever an address has to escape can be part of an id."""
    server.upstream.script(Reply(text="Fine."), times=None)
    assert ask(server, session_id, user("Hi")).status_code == 200
    path = httpx.URL("/", path=f"/v1/sessions/{session_id}".replace("?", "%3F").replace("#", "%23")).raw_path.decode()
    assert get(server, path).json()["session_id"] == session_id
    assert get(server, path, method="DELETE").status_code == 200


def test_a_redis_that_hangs_holds_up_nothing_else(
    serve: ServerFactory, redis_url: str, redis_server: RedisServer
) -> None:
    """Whoever needs it is told so after seconds; health and completions without a session don't wait each time."""
    server = serve(redis_url=redis_url, rate_limit_enabled=True, rate_limit_health_per_minute=10_000)
    body = {"model": MODEL, "messages": [user("Without a session")]}
    with redis_server.hung():
        began = time.monotonic()
        assert get(server, "/v1/sessions").status_code == 503
        assert get(server, "/health").json()["status"] == "degraded"
        assert httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).status_code == 200
        # One wait for each second or two, and not one for each of the commands, of which there were seven.
        assert time.monotonic() - began < 12
    until_healthy(server)
    assert get(server, "/v1/sessions").status_code == 200


def until_healthy(server: Server) -> None:
    """Wait until the server has seen that its store is back."""
    wait_until(lambda: get(server, "/health").json()["status"] == "healthy", 20)


def test_deleting_a_session_in_its_first_turn_is_no_404(serve: ServerFactory, store: StoreSettings, name: str) -> None:
    """What is only being begun can be deleted, too, and isn't begun then."""
    server, gate = serve(**store), Gate(after=1)
    server.upstream.script(Reply(text=["a ", "b"], gate=gate))
    with ThreadPoolExecutor() as threads:
        turn = threads.submit(ask, server, name, user("One"))
        gate.reached()
        assert get(server, f"/v1/sessions/{name}", method="DELETE").status_code == 200
        gate.open()
    assert turn.result().json()["error"]["code"] == "session_lost"
    assert get(server, f"/v1/sessions/{name}").status_code == 404


def test_sessions_without_redis_give_503_and_come_back(
    serve: ServerFactory, redis_server: RedisServer, name: str
) -> None:
    """While Redis is away sessions are refused, other requests answered, and /health says so; then all goes on."""
    server = serve(redis_url=redis_server.url)
    server.upstream.script(Reply(text="Fine."), times=None)
    assert ask(server, name, user("One")).status_code == 200
    assert get(server, "/health").json()["status"] == "healthy"
    redis_server.stop()
    try:
        answer = ask(server, name, user("Two"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert get(server, "/v1/sessions").status_code == 503
        assert get(server, "/health").json()["status"] == "degraded"
        body = {"model": MODEL, "messages": [user("Without a session")]}
        assert httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).status_code == 200
    finally:
        redis_server.start()
    assert ask(server, name, user("Three")).status_code == 200
    assert seen(server) == [("user", "One"), ("assistant", "Fine."), ("user", "Three")]
    assert get(server, "/health").json()["status"] == "healthy"
