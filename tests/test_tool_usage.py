"""The counts of calls, by themselves."""

from tool_usage import ToolUsage
from turns import OwnToolEnded


def test_calls_are_counted_for_their_caller() -> None:
    """By tool and outcome; others see nothing of it."""
    usage = ToolUsage()
    for _ in range(2):
        usage.note("anna", OwnToolEnded("id", "Read", "result", ""))
    assert usage.of("anna") == {("Read", "result"): 2}
    assert usage.of("bert") == {}


def test_counts_end_somewhere() -> None:
    """A model may make up names without end; what is counted already goes on."""
    usage = ToolUsage()
    for number in range(2000):
        usage.note("anna", OwnToolEnded("id", f"Tool{number}", "error", ""))
    usage.note("anna", OwnToolEnded("id", "Tool0", "error", ""))
    assert len(usage.of("anna")) == 1000
    assert usage.of("anna")["Tool0", "error"] == 2
