"""Everything that is wrong with the body of a chat completion, where the request itself fails of the first fault."""

import logging
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from answer_models import FaultDetail
from client_functions import find_faults_of_functions
from errors import InvalidRequestError
from message_adapter import find_faults_of_conversation
from models import EXAMPLE_REQUEST, ChatCompletionRequest
from parameter_mapping import find_adjustments, find_faults_of_output, find_faults_of_own_tools
from parameter_validator import PARAMETERS, Rules, find_refusals, shown_name
from request_body import find_faults_of_shape, parse_chat_completion, parse_json_object
from session_manager import check_id

logger = logging.getLogger(__name__)

# A body has room for millions of faults, and nobody reads so many.
MOST_FAULTS = 1000


@dataclass(frozen=True)
class Examination:
    """What is wrong with a body, and what isn't: in `sound` an example's values stand for those that are faulty.

    `refused` has the parameters of the body that a fault lies in, each with the message of the first.
    """

    faults: tuple[InvalidRequestError, ...]
    refused: Mapping[str, str]
    sound: ChatCompletionRequest


def examine(body: Mapping[str, Any], rules: Rules) -> Examination:
    """Find all the faults of a body that can be found without Claude, refused parameters first."""
    refusals, of_shape = find_refusals(body, rules), find_faults_of_shape(body)
    faulty = {_top_level(fault) for fault in of_shape}
    sound = parse_chat_completion(
        {**EXAMPLE_REQUEST, **{name: value for name, value in body.items() if name not in faulty}}
    )
    others = (
        *of_shape,
        *_faults_of_session(sound),
        *find_faults_of_functions(sound),
        *find_faults_of_output(sound),
        *find_faults_of_own_tools(sound),
        *(adjustment.refusal for adjustment in (find_adjustments(sound) if rules.is_strict else ())),
        *find_faults_of_conversation(sound.messages, is_whole=sound.session_id is None),
    )
    messages = {fault.param: fault.message for fault in reversed(refusals)}
    messages = {**{_top_level(fault): fault.message for fault in reversed(others)}, **messages}
    refused = {name: messages[shown_name(name)] for name in body if shown_name(name) in messages}
    return Examination((*refusals, *others), refused, sound)


def _top_level(fault: InvalidRequestError) -> str | None:
    return fault.param.partition(".")[0].partition("[")[0] if fault.param else None


def _faults_of_session(body: ChatCompletionRequest) -> tuple[InvalidRequestError, ...]:
    if body.session_id is not None:
        try:
            check_id(body.session_id)
        except InvalidRequestError as fault:
            return (fault,)
    return ()


@contextmanager
def explained(raw: bytes, rules: Rules, *, enabled: bool) -> Generator[None, None, None]:
    """Where an InvalidRequestError comes from in here, add all the faults of the body `raw` to it as its `details`."""
    try:
        yield
    except InvalidRequestError as error:
        if enabled and error.status == InvalidRequestError.status:
            details = _details(raw, error, rules)
            error.details = [detail.model_dump() for detail in details]
            for detail in details:
                # Without the message, which may quote what a client wrote.
                place = detail.param and _place(detail.param)
                logger.debug("A request of %d bytes is invalid: %s at %r", len(raw), detail.type, place)
        raise


def _place(param: str) -> str:
    """Return a fault's place, less the names that a client has chosen: these may be anything."""
    return re.sub(
        r"\[\d+\]|[^.\[\]]+", lambda found: found[0] if found[0] in _our_names() or found[0][0] == "[" else "…", param
    )


@cache
def _our_names() -> frozenset[str]:
    schema = ChatCompletionRequest.model_json_schema()
    ours = [name for part in (schema, *schema["$defs"].values()) for name in part.get("properties", ())]
    return frozenset({*ours, *".".join(PARAMETERS).split(".")})


def _details(raw: bytes, error: InvalidRequestError, rules: Rules) -> list[FaultDetail]:
    try:
        faults = examine(parse_json_object(raw), rules).faults or (error,)
    except InvalidRequestError as fault:
        return [FaultDetail(param=None, message=place_of_break(fault) or fault.message, type=_type(fault))]
    return [FaultDetail(param=fault.param, message=fault.message, type=_type(fault)) for fault in faults[:MOST_FAULTS]]


def place_of_break(fault: InvalidRequestError) -> str | None:
    """Return where JSON broke that couldn't be parsed, in the parser's words."""
    return str(fault.__cause__) if fault.code == "invalid_json" else None


def _type(fault: InvalidRequestError) -> str:
    return fault.code or fault.type
