"""Why Claude's API didn't answer: from what Claude Code reports of it to the error that the client sees."""

import errno
import logging
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from content_log import log_content
from errors import (
    ApiError,
    ClaudeLoginError,
    ContextLengthExceededError,
    OutputFormatError,
    from_upstream,
)

logger = logging.getLogger(__name__)

_TOO_LONG_FOR_THE_CLI = "blocking_limit"
_TOO_LONG = frozenset({_TOO_LONG_FOR_THE_CLI, "prompt_too_long"})
# The API has no code for it, and there is no other way to learn which models lack it. What it says of the schema, whose
# place is `output_config.format.schema`, or of another place, is another matter, whatever names it quotes.
_OF_ANOTHER_PLACE = re.compile(r"(tools|messages|system)\b|.*output_config\.(?!format\b(?!\.schema))", re.DOTALL)
_FORM = r"(output_config(\.format(\.type)?)?|output.?format|structured.?outputs?)"
_LACKS_OUTPUT_FORMAT = re.compile(
    rf"{_FORM}\b.*\bnot (supported|available|permitted)|\bnot support.*\b{_FORM}", re.IGNORECASE | re.DOTALL
)
# How Claude Code ends what it says where there was no answer; the last two are the resolver's.
_SYSTEM_ERROR = re.compile(r"\((E[A-Z0-9_]+)\)\Z")
_SYSTEM_ERRORS = frozenset({*errno.errorcode.values(), "ENOTFOUND", "EAI_AGAIN"})
_FAILED = "Claude's API failed ({}). Try again in a moment."
# Claude Code tells how long it would wait where that is no longer; where it should be, it gives up at once.
_LONGEST_TOLD_SECONDS = 60


@dataclass(frozen=True)
class Failure:
    """What Claude Code reports of a request that failed. `status` is the HTTP status, None where there was none."""

    model: str
    status: int | None
    prose: str = ""
    """Claude Code's own words, which may name the upstream's address."""
    reason: str | None = None
    """Why the turn ended: the SDK's `terminal_reason`."""
    login_failed: bool = False
    wait: float | None = None
    """Seconds after which it may be asked again, where Claude Code knows."""

    def to_error(self) -> ApiError:
        """Return what the client is to see; what it isn't to see goes into the log."""
        if self.reason in _TOO_LONG:
            return self._too_long()
        if self.status is None and self.login_failed:
            return ClaudeLoginError("Claude Code is not logged in. GET /v1/auth/status says what is missing.")
        if self.status is None or self.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            # The words name the upstream's address, and have what that says, which may quote the prompt.
            told = f"HTTP {self.status}" if self.status else "no answer"
            logger.warning("Claude's API failed: %s", told if self.status else self._system_error)
            log_content("failure", reason=self.prose)
            return self._with_status(_FAILED.format(told))
        prose = self.prose.removeprefix("API Error: ").removeprefix(f"{self.status} ")
        is_of_the_form = not _OF_ANOTHER_PLACE.match(prose) and _LACKS_OUTPUT_FORMAT.search(prose)
        if self.status == HTTPStatus.BAD_REQUEST and is_of_the_form:
            return OutputFormatError(prose)
        return self._with_status(prose or _FAILED.format(f"HTTP {self.status}"))

    @property
    def _system_error(self) -> str:
        """The system's name for why there was no answer, and nothing that anybody could have put there."""
        found = _SYSTEM_ERROR.search(self.prose)
        return found[1] if found and found[1] in _SYSTEM_ERRORS else "no answer"

    def _too_long(self) -> ApiError:
        sent = self.reason != _TOO_LONG_FOR_THE_CLI
        whose = "its model" if sent else "its model, by Claude Code's reckoning, in which images and files count much"
        return ContextLengthExceededError(
            f"This conversation is too long for {whose}. Shorten the messages.", sent=sent
        )

    def _with_status(self, message: str) -> ApiError:
        wait = self.wait
        if wait is None and self.status == HTTPStatus.TOO_MANY_REQUESTS:
            wait = _LONGEST_TOLD_SECONDS
        return from_upstream(self.status, message, self.model, retry_after=None if wait is None else _whole(wait))


def retried(model: str, status: int | None, wait: float) -> ApiError:
    """Return the error for a request that Claude Code would make again after `wait` seconds.

    It doesn't tell the API's words then.
    """
    if status == HTTPStatus.UNAUTHORIZED:
        return ClaudeLoginError(
            "Claude's API doesn't accept this server's login. GET /v1/auth/status says which it is."
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        prose = f"Claude's API limits this server's requests. Try again in {_whole(wait)} s."
        return Failure(model, status, prose, wait=wait).to_error()
    return Failure(model, status, wait=wait).to_error()


def broken(model: str) -> ApiError:
    """Return the error for an answer that broke off."""
    logger.warning("Claude's API failed: its stream broke")
    return from_upstream(None, _FAILED.format("no whole answer"), model)


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))


def seconds_until(epoch_seconds: float | None, clock: Callable[[], float] = time.time) -> float | None:
    """Return how far off a moment is, None where there is none or it is over."""
    left = epoch_seconds - clock() if epoch_seconds else 0
    return left if left > 0 else None
