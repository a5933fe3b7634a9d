"""What the server tells of itself: models, health, login, version, and the page at `/`."""

import platform
from dataclasses import asdict
from importlib.metadata import version
from statistics import fmean, quantiles

from fastapi import APIRouter, Depends, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

import pool_metrics
from answer_models import Model, ModelList
from browser_headers import page
from config import VERSION
from errors import ApiError
from report_models import AuthStatus, Health, PoolStatus, Version
from services import CallerDependency, Services, ServicesDependency, limited, limited_behind_key, require_key

open_router = APIRouter()
router = APIRouter(dependencies=[Depends(require_key)])
limited_router = APIRouter(dependencies=limited_behind_key("auth"))

_LANDING = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>claude-wrapper</title>
<style>body{{font:1rem/1.6 system-ui;max-width:40rem;margin:4rem auto;padding:0 1rem}}</style>
<h1>claude-wrapper {version}</h1>
<p>An OpenAI-compatible API in front of Claude Code. {backend}</p>
<p>Point an OpenAI client's <code>base_url</code> at <code>/v1</code> here.</p>
<ul>
<li><a href="docs">API documentation</a></li>
<li><a href="v1/models">Models</a></li>
<li><a href="v1/auth/status">Login status</a></li>
<li><a href="health">Health</a></li>
<li><a href="version">Versions</a></li>
</ul></html>"""
_SWAGGER = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5"
_SWAGGER_SCRIPT, _SWAGGER_STYLE = f"{_SWAGGER}/swagger-ui-bundle.js", f"{_SWAGGER}/swagger-ui.css"
# Swagger UI draws with images that stand in its style, and asks this server alone.
_SWAGGERS_SOURCES = {
    "script-src": _SWAGGER_SCRIPT,
    "style-src": _SWAGGER_STYLE,
    "img-src": "data:",
    "connect-src": "'self'",
}
_DEMO = "<strong>Demo: the answers come from a built-in stand-in, not from Claude.</strong>"


@open_router.head("/", include_in_schema=False)
@open_router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def landing(services: ServicesDependency) -> HTMLResponse:
    """Say what runs here."""
    return page(_LANDING.format(version=VERSION, backend=_DEMO if services.backend == "demo" else ""))


@open_router.head("/docs", include_in_schema=False)
@open_router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
async def documentation(request: Request) -> HTMLResponse:
    """Show the OpenAPI document. FastAPI's own route would have no policy for what the page loads."""
    document = f"{request.scope.get('root_path', '').rstrip('/')}/openapi.json"
    shown = get_swagger_ui_html(
        openapi_url=document,
        title="claude-wrapper: the API",
        swagger_js_url=_SWAGGER_SCRIPT,
        swagger_css_url=_SWAGGER_STYLE,
        swagger_favicon_url="data:,",
    )
    return page(bytes(shown.body).decode(), _SWAGGERS_SOURCES)


@open_router.head("/health", dependencies=[Depends(limited("health"))], include_in_schema=False)
@open_router.get("/health", dependencies=[Depends(limited("health"))], responses={429: {}})
async def health(services: ServicesDependency) -> Health:
    """Say that the server is up, degraded where its store is away; nothing is asked of Claude."""
    status = "healthy" if await services.connection.ping() else "degraded"
    return Health(status=status, version=VERSION, backend=services.backend)


@router.head("/version", include_in_schema=False)
@router.get("/version")
async def versions(services: ServicesDependency) -> Version:
    """Name the versions that matter in a bug report."""
    return Version(
        version=VERSION,
        claude_code_version=services.claude_code_version,
        claude_agent_sdk_version=version("claude-agent-sdk"),
        python_version=platform.python_version(),
    )


@router.head("/v1/models", include_in_schema=False)
@router.get("/v1/models", responses={502: {}})
async def list_models(services: ServicesDependency, caller: CallerDependency) -> ModelList:
    """List the models of this account, their aliases and the operator's, as far as the caller may ask for them."""
    return ModelList(data=[_model(name, services) for name in await services.catalog.names(caller.limits)])


@router.head("/v1/models/{name:path}", include_in_schema=False)
@router.get("/v1/models/{name:path}", responses={404: {}, 502: {}})
async def retrieve_model(name: str, services: ServicesDependency, caller: CallerDependency) -> Model:
    """Say whether a model of this name can be asked for."""
    services.catalog.check(name, caller.limits)
    await services.catalog.resolve(name)
    return _model(name, services)


def _model(name: str, services: Services) -> Model:
    return Model(id=name, created=services.catalog.created)


@router.head("/v1/pool", include_in_schema=False)
@router.get("/v1/pool")
async def pool_status(services: ServicesDependency) -> PoolStatus:
    """Say what the Claude Code processes are doing, how turns came by theirs, and how long requests waited."""
    state = services.pool.state
    waits = state.waits or (0.0,)
    return PoolStatus(
        processes={"working": state.working, "parked": state.parked, "spare": state.spare},
        limit=state.limit,
        reuse=state.reuse,
        leases=state.leases,
        queue={"length": state.queue_length},
        waits={"mean": fmean(waits), "p95": quantiles([*waits, *waits], n=20)[-1], "longest": max(waits)},
    )


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(services: ServicesDependency) -> Response:
    """Tell Prometheus what the Claude Code processes are doing."""
    return Response(pool_metrics.render(services.pool.state), media_type=pool_metrics.CONTENT_TYPE)


@limited_router.head("/v1/auth/status", include_in_schema=False)
@limited_router.get("/v1/auth/status", responses={429: {}})
async def auth_status(services: ServicesDependency) -> AuthStatus:
    """Say which login is in use, whether it is complete, what is missing and how to mend it."""
    login = services.login
    try:
        inspection = await services.catalog.inspection()
    except ApiError:
        inspection = None
    missing = [*login.missing]
    if inspection and login.complete and not inspection.account.signed_in:
        missing.append("a login that Claude Code accepts")
    return AuthStatus(
        method=login.method,
        complete=not missing,
        missing=missing,
        hint=login.fix if missing else None,
        api_key_required=services.settings.asks_for_keys,
        account=asdict(inspection.account) if inspection else None,
        claude_code_version=services.claude_code_version,
    )
