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
RECORD = "record"
"""Where a request's state has it."""


@dataclass
class RequestRecord:
    """The fields of a request's line; those that are None are left out. Whoever learns one notes it here.

    Neither keys nor anything of what was asked and answered is among them.
    """

    request_id: str
    method: str
    path: str
    """The route's; of what none takes the first part of the client's. Never the query, in which some send secrets."""
    client: str | None = None
    """The address."""
    status: int | None = None
    duration_ms: float | None = None
    outcome: Literal["completed", "failed", "client_left"] | None = None
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
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    began: float = field(default_factory=time.perf_counter)
    """By a clock of its own."""

    @classmethod
    def begin(cls, scope: MutableMapping[str, Any], request_id: str) -> "RequestRecord":
        """Make the record of a request, and keep it on its state."""
        address = (scope.get("client") or (None,))[0]
        record = cls(request_id, scope["method"], _shortened(scope["path"]), address)
        scope["state"][RECORD] = record
        return record

    def write(self) -> None:
        """Write the line; of what is the server's fault as a warning."""
        self.duration_ms = round((time.perf_counter() - self.began) * 1000, 1)
        if self.status is None or self.status >= HTTPStatus.BAD_REQUEST:
            self.outcome = "client_left" if self.status == CLIENT_LEFT else "failed"
        self.outcome = self.outcome or "completed"
        is_ours = (self.status or HTTPStatus.INTERNAL_SERVER_ERROR) >= HTTPStatus.INTERNAL_SERVER_ERROR
        is_cut = self.outcome == "failed" and self.status == HTTPStatus.OK
        known = {name: value for name, value in vars(self).items() if value is not None and name != "began"}
        logger.log(logging.WARNING if is_ours or is_cut else logging.INFO, "request", extra=known)


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
        record.error = error.code or error.type
