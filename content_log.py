"""The log of what clients and models say, where LOG_PROMPTS lets it be. Nothing else may log any of that."""

import logging

_logger = logging.getLogger(__name__)
_logger.disabled = True  # Whoever doesn't start our logging, as a program around the app, has none of it, either.


def allow_content(*, allowed: bool) -> None:
    """Let content into the log, or not."""
    _logger.disabled = not allowed


def shows_content() -> bool:
    """Whether content is logged."""
    return not _logger.disabled


def log_content(event: str, **content: object) -> None:
    """Log content, if that is allowed."""
    if shows_content():
        _logger.info(event, extra=content)
