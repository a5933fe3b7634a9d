"""What would become of a request: /v1/debug/request, /v1/compatibility, and DEBUG_MODE's details of errors."""

import json
import logging
from typing import Any

import httpx
import jsonschema
import pytest

from conftest import Server, ServerFactory
from demo_upstream import Reply
from models import EXAMPLE_REQUEST
from parameter_validator import PARAMETERS
from report_models import DebugInfo

DEBUG, COMPATIBILITY, CHAT = "/v1/debug/request", "/v1/compatibility", "/v1/chat/completions"
HELLO = {"role": "user", "content": "Hello"}
REQUEST: dict[str, Any] = {"model": "sonnet", "messages": [HELLO]}
SOUND = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
NO_FATES: dict[str, list[str]] = {"honoured": [], "adjusted": [], "ignored": [], "refused": []}
SECRET = "hunter2-of-the-prompt"


def debug(server: Server, body: Any, **headers: str) -> dict[str, Any]:
    """What the server says of a request: of JSON, or of bytes as they are."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = httpx.post(f"{server.url}{DEBUG}", content=raw, headers=headers, timeout=30)
    assert response.status_code == 200, response.text
    (name,) = response.json()
    info: dict[str, Any] = response.json()[name]
    assert (name, [*info]) == ("debug_info", [*DebugInfo.model_fields])
    return info


def compatibility(server: Server, body: Any) -> dict[str, list[dict[str, Any]]]:
    """What the server says of a body's parameters."""
    response = httpx.post(f"{server.url}{COMPATIBILITY}", json=body, timeout=30)
    assert response.status_code == 200, response.text
    report: dict[str, list[dict[str, Any]]] = response.json()
    return report


def errors(info: dict[str, Any]) -> list[tuple[str | None, str | None]]:
    """Where a request is wrong, and the code for it."""
    return [(error["param"], error["code"]) for error in info["validation_result"]["errors"]]


# What was received


def test_it_says_what_was_received_and_starts_no_turn(server: Server) -> None:
    """Method, address, headers, size and parsed body are told as they came, and Claude's API is not asked."""
    raw = b' {"model": "sonnet", "messages": [{"role": "user", "content": "Hello"}]}'
    info = debug(server, raw, **{"X-Marker": "a, b"})
    assert (info["method"], info["url"]) == ("POST", f"{server.url}{DEBUG}")
    assert info["headers"]["x-marker"] == "a, b"
    assert info["headers"]["content-length"] == str(len(raw))
    assert (info["raw_body_size"], info["is_json"], info["json_parse_error"]) == (len(raw), True, None)
    assert info["parsed_body"] == REQUEST
    assert info["debug_mode_enabled"] is False
    assert not server.upstream.messages_requests()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", "Bearer sk-very-secret"),
        ("Proxy-Authorization", "Basic very-secret"),
        ("Cookie", "session=very-secret"),
        ("X-API-Key", "very-secret"),
        ("api-key", "very-secret"),
        ("X-Auth-Token", "very-secret"),
        ("X-Amz-Signature", "very-secret"),
        ("X-Forwarded-Client", "Bearer very-secret"),
        ("X-Something", "sk-very-secret"),
    ],
)
def test_of_secrets_only_their_presence_is_told(server: Server, name: str, value: str) -> None:
    """Whatever a client authenticates with is named, and its value stands nowhere in the answer."""
    info = debug(server, REQUEST, **{name: value})
    assert info["headers"][name.lower()] == "[redacted]"
    assert "very-secret" not in json.dumps(info)


def test_secrets_of_the_address_are_not_told(server: Server) -> None:
    """A key in the query is hidden, the rest of it stays as it came."""
    address = f"{server.url}{DEBUG}?a=1%202&api%5Fkey=very-secret&flag&b="
    info = httpx.post(address, json=REQUEST, timeout=30).json()["debug_info"]
    assert info["url"] == f"{server.url}{DEBUG}?a=1%202&api%5Fkey=[redacted]&flag&b="


def test_a_header_that_comes_twice_is_told_twice(server: Server) -> None:
    """Values of one name are joined, as HTTP has it."""
    response = httpx.post(f"{server.url}{DEBUG}", json=REQUEST, headers=[("X-A", "1"), ("X-A", "2")], timeout=30)
    assert response.json()["debug_info"]["headers"]["x-a"] == "1, 2"


