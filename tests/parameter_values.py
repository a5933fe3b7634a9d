"""Values of parameters that ask for something, where 1 won't do."""

from collections.abc import Mapping
from typing import Any

TUNING: Mapping[str, Any] = {
    "frequency_penalty": 0.5,
    "logit_bias": {"50256": -100},
    "metadata": {"a": "b"},
    "presence_penalty": 0.5,
    "store": True,
}
"""Of parameters that are ignored."""

REFUSED: Mapping[str, Any] = {
    "audio": {"voice": "alloy", "format": "wav"},
    "logprobs": True,
    "modalities": ["text", "audio"],
    "prediction": {"type": "content", "content": "x"},
    "top_logprobs": 0,
    "web_search_options": {},
}
"""Of all parameters that are refused."""
