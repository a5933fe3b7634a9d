"""The form of the log: one line an event, for people or as JSON, for all that this process logs."""

import logging
import sys
import traceback
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler

import structlog
from stamina.instrumentation import RetryDetails, set_on_retry_hooks
from structlog.contextvars import bind_contextvars, bound_contextvars, clear_contextvars, get_contextvars
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from content_log import allow_content, shows_content
from setting_types import LogFormat

logger = logging.getLogger(__name__)

_STACK = "exception"
"""The one field that has several lines, for people."""
_MOST_HELD = 100
_UVICORNS = ("uvicorn", "uvicorn.error", "uvicorn.access")


def hold_lines() -> None:
    """Keep what is logged until the log is started: its form is a setting, and reading these may log, too."""
    holder = MemoryHandler(_MOST_HELD, flushLevel=sys.maxsize, flushOnClose=False)
    logging.basicConfig(handlers=[holder])


def start_logging(level: str, form: LogFormat, *, verbose: Iterable[str] = (), content: bool = False) -> None:
    """Log from `level` on, in this form; more than INFO only what those that are `verbose` have to say.

    Libraries would tell what goes through them, and that is the clients'. `content`: what is asked and answered, too.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_formatter(form))
    held = [record for each in logging.root.handlers if isinstance(each, MemoryHandler) for record in each.buffer]
    logging.basicConfig(level="INFO" if level == "DEBUG" else level, handlers=[handler], force=True)
    for name in _UVICORNS:  # It has given them handlers of its own where it was started by its own command.
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    # Each request has a line of ours.
    logging.getLogger("uvicorn.access").disabled = True
    # Of a WebSocket, which we have none of, it would log the query.
    logging.getLogger("uvicorn.error").addFilter(lambda record: "WebSocket %s" not in str(record.msg))
    # The SDK takes each end of a process for an error; of those that aren't our doing cli_channel tells more.
    sdk = logging.getLogger("claude_agent_sdk._internal.query")
    sdk.addFilter(lambda record: "Fatal error in message reader" not in str(record.msg))
    allow_content(allowed=content)
    for name in verbose:
        logging.getLogger(name).setLevel(logging.DEBUG)
    for record in held:
        logging.getLogger(record.name).handle(record)
    set_on_retry_hooks([_tell_retry])
    # What can't be logged is no reason to write it out raw; and what the escapes need is there before files run out.
    logging.raiseExceptions = False
    _escaped("\n")


def _tell_retry(details: RetryDetails) -> None:
    """Say that something is tried again: stamina's own hook logs the arguments, and the error's words, past us."""
    logger.warning("Trying again in %.1f s after %s", details.wait_for, type(details.caused_by).__name__)


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
            structlog.processors.ExceptionRenderer(_described),
            _shortened,
            *_RENDERERS[form](),
        ],
    )


def _described(exc_info: ExcInfo) -> str:
    """Write a traceback without variables and messages, but for the system's: they quote what clients have sent."""
    return "\n".join(_lines_of(exc_info[1], set())).rstrip()


def _lines_of(error: BaseException, told: set[int]) -> Iterator[str]:
    told.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before and id(before) not in told:
        yield from _lines_of(before, told)
        yield "Which led to:"
    yield "Traceback (most recent call last):"
    yield "".join(traceback.format_tb(error.__traceback__)).rstrip()
    words = str(error) if shows_content() else error.strerror if isinstance(error, OSError) else None
    yield f"{type(error).__module__}.{type(error).__qualname__}" + (f": {_escaped(words)}" if words else "")
    parts: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    for part in parts:
        yield "One of its parts:"
        yield from _lines_of(part, told)


def _for_people() -> list[Processor]:
    return [_on_one_line, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]


def _for_programs() -> list[Processor]:
    return [structlog.processors.JSONRenderer()]


_RENDERERS = {"console": _for_people, "json": _for_programs}


def _shortened(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Leave out uvicorn's second text of its lines, for its own terminal, and exceptions that asyncio writes out."""
    event.pop("color_message", None)
    if event["logger"] == "asyncio":
        event["event"] = event["event"].partition("\n")[0]
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
