"""Limits a minute for each client's address, through the real app; counted in memory and in a real Redis."""

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from config import ConfigurationError
from conftest import Server, ServerFactory, make_settings
from rate_limiter import duration
from real_services import RedisServer
from redis_stores import RedisConnection

Request = Callable[[str], httpx.Response]
HELLO: Mapping[str, Any] = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "Hello"}]}

# Each limited route, the setting of its limit, and how often it may be asked by default.
ROUTES: Mapping[str, tuple[str, int, Request]] = {
    "chat": ("rate_limit_chat_per_minute", 10, lambda url: httpx.post(f"{url}/v1/chat/completions", json={})),
    "debug": ("rate_limit_debug_per_minute", 2, lambda url: httpx.post(f"{url}/v1/debug/request", json={})),
    "auth": ("rate_limit_auth_per_minute", 10, lambda url: httpx.get(f"{url}/v1/auth/status", timeout=30)),
    "sessions": ("rate_limit_session_per_minute", 15, lambda url: httpx.get(f"{url}/v1/sessions")),
    "session": ("rate_limit_session_per_minute", 15, lambda url: httpx.delete(f"{url}/v1/sessions/unknown")),
    "usage": ("rate_limit_session_per_minute", 15, lambda url: httpx.get(f"{url}/v1/usage")),
    "health": ("rate_limit_health_per_minute", 30, lambda url: httpx.get(f"{url}/health")),
    "health, by HEAD": ("rate_limit_health_per_minute", 30, lambda url: httpx.head(f"{url}/health")),
}


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Mapping[str, str]:
    """The settings of each kind of store."""
    return {} if request.param == "memory" else {"redis_url": fresh_database(request.getfixturevalue("redis_server"))}


def fresh_database(redis_server: RedisServer) -> str:
    """A Redis in which nobody has been counted yet."""
    redis_server.empty()
    return redis_server.url


@pytest.mark.parametrize("name", ROUTES)
def test_each_route_has_its_limit(serve: ServerFactory, name: str) -> None:
    """By default so many requests a minute pass, whatever becomes of them, and the next one is a 429."""
    _, limit, ask = ROUTES[name]
    server = serve(rate_limit_enabled=True)
    assert 429 not in [ask(server.url).status_code for _ in range(limit)]
    assert ask(server.url).status_code == 429


@pytest.mark.parametrize("name", ROUTES)
def test_each_limit_can_be_set(serve: ServerFactory, name: str) -> None:
    """The operator sets a route's limit."""
    setting, _, ask = ROUTES[name]
    server = serve(rate_limit_enabled=True, **{setting: 1})
    assert [ask(server.url).status_code == 429 for _ in range(2)] == [False, True]


def test_routes_are_counted_apart_and_others_not_at_all(serve: ServerFactory) -> None:
    """Who has used up one limit has the others, and what isn't limited stays open."""
    server = serve(rate_limit_enabled=True, rate_limit_health_per_minute=1)
    assert [httpx.get(f"{server.url}/health").status_code for _ in range(2)] == [200, 429]
    assert httpx.get(f"{server.url}/v1/sessions").status_code == 200
    assert {httpx.get(f"{server.url}/version").status_code for _ in range(40)} == {200}


def test_limits_can_be_switched_off(serve: ServerFactory) -> None:
    """With RATE_LIMIT_ENABLED=false nothing is counted, and nothing is told of limits."""
    server = serve(rate_limit_enabled=False, rate_limit_health_per_minute=1)
    responses = [httpx.get(f"{server.url}/health") for _ in range(3)]
    assert {response.status_code for response in responses} == {200}
    assert not [name for name in responses[0].headers if name.startswith("x-ratelimit")]


