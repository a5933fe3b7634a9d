"""A key's own limits and its account, through the real app: counted in memory and in a real Redis."""

import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from auth import hash_key
from commands import wait_until
from conftest import Server, ServerFactory
from demo_upstream import Gate, Reply
from real_services import RedisServer

MODEL = "claude-sonnet-4-5"


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Mapping[str, str]:
    """The settings of each kind of store."""
    if request.param == "memory":
        return {}
    redis: RedisServer = request.getfixturevalue("redis_server")
    return {"redis_url": redis.url}


class Keys:
    """A file of keys, each known by its name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys: dict[str, str] = {}

    def add(self, name: str, *limits: str) -> str:
        """Make a key with these limits."""
        key = self._keys[name] = uuid.uuid4().hex
        entry = "\n".join([f"[keys.{name}]", f'hash = "sha256:{hash_key(key)}"', *limits, ""])
        with self.path.open("a", encoding="utf-8") as file:
            file.write(entry)
        return key


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """A file without keys."""
    path = tmp_path / "keys.toml"
    path.touch()
    return Keys(path)


def ask(server: Server, key: str, text: str = "Hello", **more: Any) -> httpx.Response:
    """Ask with a key."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=60)


def usage(server: Server, key: str) -> Any:
    """What a key is told of its account."""
    return httpx.get(f"{server.url}/v1/usage", headers={"Authorization": f"Bearer {key}"}).json()


def test_a_key_has_so_many_requests_a_minute(serve: ServerFactory, store: Mapping[str, str], keys: Keys) -> None:
    """Its own limit is told in the headers, and one request too many is a 429; other keys have theirs."""
    anna, berta = keys.add("anna", "requests_per_minute = 2"), keys.add("berta")
    server = serve(**store, api_keys_file=str(keys.path), rate_limit_enabled=True, rate_limit_chat_per_minute=100)
    responses = [ask(server, anna) for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    assert [response.headers["x-ratelimit-remaining-requests"] for response in responses] == ["1", "0", "0"]
    assert responses[-1].json()["error"]["code"] == "too_many_requests"
    assert ask(server, berta).headers["x-ratelimit-limit-requests"] == "100"


def test_the_tighter_limit_is_told(serve: ServerFactory, keys: Keys) -> None:
    """With an address that may ask less than its key may, the headers tell what the address has left."""
    anna = keys.add("anna", "requests_per_minute = 50")
    server = serve(api_keys_file=str(keys.path), rate_limit_enabled=True, rate_limit_chat_per_minute=2)
    responses = [ask(server, anna) for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    assert [response.headers["x-ratelimit-limit-requests"] for response in responses] == ["2"] * 3


def test_who_waited_is_looked_at_again(serve: ServerFactory, store: Mapping[str, str], keys: Keys) -> None:
    """While a request waited for its session's turn the one before it may have spent the budget."""
    anna, session_id = keys.add("anna", "usd_per_day = 0.0001"), uuid.uuid4().hex
    server, gate = serve(**store, api_keys_file=str(keys.path)), Gate(after=1)
    counted = {"input_tokens": 1000, "output_tokens": 100}
    server.upstream.script(Reply(text=["a ", "b"], gate=gate, usage=counted), times=None)
    with ThreadPoolExecutor() as threads:
        first = threads.submit(ask, server, anna, "First", session_id=session_id)
        gate.reached()
        second = threads.submit(ask, server, anna, "Second", session_id=session_id)
        # Whichever of the two comes first now, the second isn't played.
        gate.open()
    assert (first.result().status_code, second.result().json()["error"]["code"]) == (200, "insufficient_quota")
    assert len(server.upstream.messages_requests()) == 1


def test_a_key_has_so_many_requests_at_a_time(serve: ServerFactory, store: Mapping[str, str], keys: Keys) -> None:
    """One too many is a 429 that costs nothing; one that ended, or was left, makes room."""
    anna = keys.add("anna", "concurrent_requests = 1")
    server, gate = serve(**store, api_keys_file=str(keys.path)), Gate(after=1)
    server.upstream.script(Reply(text=["a ", "b"], gate=gate), when="First")
    with ThreadPoolExecutor() as threads:
        first = threads.submit(ask, server, anna, "First")
        gate.reached()
        refused = ask(server, anna, "Second")
        gate.open()
    assert (first.result().status_code, refused.status_code) == (200, 429)
    assert refused.json()["error"]["code"] == "too_many_concurrent_requests"
    assert int(refused.headers["retry-after"]) > 0
    assert ask(server, anna, "Third", stream=True).status_code == 200
    assert len(server.upstream.messages_requests()) == 2
    left = Gate(after=1)
    server.upstream.script(Reply(text=["a ", "b"], gate=left), when="Left")
    client = server.client(api_key=anna)
    with client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Left"}], stream=True):
        left.reached()
    server.upstream.wait_for(lambda upstream: upstream.messages_requests()[-1].disconnected, 20)
    assert ask(server, anna, "Fourth").status_code == 200


def test_a_key_spends_so_much_a_day(serve: ServerFactory, store: Mapping[str, str], keys: Keys) -> None:
    """Over its budget a key gets OpenAI's `insufficient_quota`, with the time at which it may go on."""
    anna, berta = keys.add("anna", "usd_per_day = 0.0001"), keys.add("berta")
    server = serve(**store, api_keys_file=str(keys.path))
    server.upstream.script(Reply(text="Fine.", usage={"input_tokens": 1000, "output_tokens": 100}), times=None)
    assert ask(server, anna).status_code == 200
    with pytest.raises(openai.RateLimitError) as caught:
        server.client(api_key=anna, max_retries=2).chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "More"}]
        )
    assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")
    midnight = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    assert f"{midnight:%Y-%m-%dT00:00:00Z}" in caught.value.message
    assert 0 < int(caught.value.response.headers["retry-after"]) <= 24 * 3600
    assert ask(server, berta).status_code == 200
    assert len(server.upstream.messages_requests()) == 2


