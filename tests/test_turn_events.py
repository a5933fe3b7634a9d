"""From the SDK's messages to events: what isn't to be seen through a whole server."""

import pytest
from claude_agent_sdk import ResultMessage

from errors import ApiError, InvalidRequestError, OutputFormatError
from turn_events import events_of
from turn_state import TurnState


def failure(message: str) -> ApiError:
    """What a turn fails with whose request the API answered with a 400 of this message."""
    result = ResultMessage(
        subtype="success",
        duration_ms=1,
        duration_api_ms=1,
        is_error=True,
        num_turns=1,
        session_id="s",
        result=f"API Error: 400 {message}",
        api_error_status=400,
    )
    with pytest.raises(ApiError) as caught:
        list(events_of(TurnState("claude-x"), result))
    return caught.value


@pytest.mark.parametrize(
    "message",
    [
        "'claude-opus-4-20250514' does not support output format.",
        "This model does not support structured outputs.",
        "structured outputs are not supported for this model",
        "output_config.format: 'json_schema' is not supported by this model",
        "claude-x does not support output_config.format.type json_schema",
        "output_config.format: Extra inputs are not permitted",
        "output_config: Extra inputs are not permitted",
        "output_format: Extra inputs are not permitted",
    ],
)
def test_a_model_that_lacks_formats_is_known_by_the_apis_words(message: str) -> None:
    """However the API says it; there is no code for it."""
    assert type(failure(message)) is OutputFormatError


@pytest.mark.parametrize(
    "message",
    [
        "output_config.format.schema: For 'integer' type, property 'minimum' is not supported",
        "output_config.format.schema: too complex, not supported",
        "output_config.format.schema: property 'structured_outputs': keyword 'default' is not supported",
        "tools.0.name: 'structured_output' is not supported",
        "messages.1: citations are not supported with output format",
        "output_config.effort: this level is not supported by this model",
        "max_tokens: 200000 > 64000, which is not supported",
        "temperature: Extra inputs are not permitted",
        "messages.0.content: at least one is needed",
    ],
)
def test_other_refusals_are_what_they_are(message: str) -> None:
    """What is wrong with the schema, or with something else, is no lack of the model's."""
    error = failure(message)
    assert type(error) is InvalidRequestError
    assert error.message == message
