"""From bytes to a request: whatever comes is a request or a 400 that names the field at fault."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import InvalidRequestError, RequestTooLargeError
from models import ChatCompletionRequest
from request_body import find_faults_of_shape, parse_chat_completion, parse_json_object, read_body

HELLO = {"role": "user", "content": "Hello"}
LIMIT = 1000


async def chunked(*chunks: bytes) -> AsyncIterator[bytes]:
    """A body that arrives in these pieces."""
    for chunk in chunks:
        yield chunk


def read(*chunks: bytes) -> dict[str, Any]:
    """Read a body that arrives in these pieces."""

    async def reading() -> dict[str, Any]:
        return parse_json_object(await read_body(chunked(*chunks), LIMIT))

    return anyio.run(reading)


def parse(body: dict[str, Any]) -> ChatCompletionRequest | InvalidRequestError:
    """Parse a body; an InvalidRequestError is a result, too."""
    try:
        return parse_chat_completion(body)
    except InvalidRequestError as error:
        return error


def names_a_path(param: str, body: Any) -> bool:
    """Whether `param` leads into `body`; its last step may be what is missing there."""
    *steps, last = param.split(".")
    for step in steps:
        body = body[int(step[1:-1]) if step.startswith("[") else step]
    return 0 <= int(last[1:-1]) < len(body) if last.startswith("[") else isinstance(body, dict)


OPTIONAL = [name for name, field in ChatCompletionRequest.model_fields.items() if not field.is_required()]


@pytest.mark.parametrize("name", OPTIONAL)
def test_null_is_the_same_as_nothing(name: str) -> None:
    """SDKs send null for what their user left open; every optional parameter takes it."""
    body = {"model": "m", "messages": [HELLO]}
    assert parse({**body, name: None}) == parse(body)


@pytest.mark.parametrize("chunks", [[b'{"model": "\xc3\xbc"}'], [b'{"model": "\xc3', b"", b'\xbc"}'], [b"{", b"}"]])
def test_a_body_may_come_in_pieces(chunks: list[bytes]) -> None:
    """Pieces are joined before they are read, also where one ends inside a character."""
    assert read(*chunks) == json.loads(b"".join(chunks))


@pytest.mark.parametrize(("length", "fits"), [(LIMIT, True), (LIMIT + 1, False)])
def test_the_limit_is_the_last_size_that_fits(length: int, fits: bool) -> None:
    """A body of exactly the limit is read, one byte more is a 413."""
    raw = b"{}".ljust(length)
    if fits:
        assert read(raw) == {}
    else:
        with pytest.raises(RequestTooLargeError):
            read(raw)


@pytest.mark.asyncio
async def test_nothing_is_read_beyond_the_limit() -> None:
    """The client is stopped as soon as the limit is passed."""
    seen: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            seen.append(len(seen))
            yield b"x" * 400

    with pytest.raises(RequestTooLargeError):
        await read_body(endless(), LIMIT)
    assert len(seen) == 3


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"\xff\xfe", b"{'a': 1}", b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": "\\ud83d"}', b'{"\\udc00": 1}'],
)
def test_what_is_no_json_is_named_so(raw: bytes) -> None:
    """No text, no JSON, or JSON of no text: each has the code for it."""
    with pytest.raises(InvalidRequestError) as caught:
        read(raw)
    assert caught.value.code == "invalid_json"


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (rb'{"messages": [{"role": "user", "content": "a\u0000b"}]}', "messages.[0].content"),
        (rb'{"metadata": {"a\u0000": 1}}', "metadata"),
        (b'{"seed": 1e999}', "seed"),
        (b'{"tools": [{"function": {"parameters": {"maximum": -1E+400}}}]}', "tools.[0].function.parameters.maximum"),
        (b'{"temperature": ' + b"9" * 400 + b".5}", "temperature"),
        (b'{"seed": 1' + b"0" * 299 + b"e20}", "seed"),
        (rb'{"a\u0000": 1}', None),
        (b'{"a": [-' + b"9" * 309 + b"]}", "a.[0]"),
    ],
)
def test_what_nobody_further_on_could_take_is_named(raw: bytes, param: str | None) -> None:
    """NUL characters, and numbers beyond what computers have, are a 400 at their place."""
    with pytest.raises(InvalidRequestError) as caught:
        read(raw)
    assert (caught.value.param, caught.value.code) == (param, "invalid_value")


@pytest.mark.parametrize(
    "raw", [rb'{"a": "\\u0000"}', b'{"a": "1e999"}', b'{"a": 1e200}', b'{"a": ' + b"9" * 308 + b"}"]
)
def test_what_only_looks_so_is_taken(raw: bytes) -> None:
    """Text about such things, and numbers that there are."""
    assert read(raw) == json.loads(raw)


def test_a_body_may_be_so_deep_and_no_deeper() -> None:
    """Two hundred levels are; what is deeper is a 400 that says how many may be."""
    assert read(b'{"a": ' + b"[" * 198 + b"]" * 198 + b"}")
    with pytest.raises(InvalidRequestError, match="200 levels"):
        read(b'{"a": ' + b"[" * 201 + b"]" * 201 + b"}")


def test_escapes_of_a_whole_pair_are_text() -> None:
    """Two halves that belong together are a character like others."""
    assert read(b'{"a": "\\ud83d\\ude42"}') == {"a": "\U0001f642"}


@pytest.mark.parametrize("raw", [b"[" * 200_000, b'{"a":' * 200_000, b'{"a": ' + b"9" * 10_000 + b"}"])
def test_json_that_python_cant_hold_is_a_400(raw: bytes) -> None:
    """Endless nesting and endless numbers are the client's fault, not a failure."""
    with pytest.raises(InvalidRequestError):
        parse_json_object(raw)


