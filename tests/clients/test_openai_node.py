"""openai-node's `runTools`, as a program of its own."""

from pathlib import Path

import pytest

from conftest import ServerFactory
from published_clients import (
    ANSWER,
    CONVERSATION,
    FOLLOW_UPS,
    MODEL,
    PREAMBLE,
    QUESTION,
    printed,
    run_node,
    script_the_question,
    seen,
    went_on,
)


@pytest.mark.parametrize("mode", ["whole", "stream"])
def test_run_tools_runs_until_the_answer(serve: ServerFactory, tmp_path: Path, mode: str) -> None:
    """The runner calls the program's functions and ends with the answer; streamed, texts come in pieces."""
    server = serve()
    script_the_question(server.upstream)
    result = printed(run_node(["openai_node.mjs", MODEL, QUESTION, mode], server, tmp_path))
    assert result["answer"] == ANSWER
    assert result["calls"] == ["get_temperature", "get_temperature", "compare"]
    assert result["finish_reasons"] == ["tool_calls", "tool_calls", "stop"]
    assert [content or None for content in result["contents"]] == [PREAMBLE, None, ANSWER]
    assert "".join(result["pieces"]) == PREAMBLE + ANSWER
    assert (len(result["pieces"]) > 2) == (mode == "stream")
    assert result["total_tokens"] > 0
    assert seen(server.upstream) == CONVERSATION
    assert went_on(server) == FOLLOW_UPS
