"""What clients do with the published openai package works, at a server of pytest's or, as a program, at a running one.

python tests/test_basic.py: BASE_URL is the server (http://localhost:8000), TEST_API_KEY one of its keys, where it has
any.
"""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import openai
import pytest

from live_checks import TIMEOUT_SECONDS, Check, Target, run_checks

if TYPE_CHECKING:
    from openai.types import CompletionUsage
    from openai.types.chat import ChatCompletionMessageParam

    from conftest import Server

MODEL = "haiku"
LONG = "Remember this, please: my name is Alice, and I am learning Python on Thursdays. Answer with one word."
SHORT = "What is my name?"


def client_of(target: Target) -> openai.OpenAI:
    """A client of the server; where it wants no key, any will do."""
    return openai.OpenAI(base_url=f"{target.url}/v1", api_key=target.key or "not-needed", timeout=TIMEOUT_SECONDS)


def ask(client: openai.OpenAI, text: str, session_id: str | None = None) -> CompletionUsage:
    """Ask one question. Returns what it took."""
    completion = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": text}],
        extra_body={"session_id": session_id} if session_id else None,
    )
    assert completion.choices[0].message.content, completion
    assert completion.choices[0].finish_reason == "stop", completion
    assert completion.usage is not None, completion
    return completion.usage


def check_completion(target: Target) -> str:
    """A question is answered, and its tokens are counted."""
    with client_of(target) as client:
        usage = ask(client, "Say hello, and nothing else.")
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage
    return f"{usage.prompt_tokens} + {usage.completion_tokens} tokens"


def check_streaming(target: Target) -> str:
    """An answer comes in pieces, from the role to the reason why it ends."""
    with client_of(target) as client:
        messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Count to five."}]
        chunks = [*client.chat.completions.create(model=MODEL, messages=messages, stream=True)]
    assert chunks[0].choices[0].delta.role == "assistant", chunks[0]
    assert chunks[-1].choices[0].finish_reason == "stop", chunks[-1]
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert pieces, chunks
    return f"{len(pieces)} pieces of text"


def check_session_continuity(target: Target) -> str:
    """A session's second question reaches Claude together with the first and its answer, though it is sent alone."""
    session_id = f"test-basic-{uuid.uuid4()}"
    with client_of(target) as client:
        first = ask(client, LONG, session_id)
        second = ask(client, SHORT, session_id)
    # By the tokens, because an answer in words proves nothing: a model may guess, and the demo doesn't understand.
    assert second.prompt_tokens > first.prompt_tokens, (first, second)
    session = target.request("GET", f"/v1/sessions/{session_id}")
    assert session.json()["message_count"] == 4, session.text
    assert target.request("DELETE", f"/v1/sessions/{session_id}").status_code == 200
    return f"{first.prompt_tokens} tokens were read, then {second.prompt_tokens}"


def check_unknown_model(target: Target) -> str:
    """A model that nobody has is OpenAI's 404."""
    with client_of(target) as client:
        messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
        try:
            client.chat.completions.create(model="no-such-model", messages=messages)
        except openai.NotFoundError as error:
            code = error.code
        else:
            raise AssertionError("it was answered")
    assert code == "model_not_found", code
    return f"404 {code}"


CHECKS: tuple[Check, ...] = (check_completion, check_streaming, check_session_continuity, check_unknown_model)


@pytest.mark.parametrize("check", CHECKS)
def test_the_client_is_served(server: Server, check: Check) -> None:
    """What the program checks holds."""
    assert check(Target(server.url))


if __name__ == "__main__":
    sys.exit(run_checks("basic", CHECKS, f"tests/{Path(__file__).name}"))
