"""The fate of every parameter: honoured, named as ignored, or refused."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import completion_create_params

from errors import InvalidRequestError
from models import ChatCompletionRequest
from parameter_validator import PARAMETERS, Fate, Rules, check_parameters, find_refusals
from parameter_values import REFUSED

USUAL = Rules(is_strict=False, most_choices=8, login="anthropic")
HARMLESS: list[tuple[str, Any]] = [
    ("store", False),
    ("logit_bias", {}),
    ("presence_penalty", 0.0),
    ("modalities", ["text"]),
    ("logprobs", False),
]
# The API's own parameters, as the published client knows them.
OPENAIS = sorted(completion_create_params.CompletionCreateParamsBase.__annotations__)


def test_every_fate_that_is_given_has_its_cases() -> None:
    """The cases here are all the refusals there are, and what is taken is what the request's shape reads."""
    names: dict[Fate, set[str]] = {fate: set() for fate in get_args(Fate)}
    for name, row in PARAMETERS.items():
        names[row.fate].add(name)
    assert names["refused"] == set(REFUSED)
    assert names["supported"] | names["mapped"] == set(ChatCompletionRequest.model_fields)
    assert {*PARAMETERS} == {*OPENAIS, "stream", "session_id", "enable_tools"}


def test_the_table_says_what_a_parameter_becomes_or_why_it_has_no_effect() -> None:
    """What is mapped has its new name, what has no effect has its reason, and no row has what isn't its own."""
    for row in PARAMETERS.values():
        assert bool(row.becomes) == (row.fate == "mapped")
        assert bool(row.reason) == (row.fate in ("ignored", "refused"))
        assert row.values
        assert row.fate in ("ignored", "refused") or not row.harmless


def test_all_refusals_are_found() -> None:
    """Of several parameters that are refused each is told, also one that is refused for its name."""
    body: dict[str, Any] = {
        "n": 9,
        "a b": 1,
        "stream_options": {},
        "audio": {},
        "logprobs": False,
        "seed": 1,
        "top_logprobs": None,
    }
    assert [refusal.param for refusal in find_refusals(body, USUAL)] == ["a b", "audio", "stream_options", "n"]
    strict = Rules(is_strict=True, most_choices=9, login="anthropic")
    assert [refusal.param for refusal in find_refusals(body, strict)] == ["a b", "audio", "seed", "stream_options"]
    assert [refusal.param for refusal in find_refusals({"n": 2, "session_id": "s"}, USUAL)] == ["n"]
    assert [refusal.param for refusal in find_refusals({"n": 2, "enable_tools": True}, USUAL)] == ["n"]


@pytest.mark.parametrize(("name", "value"), REFUSED.items())
def test_what_would_change_the_answers_shape_is_refused(name: str, value: Any) -> None:
    """Each such parameter is a 400 that names it, in its message as well."""
    with pytest.raises(InvalidRequestError, match=f"'{name}'") as caught:
        check_parameters({"model": "sonnet", name: value}, USUAL)
    assert (caught.value.param, caught.value.code) == (name, "unsupported_parameter")


@pytest.mark.parametrize(("name", "value"), HARMLESS)
def test_a_value_that_asks_for_nothing_is_let_through(name: str, value: Any) -> None:
    """What clients send as a matter of form is neither refused nor reported."""
    assert check_parameters({name: value}, USUAL) == ()


@pytest.mark.parametrize(
    "name",
    [
        "metadata",
        "seed",
        "user",
    ],
)
def test_what_merely_tunes_the_answer_is_reported(name: str) -> None:
    """Each such parameter of OpenAI's is known to be ignored, and says so."""
    assert name in OPENAIS
    assert check_parameters({"model": "sonnet", name: 1}, USUAL) == (name,)


@pytest.mark.parametrize(("name", "value"), [("modalities", "text"), ("logprobs", 0)])
def test_a_value_of_another_type_asks_for_something(name: str, value: object) -> None:
    """What Python takes for equal isn't harmless: JSON's true is no 1."""
    with pytest.raises(InvalidRequestError):
        check_parameters({name: value}, USUAL)


def test_ignored_parameters_are_in_order() -> None:
    """The report doesn't depend on the order in which a client writes its body; parameters of nobody's are in it."""
    body = {"seed": 1, "model": "sonnet", "frequency_penalty": 1, "enable_thinking": False}
    assert check_parameters(body, USUAL) == ("enable_thinking", "frequency_penalty", "seed")


@pytest.mark.parametrize("name", [*OPENAIS, "enable_thinking"])
def test_null_is_like_nothing(name: str) -> None:
    """A null is neither refused nor reported, whatever it stands for."""
    assert check_parameters({name: None}, USUAL) == ()


@pytest.mark.parametrize("rest", [{}, {"stream": False}, {"stream": None}])
def test_stream_options_without_a_stream_are_refused(rest: dict[str, Any]) -> None:
    """Options for a stream that nobody asked for are a mistake, as at OpenAI."""
    with pytest.raises(InvalidRequestError) as caught:
        check_parameters({"stream_options": {"include_usage": True}, **rest}, USUAL)
    assert caught.value.param == "stream_options"


def test_stream_options_of_a_stream_are_honoured() -> None:
    """With a stream its options pass, and nothing is reported."""
    assert check_parameters({"stream": True, "stream_options": {"include_usage": True}}, USUAL) == ()


@pytest.mark.parametrize("name", ["", "a b", "a\r\nSet-Cookie: b", "temperatur\u00e9", "x" * 65])
def test_a_name_that_no_header_can_repeat_is_refused(name: str) -> None:
    """Ignored parameters are named in a header: what isn't fit for one doesn't get there, not even as a null."""
    with pytest.raises(InvalidRequestError) as caught:
        check_parameters({"model": "sonnet", name: None}, USUAL)
    assert (caught.value.param, caught.value.code) == (name[:64], "unknown_parameter")


@pytest.mark.parametrize(("count", "fits"), [(32, True), (33, False)])
def test_unknown_parameters_are_few(count: int, fits: bool) -> None:
    """The header has room for 32 of them; one more is refused."""
    body = {f"p{number:02}": 1 for number in range(count)}
    if fits:
        assert check_parameters(body, USUAL) == tuple(body)
    else:
        with pytest.raises(InvalidRequestError, match="too many"):
            check_parameters(body, USUAL)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from(OPENAIS) | st.from_regex(r"[a-z_]{1,8}", fullmatch=True), json_values, max_size=6)
)
def test_no_parameter_is_quietly_dropped(body: dict[str, Any]) -> None:
    """Whatever the values: a parameter without effect is null, harmless or reported, or the request is refused."""
    taken = {name for name, row in PARAMETERS.items() if row.fate != "ignored"}
    try:
        ignored = check_parameters(body, USUAL)
    except InvalidRequestError as refusal:
        error = refusal
    else:
        harmless = {name for name in body if name in PARAMETERS and body[name] in PARAMETERS[name].harmless}
        assert {*body} - {*ignored} <= {
            name for name in body if body[name] is None or name in taken or name in harmless
        }
        assert not {*ignored} & taken
        return
    assert error.param in body
