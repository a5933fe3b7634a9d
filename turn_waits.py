"""How long a turn waits for its next message, and what has failed where none comes."""

import math
from collections.abc import AsyncGenerator
from typing import TypeVar

import anyio

from errors import ClaudeCodeError, UpstreamTimeoutError
from turn_state import TurnState
from turns import UpstreamTimeouts

_SIGN_OF_LIFE_SECONDS = 15

_T = TypeVar("_T")


async def first_sign(messages: AsyncGenerator[_T, None], *, is_after_a_tool: bool) -> _T:
    """Return what comes first after a prompt: Claude Code says that it begins, long before the model answers.

    `is_after_a_tool`: it may have to wait for one of its own first, which takes as long as it takes. Raises
    ClaudeCodeError.
    """
    try:
        with anyio.fail_after(math.inf if is_after_a_tool else _SIGN_OF_LIFE_SECONDS):
            return await anext(messages)
    except TimeoutError as error:
        raise ClaudeCodeError("The Claude Code process doesn't take up its turn.") from error


async def next_message(messages: AsyncGenerator[_T, None], state: TurnState, timeouts: UpstreamTimeouts) -> _T:
    """Return what comes next. Raises UpstreamTimeoutError where Claude's API is silent for too long."""
    # Commands take as long as they take: the whole request's time bounds them.
    seconds = math.inf if state.runs_tools else timeouts.idle if state.is_answering else timeouts.first_token
    try:
        with anyio.fail_after(seconds):
            return await anext(messages)
    except TimeoutError as error:
        did = "stopped in the middle of its answer" if state.is_answering else "didn't begin to answer"
        raise UpstreamTimeoutError(f"Claude's API {did}: nothing came for {seconds:g} seconds.") from error
