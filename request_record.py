"""What the log tells of a request: one line, when it has ended."""

import logging
import re
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

from starlette.requests import HTTPConnection

from errors import ApiError

CLIENT_LEFT = 499
"""Nobody reads this answer: the client has left. The status is nginx's name for it."""

logger = logging.getLogger(__name__)

_PATHS_BEGIN = re.compile(r"/[A-Za-z0-9_.-]{0,32}(?=/|\Z)")
_NO_FIELDS = frozenset({"request_id", "is_answered", "began"})
RECORD = "record"
"""Where a request's state has it."""


@dataclass
class RequestRecord:
    """What is known of a request. All but what says so is a field of its line, where it isn't None.

    Whoever learns something notes it here; neither keys nor anything of what was asked and answered is noted.
    """

    request_id: str
    """In the line as in all others of the request; see server_log.of_request."""
    method: str
    path: str
    """The route's; of what none takes the first part of the client's. Never the query, in which some send secrets."""
    client: str | None = None
    """The address."""
    status: int | None = None
    error: str | None = None
    """The error's code, or its type."""
    key: str | None = None
    """The name that the operator gave to it."""
    model: str | None = None
    """As asked for."""
    answered_by: str | None = None
    """The model, aliases resolved."""
    stream: bool | None = None
    in_session: bool | None = None
    process_origin: str | None = None
    overhead_ms: float | None = None
    first_event_ms: float | None = None
    """Until the model began to answer."""
    is_answered: bool = False
    """Whether all of what the model had to say has gone out; no field."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    began: float = field(default_factory=time.perf_counter)
    """By a clock of its own; no field."""

    @classmethod
    def begin(cls, scope: MutableMapping[str, Any], request_id: str) -> "RequestRecord":
        """Make the record of a request, and keep it on its state."""
        address = (scope.get("client") or (None,))[0]
        record = cls(request_id, scope["method"], _shortened(scope["path"]), address)
        scope.setdefault("state", {})[RECORD] = record
        return record

    @property
    def elapsed_ms(self) -> float:
        """The time since it began."""
        return round((time.perf_counter() - self.began) * 1000, 1)

    @property
    def outcome(self) -> Literal["completed", "failed", "client_left"]:
        """How it has ended."""
        if self.status == CLIENT_LEFT:
            return "client_left"
        if self.error or self.status is None or self.status >= HTTPStatus.BAD_REQUEST:
            return "failed"
        is_left = self.first_event_ms is not None and not self.is_answered
        return "client_left" if is_left else "completed"

    def note(self, error: ApiError) -> None:
        """Note why it fails."""
        self.error = error.code or error.type

    def write(self) -> None:
        """Write the line; of what is the server's fault as a warning."""
        fields = {**vars(self), "outcome": self.outcome, "duration_ms": self.elapsed_ms}
        known = {name: value for name, value in fields.items() if value is not None and name not in _NO_FIELDS}
        # A failure behind a 200 broke a stream.
        is_clients = self.outcome != "failed" or HTTPStatus.BAD_REQUEST <= (self.status or 0) < CLIENT_LEFT
        logger.log(logging.INFO if is_clients else logging.WARNING, "request", extra=known)


def _shortened(path: str) -> str:
    """Return of a client's own path what tells a wrong address, and no more: it may have a key or a name in it."""
    found = _PATHS_BEGIN.match(path)
    begin = found[0] if found else "/"
    return begin if begin == path else f"{begin}…"


def record_of(request: HTTPConnection) -> RequestRecord:
    """Return the record of a request."""
    record: RequestRecord = getattr(request.state, RECORD)
    return record


def note_error(scope: Mapping[str, Any], error: ApiError) -> None:
    """Note why a request failed, where it has a record."""
    record: RequestRecord | None = scope.get("state", {}).get(RECORD)
    if record is not None:
        record.note(error)
