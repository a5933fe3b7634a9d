"""From OpenAI's functions to Claude's tools; what clients and models see of it is in test_function_calling.py."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_functions import call_style, find_faults_of_functions, native_name, to_tool_choice, to_tools
from errors import InvalidRequestError
from models import ChatCompletionRequest
from turns import ToolChoice


def body(**sent: Any) -> ChatCompletionRequest:
    """A request with these parameters."""
    return ChatCompletionRequest.model_validate({"model": "m", "messages": [{"role": "user", "content": "x"}], **sent})


def tools(*names: str, **function: Any) -> list[dict[str, Any]]:
    """Functions of these names."""
    return [{"type": "function", "function": {"name": name, **function}} for name in names]


@given(st.text(min_size=1, max_size=64))
def test_any_name_has_one_that_claude_takes(name: str) -> None:
    """Always the same one; its own, where that will do; and back again it is the client's."""
    native = native_name(name)
    assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", native)
    assert native_name(name) == native_name(native) == native
    assert call_style(body(tools=tools(name))).own_name(native) == name


@given(st.sets(st.text(alphabet="a._- é", min_size=1, max_size=4), min_size=2))
def test_no_two_names_become_one(names: set[str]) -> None:
    """Names that differ stay apart, however alike they are without what Claude doesn't take."""
    assert len({native_name(name) for name in names}) == len(names)


def test_a_name_that_looks_like_anothers_is_refused() -> None:
    """Who names a function like what another's name becomes has two of one name."""
    (fault,) = find_faults_of_functions(body(tools=tools("a.b", native_name("a.b"))))
    assert fault.param == "tools[1].function.name"


@pytest.mark.parametrize("parameters", [None, {}])
def test_no_parameters_are_an_empty_object(parameters: dict[str, Any] | None) -> None:
    """Claude's API wants a schema in any case."""
    (tool,) = to_tools(body(tools=tools("f", parameters=parameters)))
    assert json.loads(tool.definition) == {"name": "f", "input_schema": {"type": "object", "properties": {}}}


def test_all_faults_are_found_and_the_first_is_raised() -> None:
    """Of several functions that are wrong each is told."""
    wrong = body(
        tools=tools("a", "a", parameters={"type": 5}), tool_choice={"type": "function", "function": {"name": "b"}}
    )
    faults = find_faults_of_functions(wrong)
    assert [fault.param for fault in faults] == [
        "tools[0].function.parameters",
        "tools[1].function.name",
        "tools[1].function.parameters",
        "tool_choice",
    ]
    with pytest.raises(InvalidRequestError) as caught:
        to_tools(wrong)
    assert caught.value.message == faults[0].message


def test_a_number_that_nobody_can_write_is_a_fault() -> None:
    """JSON has a larger one than floats do."""
    (fault,) = find_faults_of_functions(body(tools=tools("a", parameters={"default": float("inf")})))
    assert fault.code == "invalid_function_parameters"


def test_schemas_that_are_absurdly_long_are_a_fault() -> None:
    """One by itself, and many together; beyond them none is looked into."""
    long, large = {"enum": ["x" * 300_000]}, {"enum": ["x" * 200_000]}
    (fault,) = find_faults_of_functions(body(tools=tools("a", parameters=long)))
    assert "longer than" in fault.message
    functions = [*tools(*"abcdef", parameters=large), *tools("g", parameters={"type": 5})]
    (fault,) = find_faults_of_functions(body(tools=functions))
    assert (fault.param, "all schemas together" in fault.message) == ("tools[5].function.parameters", True)


@pytest.mark.parametrize(
    ("sent", "choice"),
    [
        ({}, None),
        ({"parallel_tool_calls": False}, None),
        ({"tools": tools("f")}, None),
        ({"tools": tools("f"), "tool_choice": "required"}, ToolChoice("any")),
        ({"functions": [{"name": "f"}]}, ToolChoice("auto", disable_parallel_tool_use=True)),
        ({"functions": [{"name": "f"}], "function_call": "none"}, ToolChoice("none")),
        (
            {"functions": [{"name": "f"}], "function_call": {"name": "f"}},
            ToolChoice("tool", "f", disable_parallel_tool_use=True),
        ),
    ],
)
def test_choices(sent: dict[str, Any], choice: ToolChoice | None) -> None:
    """What says nothing is left out; in the old form there is one call at a time."""
    assert to_tool_choice(body(**sent)) == choice
