"""The modules import only from lower layers, never from a neighbour."""

import ast
from pathlib import Path

import pytest

from conftest import REPOSITORY

LAYERS = (
    {
        "agent_task",
        "background",
        "browser_headers",
        "callers",
        "content_log",
        "errors",
        "inspections",
        "json_values",
        "schema_instance",
        "side_by_side",
        "tool_catalog",
        "workspaces",
    },
    {"request_record", "sandbox", "setting_types", "tool_policy", "turns"},
    {"config", "demo_replies", "server_log"},
    {
        "agent_launch",
        "cli_frames",
        "conversation",
        "demo_upstream",
        "json_schema",
        "keys_file",
        "mcp_config",
        "models",
    },
    {
        "answer_models",
        "call_history",
        "content_parts",
        "output_schema",
        "parameter_validator",
        "process_books",
        "tool_calls",
    },
    {
        "cli_launch",
        "client_functions",
        "report_models",
        "request_options",
        "session_locks",
        "stores",
        "tool_bridge",
        "tool_usage",
        "turn_queue",
        "turn_state",
        "upstream_failures",
    },
    {"cli_channel", "memory_stores", "parameter_mapping", "redis_stores", "tool_grants", "turn_events", "turn_waits"},
    {
        "auth",
        "message_adapter",
        "permission_hooks",
        "rate_limiter",
        "request_bar",
        "request_body",
        "sdk_transport",
        "streaming",
    },
    {"grant_setup", "claude_process"},
    {
        "ending_processes",
        "engine_probe",
        "mcp_catalog",
        "model_catalog",
        "process_questions",
        "quotas",
        "session_manager",
        "spare_processes",
    },
    {"process_pool", "request_faults"},
    {"chat_service", "http_layer", "pool_metrics"},
    {"graceful_shutdown", "host_guard", "openapi_document", "origin_guard", "services", "turn_notes"},
    {"agent_routes", "chat_routes", "composition", "debug_routes", "info_routes", "session_routes"},
    {"main"},
)
LAYER_OF = {module: number for number, modules in enumerate(LAYERS) for module in modules}
SOURCES = sorted(REPOSITORY.glob("*.py"))


def imported(path: Path) -> set[str]:
    """The top-level names of everything that a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}: the modules are no package"
            names.add((node.module or "").split(".")[0])
    return names


def reads_the_environment(path: Path) -> bool:
    """Whether a module looks at `os.environ` or `os.getenv`."""
    return any(
        isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    )


def test_every_module_has_a_layer() -> None:
    """The table knows each module, and no others."""
    assert {path.stem for path in SOURCES} == set(LAYER_OF)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_module_imports_only_from_below(path: Path) -> None:
    """Each of our modules that a module imports is of a lower layer."""
    ours = imported(path) & set(LAYER_OF)
    assert {module for module in ours if LAYER_OF[module] >= LAYER_OF[path.stem]} == set()


@pytest.mark.parametrize(
    ("package", "importers"),
    [("claude_agent_sdk", {"claude_process", "permission_hooks", "sdk_transport", "turn_events"})],
)
def test_a_package_has_one_home(package: str, importers: set[str]) -> None:
    """What is peculiar to a package stays in a few modules, which are its home."""
    assert {path.stem for path in SOURCES if package in imported(path)} == importers


def test_one_module_reads_the_environment() -> None:
    """Settings come from config.py, and from nowhere else."""
    assert [path.stem for path in SOURCES if reads_the_environment(path)] == ["config"]


def test_the_demo_upstream_stands_alone() -> None:
    """It could play the Messages API for anybody: it imports nothing of the server."""
    of_ours = imported(REPOSITORY / "demo_upstream.py") | imported(REPOSITORY / "demo_replies.py")
    assert of_ours & set(LAYER_OF) == {"demo_replies", "schema_instance"}