def test_a_host_that_is_none_is_no_failure(serve: ServerFactory) -> None:
    """What a client says of our address may be nonsense: it is told, and the rest of the report stands."""
    info = debug(serve(api_key="a-key"), REQUEST, Host="[", Authorization="Bearer a-key")
    assert (info["headers"]["host"], info["validation_result"]["valid"]) == ("[", True)


# How it validates


def test_a_valid_request_is_told_as_it_is_understood(server: Server) -> None:
    """There are no errors, and the request that the server would act on is shown, without what it leaves out."""
    body = {**REQUEST, "stop": "END", "max_tokens": 5, "seed": 1, "user": None}
    result = debug(server, body)["validation_result"]
    assert (result["valid"], result["errors"], result["errors_left_out"]) == (True, [], 0)
    assert result["normalized_request"] == {**REQUEST, "stop": ["END"], "max_tokens": 5}


def test_the_example_is_valid(server: Server) -> None:
    """Sent back, the example that every answer has is valid, and a chat completion can be had with it."""
    example = debug(server, b"")["example_valid_request"]
    assert example == EXAMPLE_REQUEST
    assert debug(server, example)["validation_result"]["valid"]
    assert httpx.post(f"{server.url}{CHAT}", json=example, timeout=30).status_code == 200


def test_all_errors_are_told(server: Server) -> None:
    """Refused parameters, wrong values, pieces that can't be converted and an unknown model are told at once."""
    messages = [
        {"role": "user", "content": [SOUND, {"type": "text", "text": "x"}, SOUND]},
        {"role": "tool", "content": "x", "tool_call_id": "a"},
    ]
    info = debug(server, {"model": "gpt-2", "messages": messages, "n": 9, "temperature": 3, "session_id": ""})
    assert not info["validation_result"]["valid"]
    assert info["validation_result"]["normalized_request"] is None
    assert errors(info) == [
        ("n", "integer_above_max_value"),
        ("temperature", "decimal_above_max_value"),
        ("session_id", "invalid_session_id"),
        ("messages.[0].content.[0].type", "unsupported_content"),
        ("messages.[0].content.[2].type", "unsupported_content"),
        ("messages.[1].role", None),
        (None, "model_not_found"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model": "sonnet", "messages": []},
        {**REQUEST, "temperature": 3, "top_p": "x"},
        {**REQUEST, "tools": [], "n": 9},
        {**REQUEST, "a b": 1},
        {**REQUEST, "model": "gpt-2"},
        {**REQUEST, "session_id": "\n"},
        {**REQUEST, "stream_options": {"include_usage": True}},
        {**REQUEST, "messages": [{"role": "assistant", "content": "x"}]},
        {**REQUEST, "messages": [{"role": "system", "content": [SOUND]}, HELLO]},
        {**REQUEST, "messages": [{"role": "assistant", "content": [5, {"type": "text"}]}]},
    ],
)
def test_the_first_error_is_the_one_that_chat_answers(server: Server, body: dict[str, Any]) -> None:
    """What is reported as the first fault of a request is what the request itself fails of."""
    first = debug(server, body)["validation_result"]["errors"][0]
    error = httpx.post(f"{server.url}{CHAT}", json=body, timeout=30).json()["error"]
    assert {name: error[name] for name in first} == first


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (b"", "line 1 column 0"),
        (b'{"model": nope}', "line 1 column 12"),
        (b'{\n"a": 1,\n}', "line 3 column 1"),
        (b'{"a": "\xff"}', "line 1 column 8"),
        (b'{"a": NaN}', "line 1 column 7"),
    ],
)
def test_what_is_no_json_is_told_with_its_place(server: Server, raw: bytes, place: str) -> None:
    """A body that can't be parsed is a report, too, and says where it breaks."""
    info = debug(server, raw)
    assert (info["is_json"], info["parsed_body"], info["raw_body_size"]) == (False, None, len(raw))
    assert place in info["json_parse_error"]
    assert errors(info) == [(None, "invalid_json")]
    assert place in info["validation_result"]["errors"][0]["message"]
    assert info["parameters"] == NO_FATES


@pytest.mark.parametrize("body", [[1], "x", 5, None, True])
def test_json_that_is_no_object_is_told(server: Server, body: Any) -> None:
    """It is JSON, it is shown, and it isn't valid."""
    info = debug(server, body)
    assert (info["is_json"], info["parsed_body"], info["parameters"]) == (True, body, NO_FATES)
    assert [error["message"] for error in info["validation_result"]["errors"]] == [
        "The request body must be a JSON object."
    ]