def test_an_account_shows_what_a_key_used(serve: ServerFactory, store: Mapping[str, str], keys: Keys) -> None:
    """Requests, tokens and cost by day, its limits and its name; another key's account is its own."""
    anna, berta = keys.add("anna", "usd_per_day = 5.0", 'models = ["claude-*"]'), keys.add("berta")
    server = serve(**store, api_keys_file=str(keys.path))
    server.upstream.script(Reply(text="Fine.", usage={"input_tokens": 1000, "output_tokens": 100}), times=None)
    costs = [float(ask(server, anna).headers["x-claude-cost-usd"]) for _ in range(2)]
    ask(server, anna, stream=True)
    account = usage(server, anna)
    (today,) = account["days"]
    assert (today["requests"], today["input_tokens"], today["output_tokens"]) == (3, 3000, 300)
    assert today["cost_usd"] == pytest.approx(sum(costs) * 1.5)
    assert account["key"] == "anna"
    assert account["limits"]["usd_per_day"] == 5
    assert account["limits"]["models"] == ["claude-*"]
    assert usage(server, berta)["days"][0]["requests"] == 0


def test_what_a_turn_cost_that_was_cut_short_is_booked_too(
    serve: ServerFactory, store: Mapping[str, str], keys: Keys
) -> None:
    """Claude Code tells such a turn's cost only after its answer: the account has it soon."""
    anna = keys.add("anna")
    server = serve(**store, api_keys_file=str(keys.path))
    counted = {"input_tokens": 1000, "output_tokens": 100}
    server.upstream.script(Reply(text=["a ", "b"], usage=counted, stop_reason="max_tokens", delta_delay=0.3))
    response = ask(server, anna)
    assert response.json()["choices"][0]["finish_reason"] == "length"
    assert "x-claude-cost-usd" not in response.headers
    wait_until(lambda: usage(server, anna)["days"][0]["cost_usd"] > 0, 20)
    assert usage(server, anna)["days"][0]["requests"] == 1


def test_servers_that_share_a_redis_share_the_accounts(
    serve: ServerFactory, redis_server: RedisServer, keys: Keys
) -> None:
    """A budget holds across all of them."""
    anna = keys.add("anna", "usd_per_day = 0.0001")
    servers = [serve(redis_url=redis_server.url, api_keys_file=str(keys.path), spare_processes=0) for _ in range(2)]
    servers[0].upstream.script(Reply(text="Fine.", usage={"input_tokens": 1000, "output_tokens": 100}), times=None)
    assert [ask(server, anna).status_code for server in servers] == [200, 429]
