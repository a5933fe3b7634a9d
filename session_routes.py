"""Sessions and accounts, as their own key sees them: /v1/sessions and /v1/usage."""

from dataclasses import asdict
from datetime import datetime, timezone

from fastapi import APIRouter

from report_models import (
    DayOfUsage,
    LimitsReport,
    SessionCountsReport,
    SessionDeleted,
    SessionDescription,
    SessionList,
    SessionStatsReport,
    SessionUsage,
    UsageReport,
)
from services import CallerDependency, ServicesDependency, limited_behind_key
from session_manager import SWEEP_SECONDS
from stores import SessionInfo

router = APIRouter(dependencies=limited_behind_key("session"), responses={429: {}})


@router.head("/v1/sessions", include_in_schema=False)
@router.get("/v1/sessions")
async def list_sessions(services: ServicesDependency, caller: CallerDependency) -> SessionList:
    """List the key's sessions, the latest used first."""
    infos = await services.sessions.list(caller.owner)
    return SessionList(sessions=[*map(_description, infos)], total=len(infos))


@router.head("/v1/sessions/stats", include_in_schema=False)
@router.get("/v1/sessions/stats")
async def session_stats(services: ServicesDependency, caller: CallerDependency) -> SessionStatsReport:
    """Count the key's sessions and their messages."""
    stats = await services.sessions.stats(caller.owner)
    return SessionStatsReport(
        session_stats=SessionCountsReport(
            active_sessions=stats.active, expired_sessions=stats.expired, total_messages=stats.messages
        ),
        cleanup_interval_minutes=SWEEP_SECONDS / 60,
        default_ttl_hours=services.sessions.limits.ttl / 3600,
    )


@router.head("/v1/sessions/{session_id:path}", include_in_schema=False)
@router.get("/v1/sessions/{session_id:path}", responses={404: {}})
async def retrieve_session(
    session_id: str, services: ServicesDependency, caller: CallerDependency
) -> SessionDescription:
    """Describe one of the key's sessions."""
    return _description(await services.sessions.get(caller.owner, session_id))


@router.delete("/v1/sessions/{session_id:path}", responses={404: {}})
async def delete_session(session_id: str, services: ServicesDependency, caller: CallerDependency) -> SessionDeleted:
    """Forget one of the key's sessions."""
    await services.sessions.delete(caller.owner, session_id)
    return SessionDeleted(session_id=session_id, message=f"Session {session_id} was deleted.")


@router.head("/v1/usage", include_in_schema=False)
@router.get("/v1/usage")
async def usage(services: ServicesDependency, caller: CallerDependency) -> UsageReport:
    """Tell what the key used in the last days, and what it may use."""
    days = await services.quotas.report(caller.owner)
    return UsageReport(
        key=caller.name,
        days=[DayOfUsage(**asdict(day)) for day in days],
        limits=LimitsReport(**asdict(caller.limits)),
        resets_at=services.quotas.resets_at(),
    )


def _description(info: SessionInfo) -> SessionDescription:
    created, last, end = (
        datetime.fromtimestamp(seconds, timezone.utc)
        for seconds in (info.created_at, info.last_accessed, info.expires_at)
    )
    return SessionDescription(
        session_id=info.id,
        created_at=created,
        last_accessed=last,
        expires_at=end,
        message_count=info.message_count,
        turn_count=info.turns,
        model=info.model,
        usage=SessionUsage(**asdict(info.usage)),
        cost_usd=info.cost_usd,
    )
