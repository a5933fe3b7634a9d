"""The AI SDK's text functions with tools, over both providers that its users point at a server such as this."""

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


@pytest.mark.parametrize("mode", ["generate", "stream"])
@pytest.mark.parametrize("provider", ["compatible", "openai"])
def test_tools_run_until_the_answer(serve: ServerFactory, tmp_path: Path, provider: str, mode: str) -> None:
    """Three steps lead to the answer; streamed, text and each call's arguments come in pieces."""
    server = serve()
    script_the_question(server.upstream)
    result = printed(run_node(["ai_sdk.mjs", MODEL, QUESTION, provider, mode], server, tmp_path))
    assert (result["answer"], result["text"]) == (ANSWER, PREAMBLE + ANSWER)
    assert result["calls"] == ["get_temperature", "get_temperature", "compare"]
    assert result["finish_reasons"] == ["tool-calls", "tool-calls", "stop"]
    assert all(tokens > 0 for tokens in result["total_tokens"])
    if mode == "stream":
        assert result["parts"]["tool-input-start"] == result["parts"]["tool-call"] == 3
        assert result["parts"]["tool-input-delta"] > 3
        assert result["parts"]["text-delta"] > 2
    assert seen(server.upstream) == CONVERSATION
    assert went_on(server) == FOLLOW_UPS
