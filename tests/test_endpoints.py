"""The endpoints answer, at a server of pytest's or, as a program, at a running one: python tests/test_endpoints.py.

BASE_URL is the server (http://localhost:8000), TEST_API_KEY one of its keys, where it has any.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from live_checks import Check, Target, run_checks

if TYPE_CHECKING:
    from conftest import Server

MODEL = "haiku"


def check_health(target: Target) -> str:
    """The server says that it is healthy."""
    response = target.request("GET", "/health")
    assert response.status_code == 200, response.text
    assert response.json()["status"] == "healthy", response.text
    return f"version {response.json()['version']}"


def check_models(target: Target) -> str:
    """Models are listed."""
    response = target.request("GET", "/v1/models")
    assert response.status_code == 200, response.text
    names = [model["id"] for model in response.json()["data"]]
    assert MODEL in names, names
    return f"{len(names)} names"


def check_chat_completion(target: Target) -> str:
    """A question is answered."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello, and nothing else."}]}
    response = target.request("POST", "/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["object"] == "chat.completion", answer
    assert answer["choices"][0]["message"]["content"], answer
    assert answer["usage"]["total_tokens"] > 0, answer
    cost = response.headers.get("x-claude-cost-usd")
    return f"{answer['model']}, {answer['usage']['total_tokens']} tokens" + (f", ${cost}" if cost else "")


def check_auth_status(target: Target) -> str:
    """The server has a complete login at Claude."""
    response = target.request("GET", "/v1/auth/status")
    assert response.status_code == 200, response.text
    status = response.json()
    assert status["complete"], f"missing: {status['missing']}. {status['hint']}"
    return f"login {status['method']}"


CHECKS: tuple[Check, ...] = (check_health, check_models, check_chat_completion, check_auth_status)


@pytest.mark.parametrize("check", CHECKS)
def test_the_endpoint_answers(server: Server, check: Check) -> None:
    """What the program checks holds."""
    assert check(Target(server.url))


if __name__ == "__main__":
    sys.exit(run_checks("endpoint", CHECKS, f"tests/{Path(__file__).name}"))