def test_numbers_and_depths_that_json_hardly_holds_are_told(server: Server) -> None:
    """What we can parse we can tell, if need be as null."""
    raw = b'{"a": 1e999, "b": ' + b"9" * 4000 + b', "c": ' + b"[" * 190 + b"]" * 190 + b"}"
    info = debug(server, raw)
    parsed = info["parsed_body"]
    assert (parsed["a"], len(str(parsed["b"]))) == (None, 4000)
    assert errors(info) == [("a", "invalid_value")]
    assert errors(debug(server, b'{"b": ' + b"9" * 4000 + b"}")) == [("b", "invalid_value")]


def test_faults_without_number_are_counted(server: Server) -> None:
    """Of faults beyond all reading a thousand are told, and how many there are beside."""
    result = debug(server, {"model": "sonnet", "messages": [{}] * 1200})["validation_result"]
    assert (len(result["errors"]), result["errors_left_out"]) == (1000, 200)


def test_the_fates_of_the_parameters_are_told(server: Server) -> None:
    """Each parameter is honoured, adjusted, ignored or refused; what is wrong elsewhere changes nothing of that."""
    body: dict[str, Any] = {
        "messages": [HELLO],
        "temperature": 1.5,
        "stop": ["END"],
        "top_p": 2,
        "seed": 1,
        "mine": 1,
        "tools": [],
    }
    body |= {"n": 1, "user": None, "a.b": 1, "a b.c": None}
    assert debug(server, body)["parameters"] == {
        "honoured": ["messages", "stop", "n"],
        "adjusted": ["temperature"],
        "ignored": ["seed", "mine", "a.b"],
        "refused": ["top_p", "tools", "a b.c"],
    }


def test_the_limit_of_bodies_holds(serve: ServerFactory) -> None:
    """A body over MAX_REQUEST_SIZE is a 413, at both addresses."""
    server = serve(max_request_size=100)
    for path in (DEBUG, COMPATIBILITY):
        response = httpx.post(f"{server.url}{path}", content=b" " * 101, timeout=30)
        assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")


def test_both_addresses_want_the_key(serve: ServerFactory) -> None:
    """Without a key of the server's nothing is told; with one its value isn't."""
    server = serve(api_key="a-key-of-ours")
    for path in (DEBUG, COMPATIBILITY):
        assert httpx.post(f"{server.url}{path}", json=REQUEST, timeout=30).status_code == 401
        headers = {"Authorization": "Bearer a-key-of-ours"}
        response = httpx.post(f"{server.url}{path}", json=REQUEST, headers=headers, timeout=30)
        assert response.status_code == 200
        assert "a-key-of-ours" not in response.text


# Compatibility


