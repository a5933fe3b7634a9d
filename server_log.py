"""The form of the log: one line an event, for people or as JSON, for all that this process logs."""

import logging
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Literal

import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars, clear_contextvars, get_contextvars
from structlog.typing import EventDict, Processor, WrappedLogger

LogFormat = Literal["console", "json"]

_STACK = "exception"
"""The one field that has several lines, for people."""
_UVICORNS = ("uvicorn", "uvicorn.error", "uvicorn.access")


def start_logging(level: str, form: LogFormat, *, verbose: Iterable[str] = ()) -> None:
    """Log from `level` on, in this form; more than INFO only what those that are `verbose` have to say.

    Libraries would tell what goes through them, and that is the clients'.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_formatter(form))
    logging.basicConfig(level="INFO" if level == "DEBUG" else level, handlers=[handler], force=True)
    for name in _UVICORNS:  # It has given them handlers of its own where it was started by its own command.
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    # Each request has a line of ours.
    logging.getLogger("uvicorn.access").disabled = True
    for name in verbose:
        logging.getLogger(name).setLevel(logging.DEBUG)
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


@contextmanager
def of_request(request_id: str) -> Generator[None, None, None]:
    """Let every line that is logged in here, and in tasks that begin here, have this `request_id`."""
    with bound_contextvars(request_id=request_id):
        yield


@contextmanager
def of_no_request() -> Generator[None, None, None]:
    """Begin tasks here that outlive the request."""
    bound = get_contextvars()
    clear_contextvars()
    try:
        yield
    finally:
        bind_contextvars(**bound)


def _formatter(form: LogFormat) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            # Not structlog's prettier ways, which show variables: they hold what clients have sent.
            structlog.processors.format_exc_info,
            _without_colours,
            *_RENDERERS[form](),
        ],
    )


def _for_people() -> list[Processor]:
    return [_on_one_line, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]


def _for_programs() -> list[Processor]:
    return [structlog.processors.JSONRenderer()]


_RENDERERS = {"console": _for_people, "json": _for_programs}


def _without_colours(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Leave out uvicorn's second text of its lines, which is for its own terminal."""
    event.pop("color_message", None)
    return event


def _on_one_line(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape what would begin a new line, or move a terminal's cursor: whatever comes from outside forges no line."""
    return {
        name: value if name == _STACK or not isinstance(value, str) else _escaped(value)
        for name, value in event.items()
    }


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
