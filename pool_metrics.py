"""The pool's state as Prometheus reads it."""

from collections.abc import Iterable

from prometheus_client import CONTENT_TYPE_LATEST, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

from process_pool import PoolState

CONTENT_TYPE = CONTENT_TYPE_LATEST


class _Snapshot(Collector):
    """One state of the pool, which does the counting itself."""

    def __init__(self, state: PoolState) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        """Make the metrics."""
        state = self._state
        yield _processes(state)
        yield GaugeMetricFamily(
            "claude_wrapper_process_limit", "Processes that may work or wait parked at a time.", state.limit
        )
        yield GaugeMetricFamily("claude_wrapper_queue_length", "Requests that wait for a process.", state.queue_length)
        yield SummaryMetricFamily(
            "claude_wrapper_queue_wait_seconds", "Waits for a place, none included.", state.served, state.waited
        )
        yield _leases(state)


def _processes(state: PoolState) -> Metric:
    processes = GaugeMetricFamily("claude_wrapper_processes", "Claude Code processes by state.", labels=["state"])
    for name, number in (("working", state.working), ("parked", state.parked), ("spare", state.spare)):
        processes.add_metric([name], number)
    return processes


def _leases(state: PoolState) -> Metric:
    leases = CounterMetricFamily("claude_wrapper_leases", "Turns by where their process came from.", labels=["origin"])
    for origin, number in state.leases.items():
        leases.add_metric([origin], number)
    return leases


def render(state: PoolState) -> bytes:
    """Write the pool's state in Prometheus' text form."""
    return generate_latest(_Snapshot(state))
