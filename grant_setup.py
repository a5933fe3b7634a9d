"""Makes of the settings what the operator decided of Claude Code's own tools, or says what is wrong with them."""

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from agent_task import Confinement
from auth import claude_config_directory, find_login, secret_variables
from callers import KeyLimits
from config import ENV_FILE, ConfigurationError, Settings
from mcp_config import load_mcp_servers
from sandbox import find_fault
from tool_grants import GrantRules, ToolGrants
from turns import LaunchProfile
from workspaces import Workspaces

logger = logging.getLogger(__name__)

_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
# Where machines keep what is somebody's; programs are elsewhere.
_PLACES_OF_DATA = tuple(map(Path, ("/home", "/media", "/mnt", "/root", "/run", "/srv", "/tmp", "/var")))  # noqa: S108 - to hide it


def check_grants(settings: Settings) -> None:
    """Raise ConfigurationError for settings of Claude Code's own tools that can't be used."""
    load_mcp_servers(settings.mcp_config, settings.environment)
    _fault_of_sandbox(settings)
    _check_directories(settings)
    if settings.workspaces_dir:
        try:
            settings.workspaces_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"WORKSPACES_DIR {settings.workspaces_dir}: {error.strerror}.") from error


def open_grants(
    settings: Settings, profile: LaunchProfile, directory: Path, limits_of_keys: Iterable[KeyLimits]
) -> ToolGrants:
    """Return who grants the tools; `directory` is the server's own, for what goes with it. Raises ConfigurationError.

    It waits for the disk, and for the sandbox's trial.
    """
    fault = _fault_of_sandbox(settings)
    lists = [settings.claude_allowed_tools, *(each.tools for each in limits_of_keys if isinstance(each.tools, tuple))]
    if fault and any("Bash" in names for names in lists):
        logger.warning(
            "Commands of clients (Bash) aren't confined (%s): they may do what this server's user may", fault
        )
    rules = GrantRules(
        tools=settings.claude_allowed_tools,
        servers=load_mcp_servers(settings.mcp_config, settings.environment),
        max_turns=settings.claude_max_turns,
        max_budget_usd=settings.claude_max_budget_usd,
        may_bypass=settings.claude_allow_bypass and not _is_root(),
        most_bytes=settings.workspace_max_mb * 2**20,
        directory=settings.claude_cwd,
        empty_directories=_made(directory / "workspaces"),
        scratch=_made(directory / "scratch"),
        fetches_by_proxy=any(settings.environment.get(name) for name in _PROXIES),
        confinement=None if fault else _confinement(settings, directory),
    )
    return ToolGrants(rules, profile, _workspaces(settings, directory))


def _check_directories(settings: Settings) -> None:
    """Raise ConfigurationError where everyone could read what is the server's own, or a session's."""
    if settings.claude_cwd is None:
        return
    own = {"API_KEYS_FILE": settings.api_keys_file, "MCP_CONFIG": settings.mcp_config, ".env": ENV_FILE}
    for name, path in {**own, "WORKSPACES_DIR": settings.workspaces_dir}.items():
        if path and path.exists() and path.resolve().is_relative_to(settings.claude_cwd):
            raise ConfigurationError(f"{name} lies in CLAUDE_CWD, where clients could read it: {path}.")
    if settings.workspaces_dir and settings.claude_cwd.is_relative_to(settings.workspaces_dir.resolve()):
        raise ConfigurationError("CLAUDE_CWD lies in WORKSPACES_DIR, which is for sessions alone.")


def _fault_of_sandbox(settings: Settings) -> str | None:
    """Return why commands aren't confined. Raises ConfigurationError where they have to be."""
    if settings.claude_sandbox == "off":
        return "CLAUDE_SANDBOX=off"
    fault = find_fault(settings.environment.get("PATH", ""))
    if fault and settings.claude_sandbox == "on":
        raise ConfigurationError(f"CLAUDE_SANDBOX=on, but commands can't be confined: {fault}.")
    return fault


def _is_root() -> bool:
    # Windows has no such user.
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _confinement(settings: Settings, directory: Path) -> Confinement:
    hidden = tuple(sorted({*_hidden(settings, directory)}))
    return Confinement(hidden, secret_variables(settings, find_login(settings)))


def _hidden(settings: Settings, directory: Path) -> Iterator[Path]:
    """Yield what commands must not read: homes, logins, and what is this server's own."""
    home = settings.environment.get("HOME")
    own = (settings.api_keys_file, settings.mcp_config, settings.workspaces_dir, home and Path(home))
    for path in (directory, claude_config_directory(settings), ENV_FILE, *own, *_PLACES_OF_DATA):
        # Without a root there is nothing that could be run.
        if path and path.exists() and path.resolve() != Path("/"):
            yield path.resolve()


def _workspaces(settings: Settings, directory: Path) -> Workspaces | None:
    if settings.claude_cwd and not settings.workspaces_dir:
        return None
    return Workspaces(settings.workspaces_dir or _made(directory / "sessions"), settings.timeout_seconds)


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory
