"""What Prometheus reads of the pool, through the real app."""

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from conftest import ServerFactory


def scrape(url: str, **options: str) -> dict[str, float]:
    """The metrics, by name and label."""
    response = httpx.get(f"{url}/metrics", timeout=30, headers=options).raise_for_status()
    assert response.headers["content-type"].startswith("text/plain; version=")
    samples = [sample for family in text_string_to_metric_families(response.text) for sample in family.samples]
    return {".".join((sample.name, *sample.labels.values())): sample.value for sample in samples}


def ask(client: openai.OpenAI) -> None:
    """One turn."""
    client.chat.completions.create(model="claude-sonnet-4-5", messages=[{"role": "user", "content": "Hello"}])


def test_metrics_tell_what_the_pool_does(serve: ServerFactory) -> None:
    """Processes by state, limit, queue and turns by the origin of their process are those of `/v1/pool`."""
    server = serve(max_processes=3, spare_processes=0)
    before = scrape(server.url)
    ask(server.client())
    after = scrape(server.url)
    assert (before["claude_wrapper_leases_total.spawned"], after["claude_wrapper_leases_total.spawned"]) == (0, 1)
    assert (before["claude_wrapper_queue_wait_seconds_count"], after["claude_wrapper_queue_wait_seconds_count"]) == (
        0,
        1,
    )
    assert 0 < after["claude_wrapper_queue_wait_seconds_sum"] < 1
    assert (after["claude_wrapper_process_limit"], after["claude_wrapper_queue_length"]) == (3, 0)
    pool = httpx.get(f"{server.url}/v1/pool").json()
    assert {name: after[f"claude_wrapper_processes.{name}"] for name in pool["processes"]} == pool["processes"]
    assert {name: after[f"claude_wrapper_leases_total.{name}"] for name in pool["leases"]} == pool["leases"]


def test_each_app_counts_for_itself(serve: ServerFactory) -> None:
    """Two servers in one Python process share no counter."""
    first, second = serve(spare_processes=0), serve(spare_processes=0)
    ask(first.client())
    assert scrape(first.url)["claude_wrapper_leases_total.spawned"] == 1
    assert scrape(second.url)["claude_wrapper_leases_total.spawned"] == 0


def test_metrics_want_a_key(serve: ServerFactory) -> None:
    """Where there are keys Prometheus sends one as its bearer token, and nobody reads without."""
    server = serve(api_key="sesame", spare_processes=0)
    assert scrape(server.url, authorization="Bearer sesame")
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        scrape(server.url)