@given(st.binary(max_size=60) | st.text(max_size=30).map(str.encode))
def test_any_bytes_are_an_object_or_a_400(raw: bytes) -> None:
    """No bytes whatever raise anything but InvalidRequestError."""
    try:
        body: Any = read(raw)
    except InvalidRequestError:
        return
    assert isinstance(body, dict)


def test_the_first_fault_is_named_and_quoted_in_part() -> None:
    """Of several faults the first is told, and a role of any length makes no message of that length."""
    faulty = parse({"model": 5, "messages": [{"role": "user", "content": [{"type": "text"}]}]})
    assert isinstance(faulty, InvalidRequestError)
    assert faulty.param == "model"
    strange = parse({"model": "m", "messages": [{"role": "x" * 100_000}]})
    assert isinstance(strange, InvalidRequestError)
    assert len(strange.message) < 200


def test_all_faults_are_found_in_order() -> None:
    """Each place that is wrong is told once, whatever else is wrong beside it or deeper in."""
    text, call = {"type": "text", "text": "x"}, {"id": "a", "function": {"name": "f"}}
    messages: list[Any] = [
        {"role": "user", "content": ["x", text, {"type": "text"}]},
        {"role": "assistant", "tool_calls": [call, {"id": 5}]},
        {"role": "user", "content": 5},
        {"content": "x"},
    ]
    faults = find_faults_of_shape({"messages": messages, "temperature": 3, "stop": ["a", 1]})
    assert [fault.param for fault in faults] == [
        "model",
        "messages.[0].content.[0]",
        "messages.[0].content.[2].text",
        "messages.[1].tool_calls.[0].function.arguments",
        "messages.[1].tool_calls.[1].id",
        "messages.[1].tool_calls.[1].function",
        "messages.[2].content",
        "messages.[3].role",
        "temperature",
        "stop.[1]",
    ]


@pytest.mark.parametrize(
    ("message", "field", "code"),
    [
        ({"role": "tool", "content": "x"}, "tool_call_id", "missing_required_parameter"),
        ({"role": "user", "content": ["x"]}, "content.[0]", "invalid_type"),
        ({"role": "user", "content": [{"type": "text"}]}, "content.[0].text", "missing_required_parameter"),
        ({"role": "assistant", "tool_calls": [{"id": "a"}]}, "tool_calls.[0].function", "missing_required_parameter"),
        ({"content": "x"}, "role", "missing_required_parameter"),
        ({"role": "user", "content": 5, "user": "bob"}, "content", "invalid_type"),
        ({"role": "tool", "tool": {}, "content": "x"}, "tool_call_id", "missing_required_parameter"),
        ({"role": "user", "content": [{"type": "text", "text": {"text": 1}}]}, "content.[0].text", "invalid_type"),
    ],
)
def test_a_fault_deep_inside_is_named_by_its_path(message: dict[str, Any], field: str, code: str) -> None:
    """The path goes through lists and parts, and has no names of ours in it."""
    result = parse({"model": "sonnet", "messages": [HELLO, message]})
    assert isinstance(result, InvalidRequestError)
    assert (result.param, result.code) == (f"messages.[1].{field}", code)


# Names and values that lead deep into the shapes, and some that don't.
NAMES = st.sampled_from(
    [*ChatCompletionRequest.model_fields, *("role", "content", "type", "text", "tool_calls", "function", "name", "id")]
)
WORDS = st.sampled_from(["system", "user", "assistant", "tool", "text", "refusal", "function", "image_url", ""])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS
ANYTHING = st.recursive(
    SCALARS | st.text(max_size=5),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(NAMES | st.text(max_size=5), each, max_size=4),
    max_leaves=12,
)
MESSAGE = st.fixed_dictionaries({}, optional={"role": WORDS | SCALARS, "content": ANYTHING, "tool_calls": ANYTHING})
NEARLY = st.fixed_dictionaries(
    {}, optional={"model": st.just("sonnet") | SCALARS, "messages": st.lists(MESSAGE | ANYTHING, max_size=3)}
)


@given(NEARLY | st.dictionaries(NAMES | st.text(max_size=5), ANYTHING, max_size=4))
def test_any_object_is_a_request_or_a_400_that_names_its_place(body: dict[str, Any]) -> None:
    """No JSON whatever raises anything but InvalidRequestError, and its `param` leads to a place in the body."""
    result, faults = parse(body), find_faults_of_shape(body)
    assert [fault.message for fault in faults][:1] == ([str(result)] if faults else [])
    if isinstance(result, InvalidRequestError):
        assert result.param
        assert re.fullmatch(r"\w+(\.\[\d+\]|\.\w+)*", result.param)
        assert names_a_path(result.param, body)
    else:
        assert [message.role for message in result.messages] == [message["role"] for message in body["messages"]]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [0] * 10_001}, "messages"),
        ({"messages": [{"role": "user", "content": [0] * 6_000}] * 2}, "messages.[1].content"),
        ({"messages": [{"role": "assistant", "tool_calls": [0] * 10_001}]}, "messages.[0].tool_calls"),
        ({"messages": [], "tools": [0] * 1_000_000}, "tools"),
    ],
)
def test_a_list_that_is_too_long_isnt_looked_into(body: dict[str, Any], param: str) -> None:
    """To find a million faults would hold up all other requests: the length alone is the fault."""
    for check in (parse_chat_completion, lambda body: raise_first(find_faults_of_shape(body))):
        with pytest.raises(InvalidRequestError) as caught:
            check({"model": "sonnet", **body})
        assert (caught.value.param, caught.value.code) == (param, "array_above_max_length")


def raise_first(faults: tuple[InvalidRequestError, ...]) -> None:
    """Raise the only fault."""
    (fault,) = faults
    raise fault