def test_too_many_requests_are_told_when_to_come_back(serve: ServerFactory, store: Mapping[str, str]) -> None:
    """The 429 has the true number of seconds, in its body and in Retry-After; all answers say what is left."""
    server = serve(**store, rate_limit_enabled=True, rate_limit_session_per_minute=2)
    began = time.time()
    responses = [httpx.get(f"{server.url}/v1/sessions") for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    left = [response.headers["x-ratelimit-remaining-requests"] for response in responses]
    assert ([response.headers["x-ratelimit-limit-requests"] for response in responses], left) == (
        ["2"] * 3,
        ["1", "0", "0"],
    )
    assert all(re.fullmatch(r"(\d+m)?\d+s|\d+ms", each.headers["x-ratelimit-reset-requests"]) for each in responses)
    error = responses[-1].json()["error"]
    seconds = error["retry_after"]
    assert error == {
        "message": f"Rate limit exceeded. Try again in {seconds} seconds.",
        "type": "rate_limit_exceeded",
        "code": "too_many_requests",
        "param": None,
        "retry_after": seconds,
    }
    assert responses[-1].headers["retry-after"] == str(seconds)
    # The window began with the first request; what the storage tells of it is whole seconds.
    assert 60 - (time.time() - began) - 1 <= seconds <= 61


def test_a_completion_says_what_is_left(serve: ServerFactory) -> None:
    """Also the routes that make their own response carry the headers, streamed or not, good or bad."""
    server = serve(rate_limit_enabled=True)
    for number, body in enumerate([HELLO, {**HELLO, "stream": True}, {}], 1):
        response = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
        assert response.headers["x-ratelimit-remaining-requests"] == str(10 - number)


def test_wrong_keys_are_limited_too(serve: ServerFactory) -> None:
    """Who guesses keys is counted before the key is looked at."""
    server = serve(rate_limit_enabled=True, api_key="right", **dict.fromkeys((row[0] for row in ROUTES.values()), 1))
    for name in ("chat", "debug", "auth", "sessions"):
        responses = [ROUTES[name][2](server.url) for _ in range(2)]
        assert [response.status_code for response in responses] == [401, 429]
        assert [response.headers["x-ratelimit-remaining-requests"] for response in responses] == ["0", "0"]


def ask_with(server: Server, key: str, **headers: str) -> httpx.Response:
    """Ask with a key."""
    headers = {"Authorization": f"Bearer {key}", **headers}
    return httpx.post(f"{server.url}/v1/chat/completions", json=HELLO, headers=headers, timeout=60)


def test_a_spoofed_address_changes_nothing(serve: ServerFactory) -> None:
    """Whatever a client says of its address, it is counted under its own."""
    server = serve(rate_limit_enabled=True, rate_limit_health_per_minute=2)
    headers = [{"X-Forwarded-For": f"10.0.0.{number}", "X-Real-IP": f"10.0.1.{number}"} for number in range(3)]
    assert [httpx.get(f"{server.url}/health", headers=each).status_code for each in headers] == [200, 200, 429]


def test_a_trusted_proxys_clients_are_counted_apart(serve: ServerFactory) -> None:
    """Behind a proxy that the operator trusts each client has its own limit."""
    server = serve(rate_limit_enabled=True, rate_limit_health_per_minute=1, trusted_proxies="127.0.0.1")
    headers = [{"X-Forwarded-For": f"10.0.0.{number}"} for number in (1, 2, 1)]
    assert [httpx.get(f"{server.url}/health", headers=each).status_code for each in headers] == [200, 200, 429]


def test_servers_that_share_a_redis_count_together(serve: ServerFactory, redis_server: RedisServer) -> None:
    """A limit holds across all of them."""
    url = fresh_database(redis_server)
    shared: Mapping[str, Any] = {"redis_url": url, "rate_limit_enabled": True, "rate_limit_session_per_minute": 3}
    servers = [serve(**shared, spare_processes=0) for _ in range(2)]
    statuses = [httpx.get(f"{server.url}/v1/sessions").status_code for server in servers * 2]
    assert statuses == [200, 200, 200, 429]


@pytest.mark.parametrize(("fail_open", "status"), [(True, 200), (False, 503)])
def test_without_redis_limits_fail_as_set(
    serve: ServerFactory, redis_server: RedisServer, fail_open: bool, status: int
) -> None:
    """While Redis is away requests pass unlimited, or none does; afterwards they are counted again."""
    url = fresh_database(redis_server)
    server = serve(redis_url=url, rate_limit_enabled=True, rate_limit_chat_per_minute=1, rate_limit_fail_open=fail_open)
    redis_server.stop()
    try:
        assert [ask_with(server, "any").status_code for _ in range(2)] == [status] * 2
    finally:
        redis_server.start()
    assert [ask_with(server, "any").status_code for _ in range(2)] == [200, 429]


def test_health_is_told_while_nothing_can_be_counted(serve: ServerFactory, redis_server: RedisServer) -> None:
    """Whatever limits do while Redis is away, /health says that the server lives, and is limited by itself."""
    url = fresh_database(redis_server)
    server = serve(redis_url=url, rate_limit_enabled=True, rate_limit_health_per_minute=2, rate_limit_fail_open=False)
    redis_server.stop()
    try:
        responses = [httpx.get(f"{server.url}/health", timeout=30) for _ in range(3)]
    finally:
        redis_server.start()
    assert [response.status_code for response in responses] == [200, 200, 429]
    assert responses[0].json()["status"] == "degraded"


@pytest.mark.asyncio
async def test_redis_tells_the_rest_of_a_window_exactly(redis_server: RedisServer) -> None:
    """Not in whole seconds, of which there may be one less than there are: who waits that long would be too early."""
    connection = RedisConnection(fresh_database(redis_server))
    counters = connection.counters()
    before = time.time()
    await counters.incr("a", 10)
    end = await counters.get_expiry("a")
    assert before + 10 - 0.01 <= end <= time.time() + 10
    await connection.close()


@pytest.mark.parametrize(
    ("seconds", "written"), [(0, "0ms"), (0.12, "120ms"), (1, "1s"), (6.2, "7s"), (60, "1m0s"), (360, "6m0s")]
)
def test_durations_are_written_as_openai_does(seconds: float, written: str) -> None:
    """As in the headers of real answers."""
    assert duration(seconds) == written


def test_an_address_that_is_no_rediss_is_refused_at_start() -> None:
    """The setting is named, and what may be a password in it isn't shown."""
    with pytest.raises(ConfigurationError, match="REDIS_URL") as caught:
        make_settings({}, redis_url="http://user:sesame@nowhere")
    assert "sesame" not in str(caught.value)
