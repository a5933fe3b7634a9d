"""The OpenAPI document says all that the server answers: generated requests, right and wrong, find nothing else."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from chat import HELLO, MODEL
from config import load_settings
from conftest import make_settings, serving
from demo_upstream import DemoUpstream, Reply, ToolCall
from main import create_app

# Not `negative_data_rejection`: OpenAI's API takes no notice of much that its document doesn't allow, and so do we.
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]
KEY = {"Authorization": "Bearer a-key"}
DOCUMENT: dict[str, Any] = create_app(load_settings(_env_file=None)).openapi()
OPERATIONS = [(method.upper(), path) for path, operations in DOCUMENT["paths"].items() for method in operations]


@pytest.fixture(scope="module")
def api(api_key_environment: dict[str, str]) -> Iterator[schemathesis.BaseSchema]:
    """What a server that asks for a key says of itself."""
    app = create_app(make_settings(api_key_environment, api_key="a-key", max_timeout=20_000))
    with serving(app) as url:
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_in_the_document(api: schemathesis.BaseSchema, method: str, path: str) -> None:
    """No status, type or shape that isn't described, and never a 500, whatever is sent."""
    operation = api[path][method]
    right, wrong = (operation.as_strategy(mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE))

    @given(st.one_of(right, right.map(of_a_model_that_there_is), wrong), st.sampled_from([KEY, KEY, KEY, {}]))
    @settings(
        max_examples=40 if "requestBody" in DOCUMENT["paths"][path][method.lower()] else 10,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    def holds(case: schemathesis.Case[Any], key: dict[str, str]) -> None:
        case.call_and_validate(headers=key, checks=[*CHECKS, not_a_server_error])

    holds()


def of_a_model_that_there_is(case: schemathesis.Case[Any]) -> schemathesis.Case[Any]:
    """So that more than the model's name is looked at."""
    if isinstance(case.body, dict) and "model" in case.body:
        case.body["model"] = MODEL
    return case


ANSWERS: list[tuple[dict[str, Any], Reply, int]] = [
    ({}, Reply(text="Fine."), 200),
    ({"stream": True, "stream_options": {"include_usage": True}}, Reply(text="Fine.", thinking="Hm"), 200),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, Reply(tool_calls=[ToolCall("f", {})]), 200),
    ({"n": 2}, Reply(text="Fine.", stop_reason="refusal"), 200),
    *[({}, Reply(status=status), status) for status in (400, 401, 402, 403, 404, 409, 413, 418, 429, 500, 501)],
    ({}, Reply(status=529), 503),
    ({}, Reply(garbage="<html>"), 502),
]


@pytest.mark.parametrize(("body", "reply", "status"), ANSWERS)
def test_what_becomes_of_turns_is_in_the_document(
    api: schemathesis.BaseSchema, upstream: DemoUpstream, body: dict[str, Any], reply: Reply, status: int
) -> None:
    """Answers of each kind, and errors of Claude's API of each status."""
    upstream.script(reply, times=None)
    operation = api["/v1/chat/completions"]["POST"]
    whole: Any = {"model": MODEL, "messages": HELLO, **body}
    case = operation.Case(body=whole, media_type="application/json")
    assert case.call_and_validate(headers=KEY, checks=CHECKS).status_code == status
