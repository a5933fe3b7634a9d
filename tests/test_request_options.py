"""What a request says in headers of our own, and what it can't say there."""

import pytest

from errors import InvalidRequestError
from request_options import THINKING_HEADER, USAGE_HEADER, RequestOptions, read_options


@pytest.mark.parametrize(
    ("headers", "options"),
    [
        ({}, RequestOptions()),
        ({THINKING_HEADER: "0"}, RequestOptions(thinking_tokens=0)),
        ({THINKING_HEADER: "1024"}, RequestOptions(thinking_tokens=1024)),
        ({USAGE_HEADER: "full", THINKING_HEADER: "1000000"}, RequestOptions(1_000_000, usage_in_full=True)),
    ],
)
def test_headers_are_read(headers: dict[str, str], options: RequestOptions) -> None:
    """A budget, none, and whether usage comes in full."""
    assert read_options(headers) == options


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (THINKING_HEADER, ""),
        (THINKING_HEADER, "1023"),
        (THINKING_HEADER, "1000001"),
        (THINKING_HEADER, "1e4"),
        (THINKING_HEADER, "\uff15000"),
        (USAGE_HEADER, ""),
        (USAGE_HEADER, "Full"),
    ],
)
def test_a_value_that_cant_be_is_refused(header: str, value: str) -> None:
    """The message names the header and what it takes; a header is no field of the body."""
    with pytest.raises(InvalidRequestError, match=header) as caught:
        read_options({header: value})
    assert (caught.value.param, caught.value.code) == (None, "invalid_header")
