"""All the faults of a body, against what the request itself fails of."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_functions import to_tools
from errors import InvalidRequestError, UpstreamRefusalError
from message_adapter import to_turn_request
from models import EXAMPLE_REQUEST
from parameter_validator import PARAMETERS, Rules, check_parameters
from request_body import parse_chat_completion
from request_faults import examine, explained
from test_request_body import ANYTHING, NEARLY
from turns import Binding

USUAL = Rules(is_strict=False, most_choices=8, login="anthropic")
PARTS = st.sampled_from([{"type": "text", "text": "x"}, {"type": "image_url"}, {"type": "text"}])
ARGUMENTS = st.sampled_from("{[") | st.just("{}")
CALLS = st.sampled_from([{"id": name, "function": {"name": "f", "arguments": text}} for name in "ab" for text in "{["])
MESSAGES = st.one_of(
    st.fixed_dictionaries({"role": st.just("function"), "name": st.just("f"), "content": st.just("x") | st.none()}),
    st.fixed_dictionaries(
        {
            "role": st.just("assistant"),
            "function_call": st.fixed_dictionaries({"name": st.just("f"), "arguments": ARGUMENTS}),
        }
    ),
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": st.just("x") | st.lists(PARTS)}),
    st.fixed_dictionaries({"role": st.just("assistant"), "tool_calls": st.lists(CALLS, max_size=2)}),
    st.fixed_dictionaries({"role": st.just("tool"), "content": st.just("x"), "tool_call_id": st.sampled_from("ab")}),
)
CONVERSATIONS = st.fixed_dictionaries({"model": st.just("m"), "messages": st.lists(MESSAGES, min_size=1, max_size=4)})
PARAMETER_VALUES = st.dictionaries(st.sampled_from([*PARAMETERS]) | st.text(max_size=3), ANYTHING, max_size=4)


def first_fault(body: dict[str, Any]) -> str | None:
    """What a chat completion fails of before Claude is asked."""
    try:
        check_parameters(body, USUAL)
        request = parse_chat_completion(body)
        binding = Binding(request.model, None, tools=to_tools(request))
        to_turn_request(binding, request.messages)
    except InvalidRequestError as error:
        return error.message
    return None


@given(st.builds(lambda *parts: {k: v for part in parts for k, v in part.items()}, NEARLY, PARAMETER_VALUES))
def test_any_body_can_be_examined(body: dict[str, Any]) -> None:
    """Whatever comes: the first fault is what the request fails of, and what is refused is in the body."""
    examination = examine(body, USUAL)
    messages = [fault.message for fault in examination.faults]
    assert messages[:1] == [*filter(None, [first_fault(body)])]
    assert {*examination.refused} <= {*body}
    assert {*examination.refused.values()} <= {*messages}
    if not messages:
        assert examination.sound == parse_chat_completion(body)


@given(CONVERSATIONS)
def test_any_conversation_can_be_examined(body: dict[str, Any]) -> None:
    """There is a fault where the request fails, the one that it fails of is among them, and each is told once."""
    told = [(fault.param, fault.message) for fault in examine(body, USUAL).faults]
    fault = first_fault(body)
    assert (fault in {message for _, message in told}) == bool(told) == bool(fault)
    assert len(set(told)) == len(told)


def test_what_is_sound_stays_beside_what_is_not() -> None:
    """An example's values stand for those that are faulty, and only for those."""
    sound = examine(
        {"model": 5, "messages": EXAMPLE_REQUEST["messages"][1:], "top_p": 2, "temperature": 2}, USUAL
    ).sound
    assert sound.model_dump(exclude_none=True) == {
        **EXAMPLE_REQUEST,
        "messages": EXAMPLE_REQUEST["messages"][1:],
        "temperature": 2,
    }


@pytest.mark.parametrize(
    ("error", "enabled"), [(InvalidRequestError("No"), False), (UpstreamRefusalError("No", 402), True)]
)
def test_only_a_400_in_debug_mode_is_explained(error: InvalidRequestError, enabled: bool) -> None:
    """Another status's error, or one without DEBUG_MODE, leaves as it came."""
    with pytest.raises(InvalidRequestError) as caught, explained(b"{}", USUAL, enabled=enabled):
        raise error
    assert caught.value is error
    assert "details" not in error.body()["error"]


def test_functions_in_their_old_form_are_no_fault() -> None:
    """A call without an id, and what came of it, is a conversation like any other."""
    body = {
        "model": "m",
        "messages": [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": None},
        ],
    }
    assert examine(body, USUAL).faults == ()
    assert first_fault(body) is None