def test_compatibility_is_the_validators_table(server: Server) -> None:
    """Every parameter of the table, asked for in earnest, has the fate, the new name and the reason of the table."""
    values = {"messages": [HELLO], "model": "sonnet", "stream": True, "stream_options": {}, "session_id": "s"}
    values |= {"enable_tools": True}
    values |= {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto"}
    values |= {"functions": [{"name": "f"}], "function_call": "auto", "parallel_tool_calls": True}
    body: dict[str, Any] = {name: values.get(name, 1) for name in PARAMETERS} | {"stop": "x", "n": 1}
    body |= {"reasoning_effort": "low", "service_tier": "auto", "response_format": {"type": "text"}}
    told: dict[str, Any] = {}
    # Functions come in one form or the other.
    for others in ({"functions", "function_call"}, {"tools", "tool_choice"}):
        report = compatibility(server, {name: value for name, value in body.items() if name not in others})
        for fate, rows in report.items():
            told |= {row["parameter"]: (fate, row["becomes"], row["reason"]) for row in rows}
    for name, row in PARAMETERS.items():
        fate, becomes, reason = told.pop(name)
        assert (fate, becomes) == (row.fate, row.becomes)
        assert (row.reason or "") in (reason or "")
    assert not told


def test_compatibility_judges_the_values_of_the_body(server: Server) -> None:
    """Harmless values are supported, nulls left out, names of nobody's unknown, and wrong values refused with why."""
    body: dict[str, Any] = {
        "logprobs": False,
        "user": None,
        "mine": 1,
        "temperature": 3,
        "max_tokens": 5,
        "seed": 1,
        "stream_options": {},
    }
    report = compatibility(server, body)
    assert {fate: [row["parameter"] for row in rows] for fate, rows in report.items()} == {
        "supported": ["logprobs"],
        "mapped": ["max_tokens"],
        "ignored": ["seed"],
        "refused": ["temperature", "stream_options"],
        "unknown": ["mine"],
    }
    assert "less than or equal to 2" in report["refused"][0]["reason"]
    assert "'stream' is enabled" in report["refused"][1]["reason"]


def test_compatibility_of_no_object_is_a_400(server: Server) -> None:
    """There is nothing to report of what has no parameters."""
    for raw, code in ((b"{", "invalid_json"), (b"[]", None)):
        response = httpx.post(f"{server.url}{COMPATIBILITY}", content=raw, timeout=30)
        assert (response.status_code, response.json()["error"]["code"]) == (400, code)


# DEBUG_MODE


def test_debug_mode_adds_all_faults_to_an_error(serve: ServerFactory) -> None:
    """The error keeps its four keys, and `details` has every fault with param, message and type."""
    server = serve(debug_mode=True)
    body = {"messages": [{"role": "user"}], "temperature": 3}
    response = httpx.post(f"{server.url}{CHAT}", json=body, timeout=30)
    error = response.json()["error"]
    details = error.pop("details")
    assert (response.status_code, error["param"], error["type"]) == (400, "model", "invalid_request_error")
    assert error["code"] == "missing_required_parameter"
    assert [*error] == ["message", "type", "param", "code"]
    assert details[0] == {"param": "model", "message": error["message"], "type": error["code"]}
    assert [(each["param"], each["type"]) for each in details[1:]] == [
        ("messages.[0].content", "missing_required_parameter"),
        ("temperature", "decimal_above_max_value"),
    ]
    assert debug(server, body)["debug_mode_enabled"] is True


def test_debug_mode_says_where_json_breaks(serve: ServerFactory) -> None:
    """The one detail of a body that can't be parsed is its place."""
    response = httpx.post(f"{serve(debug_mode=True).url}{CHAT}", content=b'{"a": nope}', timeout=30)
    (detail,) = response.json()["error"]["details"]
    assert (detail["param"], detail["type"]) == (None, "invalid_json")
    assert "line 1 column 8" in detail["message"]


def test_debug_mode_explains_a_refusal_of_claudes(serve: ServerFactory) -> None:
    """Where Claude's API refuses what looked right to us, its reason is the one detail."""
    server = serve(debug_mode=True)
    server.upstream.script(Reply(status=400, error_message="Not like this"), times=None)
    error = httpx.post(f"{server.url}{CHAT}", json=REQUEST, timeout=30).json()["error"]
    assert error["details"] == [{"param": None, "message": error["message"], "type": "invalid_request_error"}]


@pytest.mark.parametrize("debug_mode", [False, True])
def test_the_log_tells_faults_and_no_values(
    serve: ServerFactory, caplog: pytest.LogCaptureFixture, debug_mode: bool
) -> None:
    """With DEBUG_MODE a line names each fault's place and kind; nothing of what the client wrote is in it."""
    server = serve(debug_mode=debug_mode)
    messages = [{"role": SECRET, "content": SECRET}, {"role": "user", "content": [{"type": SECRET, "text": SECRET}]}]
    with caplog.at_level(logging.DEBUG):
        for body in ({"messages": messages, "model": "sonnet", "n": 9}, {"messages": messages[1:], "model": "sonnet"}):
            error = httpx.post(f"{server.url}{CHAT}", json=body, timeout=30).json()["error"]
            assert ("details" in error) == debug_mode
    lines = [record.getMessage() for record in caplog.records if record.name == "request_faults"]
    assert SECRET not in caplog.text
    assert any("messages.[0].role" in line for line in lines) == debug_mode
    assert any("unsupported_content at 'messages.[0].content.[0].type'" in line for line in lines) == debug_mode
    assert bool(lines) == debug_mode


# The document


@pytest.mark.parametrize("path", [DEBUG, COMPATIBILITY])
def test_the_openapi_document_describes_body_and_answer(server: Server, path: str) -> None:
    """Any object is a body of both, the example is one, and the answers are as the document says."""
    document = httpx.get(f"{server.url}/openapi.json").json()
    operation = document["paths"][path]["post"]
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    body = document["components"]["schemas"][reference.rpartition("/")[2]]
    assert body["additionalProperties"] is True
    assert body["examples"] == [EXAMPLE_REQUEST]
    assert {"200", "401", "413"} <= operation["responses"].keys()
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    for example in (EXAMPLE_REQUEST, {"n": 9}):
        answer = httpx.post(f"{server.url}{path}", json=example, timeout=30).json()
        jsonschema.validate(answer, {**schema, "components": document["components"]})
