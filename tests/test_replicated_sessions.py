"""Sessions and limits on two servers, with nginx before and Redis behind them: one dies, the other goes on."""

import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import product

import httpx
import pytest

from demo_upstream import DemoUpstream, Gate, Reply
from real_services import RedisServer
from replicas import Cluster, Replica, running_cluster

pytestmark = pytest.mark.real_services

MODEL = "claude-sonnet-4-5"
KEYS = ("key-of-anna", "key-of-berta")
LIMIT = 4
# `make isolation` has more of them.
FEW = 8
SESSIONS = int(os.environ.get("LOAD_SESSIONS", FEW))
TURNS = int(os.environ.get("LOAD_TURNS", "3"))
CLIENTS_AT_A_TIME = 16


@pytest.fixture(scope="module")
def module_cluster(api_key_environment: Mapping[str, str], redis_server: RedisServer) -> Iterator[Cluster]:
    """Two servers that share a Redis, behind nginx."""
    if not redis_server.running:
        redis_server.start()
    shared = {
        "API_KEYS": ",".join(KEYS),
        "REDIS_URL": redis_server.url,
        "RATE_LIMIT_ENABLED": "true",
        "RATE_LIMIT_CHAT_PER_MINUTE": "100000",
        "RATE_LIMIT_SESSION_PER_MINUTE": "100000",
        "RATE_LIMIT_DEBUG_PER_MINUTE": str(LIMIT),
    }
    with running_cluster(2, {**api_key_environment, **shared}) as cluster:
        yield cluster


@pytest.fixture
def cluster(module_cluster: Cluster, redis_url: str, upstream: DemoUpstream) -> Cluster:
    """Both servers running, an empty Redis, and an upstream that says "Fine." to all that isn't scripted before."""
    assert redis_url
    for replica in module_cluster.replicas:
        if not replica.running:
            replica.start()
    assert not upstream.messages_requests()
    return module_cluster


def post(url: str, session_id: str, text: str, key: str = KEYS[0], **more: object) -> httpx.Response:
    """A session's next turn."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "session_id": session_id, **more}
    headers = {"Authorization": f"Bearer {key}", "X-Session-Id": session_id}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=120)


def get(url: str, path: str, key: str = KEYS[0]) -> httpx.Response:
    """Ask about sessions."""
    return httpx.get(f"{url}{path}", headers={"Authorization": f"Bearer {key}"}, timeout=30)


def seen(upstream: DemoUpstream) -> list[str]:
    """What was said in the latest upstream request."""
    return [message["content"][0]["text"] for message in upstream.messages_requests()[-1].body["messages"]]


def serving(cluster: Cluster, session_id: str) -> Replica:
    """The server that a session's turns go to."""
    authorization = f"Bearer {KEYS[0]}"
    before = {replica: replica.turns(Authorization=authorization) for replica in cluster.replicas}
    assert post(cluster.url, session_id, "Where am I?").status_code == 200
    (found,) = [each for each in cluster.replicas if each.turns(Authorization=authorization) > before[each]]
    return found


def test_a_conversation_goes_on_when_its_server_dies_between_turns(cluster: Cluster, upstream: DemoUpstream) -> None:
    """The other server has all that was said; nginx finds it by itself."""
    upstream.script(Reply(text="Fine."), times=None)
    serving(cluster, "s").kill()
    assert post(cluster.url, "s", "Go on").status_code == 200
    assert seen(upstream) == ["Where am I?", "Fine.", "Go on"]
    assert get(cluster.url, "/v1/sessions/s").json()["message_count"] == 4


def test_a_conversation_goes_on_when_its_server_dies_in_mid_turn(cluster: Cluster, upstream: DemoUpstream) -> None:
    """The turn that died with it was never said; its lock is free again after some seconds, without anybody's help."""
    gate = Gate(after=1)
    upstream.script(Reply(text=["Half an ", "answer"], gate=gate), when="Die")
    upstream.script(Reply(text="Fine."), times=None)
    usual = serving(cluster, "s")
    with ThreadPoolExecutor() as threads:
        turn = threads.submit(post, cluster.url, "s", "Die")
        gate.reached()
        usual.kill()
        assert turn.result().status_code == 502
        assert post(cluster.url, "s", "Go on").status_code == 200
    assert seen(upstream) == ["Where am I?", "Fine.", "Go on"]


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_nothing_acknowledged_is_lost_with_redis(
    cluster: Cluster, upstream: DemoUpstream, redis_server: RedisServer, how: str
) -> None:
    """Redis is shut down, or killed, and comes back: conversations go on from what was answered last."""
    upstream.script(Reply(text="Fine."), times=None)
    assert post(cluster.url, "s", "One").status_code == 200
    getattr(redis_server, how)()
    away = post(cluster.url, "s", "Two")
    assert (away.status_code, away.json()["error"]["code"]) == (503, "store_unavailable")
    assert get(cluster.url, "/health").json()["status"] == "degraded"
    redis_server.start()
    assert post(cluster.url, "s", "Three").status_code == 200
    assert seen(upstream) == ["One", "Fine.", "Three"]


