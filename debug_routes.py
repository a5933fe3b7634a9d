"""What would become of a request, without a turn: POST /v1/debug/request and POST /v1/compatibility."""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote_plus

from fastapi import APIRouter, Depends, Request, Response

from callers import Caller
from errors import ApiError, InvalidRequestError
from models import EXAMPLE_REQUEST
from parameter_mapping import find_adjustments
from parameter_validator import PARAMETERS, Rules, find_fates
from report_models import (
    CompatibilityReport,
    DebugInfo,
    DebugReport,
    ParameterFate,
    ParameterFates,
    RequestFault,
    ValidationReport,
)
from request_body import as_object, check_values, parse_json, parse_json_object, read_body
from request_faults import MOST_FAULTS, Examination, examine, place_of_break
from services import CallerDependency, Services, ServicesDependency, limited_behind_key, require_key

router = APIRouter()

# Rather one too many: of a header that isn't shown its presence is still told.
_SECRET_NAME = re.compile(r"auth|cookie|credential|csrf|jwt|key|pass|pwd|secret|signature|token|xsrf", re.IGNORECASE)
_SECRET_VALUE = re.compile(
    r"\b(bearer|basic|digest)\s+\S|\bsk-|://[^/\s]*:[^/\s]*@|(key|pass\w*|secret|token)=", re.IGNORECASE
)
_REDACTED = "[redacted]"


@router.post(
    "/v1/debug/request",
    response_model=DebugReport,
    dependencies=limited_behind_key("debug"),
    responses={429: {}},
)
async def debug_request(request: Request, services: ServicesDependency, caller: CallerDependency) -> Response:
    """Say what was received and how it validates as a chat completion, valid or not. No turn is started."""
    raw = await read_body(request.stream(), services.settings.max_request_size)
    body, break_place = _parsed(raw)
    result, fates = await _validated(raw, body, break_place, services, caller)
    info = DebugInfo(
        method=request.method,
        url=_shown_url(request),
        headers=_shown_headers(request),
        raw_body_size=len(raw),
        is_json=break_place is None,
        json_parse_error=break_place,
        parsed_body=body,
        validation_result=result,
        parameters=fates,
        debug_mode_enabled=services.settings.debug_mode,
        example_valid_request=dict(EXAMPLE_REQUEST),
    )
    # By pydantic: a number like 1e999 is read as infinity, which the standard library doesn't write as JSON.
    return Response(DebugReport(debug_info=info).model_dump_json(), media_type="application/json")


@router.post("/v1/compatibility", dependencies=[Depends(require_key)])
async def compatibility(request: Request, services: ServicesDependency) -> CompatibilityReport:
    """Say which parameters of a body are supported, mapped to something of Claude's, ignored, refused or unknown."""
    raw = await read_body(request.stream(), services.settings.max_request_size)
    return _compatibility(parse_json_object(raw), services.rules)


def _parsed(raw: bytes) -> tuple[Any, str | None]:
    try:
        return parse_json(raw), None
    except InvalidRequestError as fault:
        return None, place_of_break(fault)


async def _validated(
    raw: bytes, body: Any, break_place: str | None, services: Services, caller: Caller
) -> tuple[ValidationReport, ParameterFates]:
    if break_place is not None:
        fault = InvalidRequestError(f"The body is no JSON: {break_place}.", code="invalid_json")
        return _validation([fault]), _NO_FATES
    try:
        parameters = as_object(body)
        check_values(raw, body)
    except InvalidRequestError as fault:
        return _validation([fault]), _NO_FATES
    examination = examine(parameters, services.rules)
    faults = [*examination.faults, *await _faults_of_model(examination, services, caller)]
    normalized = None if faults else examination.sound.model_dump(exclude_none=True)
    return _validation(faults, normalized), _fates(parameters, examination, services.rules)


async def _faults_of_model(examination: Examination, services: Services, caller: Caller) -> list[ApiError]:
    if "model" in examination.refused:
        return []
    try:
        services.catalog.check(examination.sound.model, caller.limits)
        await services.catalog.resolve(examination.sound.model)
    except ApiError as fault:  # whatever it is, the request would fail of it
        return [fault]
    return []


def _validation(faults: Sequence[ApiError], normalized: dict[str, Any] | None = None) -> ValidationReport:
    shown = faults[:MOST_FAULTS]
    return ValidationReport(
        valid=not faults,
        errors=[RequestFault(param=fault.param, message=fault.message, code=fault.code) for fault in shown],
        errors_left_out=len(faults) - len(shown),
        normalized_request=normalized,
    )


_NO_FATES = ParameterFates(honoured=[], adjusted=[], ignored=[], refused=[])


def _fates(body: Mapping[str, Any], examination: Examination, rules: Rules) -> ParameterFates:
    refused = examination.refused
    parameters = (each.parameter for each in find_adjustments(examination.sound))
    adjusted = [*dict.fromkeys(name for name in parameters if name and name not in refused)]
    taken = {name: row.fate for name, row in find_fates(body, rules).items() if name not in refused}
    return ParameterFates(
        honoured=[name for name, fate in taken.items() if fate != "ignored" and name not in adjusted],
        adjusted=adjusted,
        ignored=[name for name, fate in taken.items() if fate == "ignored"],
        refused=[*refused],
    )


def _compatibility(body: Mapping[str, Any], rules: Rules) -> CompatibilityReport:
    report: dict[str, list[ParameterFate]] = {kind: [] for kind in CompatibilityReport.model_fields}
    refused = examine(body, rules).refused
    for name, message in refused.items():
        report["refused"].append(ParameterFate(parameter=name, becomes=None, reason=message))
    for name, row in find_fates(body, rules).items():
        if name not in refused:
            kind = row.fate if name.partition(".")[0] in PARAMETERS else "unknown"
            report[kind].append(ParameterFate(parameter=name, becomes=row.becomes, reason=row.reason))
    return CompatibilityReport(**report)


def _shown_headers(request: Request) -> dict[str, str]:
    shown: dict[str, list[str]] = {}
    for name, value in request.headers.items():
        shown.setdefault(name, []).append(_REDACTED if _is_secret(name, value) else value)
    return {name: ", ".join(values) for name, values in shown.items()}


def _shown_url(request: Request) -> str:
    address, mark, query = str(request.url).partition("?")
    return address + mark + "&".join(map(_shown_pair, query.split("&")))


def _shown_pair(pair: str) -> str:
    name, equals, value = pair.partition("=")
    return name + equals + (_REDACTED if _is_secret(unquote_plus(name), unquote_plus(value)) else value)


def _is_secret(name: str, value: str) -> bool:
    return bool(_SECRET_NAME.search(name) or _SECRET_VALUE.search(value))
