"""What becomes of the parameters that Claude has: their names, their ranges, and which are told to be adjusted."""

from typing import Any

import pytest

from models import ChatCompletionRequest
from parameter_mapping import USUAL, find_adjustments, to_binding
from turns import Sampling


@pytest.mark.parametrize(
    ("sent", "sampling", "adjusted"),
    [
        ({}, Sampling(), ()),
        ({"temperature": 0, "top_p": 0.5}, Sampling(temperature=0, top_p=0.5), ()),
        ({"temperature": 2}, Sampling(), ("temperature",)),
        ({"temperature": 1, "top_p": 1.0}, Sampling(), ()),
        ({"stop": "END"}, Sampling(stop_sequences=("END",)), ()),
        ({"stop": [" ", "END", "\n"]}, Sampling(stop_sequences=("END",)), ("stop",)),
        ({"stop": []}, Sampling(), ()),
        ({"max_tokens": 5}, Sampling(max_tokens=5), ()),
        ({"max_tokens": 5, "max_completion_tokens": 6}, Sampling(max_tokens=6), ("max_tokens",)),
    ],
)
def test_sampling_is_translated(sent: dict[str, Any], sampling: Sampling, adjusted: tuple[str, ...]) -> None:
    """Claude's names and range of temperatures, no blank stop strings, nothing that says nothing; changes are named."""
    body = ChatCompletionRequest.model_validate(
        {"model": "sonnet", "messages": [{"role": "user", "content": "Hello"}], **sent}
    )
    assert to_binding(body, USUAL).sampling == sampling
    assert tuple(each.name for each in find_adjustments(body)) == adjusted