def test_a_turn_under_way_while_redis_restarts_is_whole_or_an_error(
    cluster: Cluster, upstream: DemoUpstream, redis_server: RedisServer
) -> None:
    """An answer is only complete once it is kept: if it can't be, its client isn't told that it ended well."""
    first, second = Gate(after=1), Gate(after=1)
    upstream.script(Reply(text=["Kept ", "later"], gate=first), when="One")
    upstream.script(Reply(text=["Kept ", "never"], gate=second), when="Two")
    upstream.script(Reply(text="Fine."), times=None)
    with ThreadPoolExecutor() as threads:
        turn = threads.submit(post, cluster.url, "s", "One", stream=True)
        first.reached()
        redis_server.kill()
        redis_server.start()
        first.open()
        assert turn.result().text.rstrip().endswith("data: [DONE]")
        turn = threads.submit(post, cluster.url, "s", "Two", stream=True)
        second.reached()
        redis_server.kill()
        second.open()
        assert "store_unavailable" in turn.result().text
        assert "[DONE]" not in turn.result().text
        redis_server.start()
    assert post(cluster.url, "s", "Three").status_code == 200
    assert seen(upstream) == ["One", "Kept later", "Three"]


def test_limits_hold_across_servers(cluster: Cluster) -> None:
    """However its requests are spread, an address has one limit."""
    urls = [replica.url for replica in cluster.replicas] * LIMIT
    headers = {"Authorization": f"Bearer {KEYS[0]}"}
    statuses = [httpx.post(f"{url}/v1/debug/request", json={}, headers=headers).status_code for url in urls]
    assert statuses == [200] * LIMIT + [429] * LIMIT


@pytest.mark.timeout(300 + SESSIONS * TURNS)
def test_many_sessions_at_once_lose_and_mix_nothing(
    cluster: Cluster, upstream: DemoUpstream, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each upstream request is its session's own conversation so far, and at the end each session has all of it."""
    sessions = [(KEYS[number % len(KEYS)], f"session {number}") for number in range(SESSIONS)]
    # The last words of a prompt: the stand-in's own answer repeats them, so that each answer is its turn's.
    began = time.monotonic()
    with ThreadPoolExecutor(CLIENTS_AT_A_TIME) as threads:
        answers = [*threads.map(lambda session: _converse(cluster, *session), sessions)]
    seconds = time.monotonic() - began
    said = dict(zip(sessions, answers, strict=True))
    received = Counter[tuple[str, int]]()
    for record in upstream.messages_requests():
        texts = [block["text"] for message in record.body["messages"] for block in message["content"]]
        session_id, turn = re.fullmatch(r"(session \d+), turn (\d+)", texts[-1]).groups()  # type: ignore[union-attr]
        (heard,) = [heard for (_, name), heard in said.items() if name == session_id]
        expected = [text for number in range(int(turn)) for text in (f"{session_id}, turn {number}", heard[number])]
        assert texts == [*expected, f"{session_id}, turn {turn}"]
        received[session_id, int(turn)] += 1
    assert received == Counter(product([name for _, name in sessions], range(TURNS)))
    for key in KEYS:
        kept = get(cluster.url, "/v1/sessions", key).json()["sessions"]
        assert {each["session_id"] for each in kept} == {name for owner, name in sessions if owner == key}
        assert {(each["message_count"], each["turn_count"]) for each in kept} == {(2 * TURNS, TURNS)}
    shares = [replica.turns(Authorization=f"Bearer {KEYS[0]}") for replica in cluster.replicas]
    with capsys.disabled() if SESSIONS > FEW else nullcontext():
        sys.stdout.write(f"\n{SESSIONS} sessions, {received.total()} turns in {seconds:.0f} s, by server {shares}\n")


def _converse(cluster: Cluster, key: str, session_id: str) -> list[str]:
    """Have a whole conversation, each second turn streamed; return what was answered."""
    heard: list[str] = []
    for number in range(TURNS):
        response = post(cluster.url, session_id, f"{session_id}, turn {number}", key, stream=number % 2 == 1)
        assert response.status_code == 200, response.text
        if number % 2:
            assert response.text.rstrip().endswith("data: [DONE]")
            lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: {")]
            deltas = [choice["delta"] for line in lines for choice in json.loads(line)["choices"]]
            heard.append("".join(delta.get("content") or "" for delta in deltas))
        else:
            heard.append(response.json()["choices"][0]["message"]["content"])
    return heard
