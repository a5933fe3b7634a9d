"""LangChain: its own suite for chat models, `ChatModelIntegrationTests`, over chat completions."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from clients_table import COUNTS
from conftest import Server
from published_clients import run_python

# What the suite itself skips: pictures, documents and sound, which it fetches from the net, and its recorder.
SKIPPED = {
    "test_anthropic_inputs",
    "test_audio_inputs",
    "test_image_inputs",
    "test_image_tool_message",
    "test_pdf_inputs",
    "test_pdf_tool_message",
    "test_stream_time",
}
OURS = {
    "test_agent_loop",
    "test_bind_runnables_as_tools",
    "test_json_mode",
    "test_structured_few_shot_examples",
    "test_structured_output",
    "test_structured_output_async",
    "test_tool_calling",
    "test_tool_calling_async",
    "test_tool_calling_with_no_arguments",
    "test_tool_choice",
    "test_tool_message_error_status",
    "test_tool_message_histories_list_content",
    "test_tool_message_histories_string_content",
    "test_unicode_tool_call_integration",
}


def test_langchains_suite_passes(
    server: Server, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Every test of the suite passes but those that it skips by itself, the tests of functions among them."""
    result = run_python(["-m", "pytest", "-v", "langchain_chat_model.py"], server, tmp_path)
    # How each test ended, once for each of its parameters.
    lines: list[tuple[str, str]] = re.findall(r"::(test_\w+)\S* ([A-Z]+)", result.stdout)
    kinds = (
        "passed" if outcome == "PASSED" else "skipped" if outcome == "SKIPPED" else "failed" for _, outcome in lines
    )
    record_property(COUNTS, dict(Counter(kinds)))
    assert result.returncode == 0, result.stdout + result.stderr
    ended: dict[str, set[str]] = {}
    for name, outcome in lines:
        ended.setdefault(name, set()).add(outcome)
    assert {name for name, outcomes in ended.items() if outcomes == {"SKIPPED"}} == SKIPPED
    assert {name for name, outcomes in ended.items() if outcomes == {"PASSED"}} == ended.keys() - SKIPPED
    assert ended.keys() >= OURS
