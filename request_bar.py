"""Keeps Claude Code from asking the model once more by itself, where no setting does: see ADR 2."""

import math
import time
from collections.abc import Mapping

from cli_channel import Answer, CliChannel
from cli_frames import NOWHERE, set_environment
from turns import Binding, LaunchProfile

# Not with the first word: that would come later by what this takes. An answer that is over sooner is rare, but for one
# that may have only so many tokens, or that a stop sequence may end before it began.
_AFTER_SECONDS = 0.25
_FEW_TOKENS = 128


class RequestBar:
    """Shuts a process's way to Claude's API in mid-turn: where it would go on by itself, it gets nowhere."""

    def __init__(self, channel: CliChannel, profile: LaunchProfile) -> None:
        """Begin with the way open."""
        self._channel, self._profile = channel, profile
        self._answer: Answer | None = None
        self._after, self._due = math.inf, math.inf

    @property
    def holds(self) -> bool:
        """Whether the process has confirmed that its way is shut."""
        return self._answer is not None and self._answer.is_there

    def begin_turn(self, binding: Binding) -> None:
        """Begin a turn under this binding, in which it will be put up a while after the model began to write."""
        self._after, self._due = _delay(binding), math.inf

    async def note_event(self) -> None:
        """Note an event of the answer."""
        now = time.monotonic()
        self._due = min(self._due, now + self._after)
        if self._answer is None and now >= self._due:
            await self.put_up()

    async def put_up(self) -> None:
        """Shut the way now."""
        subtype, fields = set_environment({self._profile.base_url_variable: NOWHERE})
        self._answer = await self._channel.send(subtype, **fields)

    def opening(self) -> Mapping[str, str]:
        """Return the variables that open the way again, where it is shut; an empty URL is the default one."""
        variable = self._profile.base_url_variable
        return {} if self._answer is None else {variable: dict(self._profile.environment).get(variable, "")}

    def take_down(self) -> None:
        """Note that these variables are set."""
        self._answer = None


def _delay(binding: Binding) -> float:
    if binding.own_schema or binding.has_own_tools:
        return math.inf  # Claude Code asks again until it has an answer in the form that it has to have.
    most = binding.sampling.max_tokens
    may_be_over_soon = binding.sampling.stop_sequences or (most and most <= _FEW_TOKENS)
    return 0.0 if may_be_over_soon else _AFTER_SECONDS
