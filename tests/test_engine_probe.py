"""The trial at the start: the installed Claude Code passes it, and one that does otherwise doesn't."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

import claude_process
import engine_probe
from cli_frames import Control, rebinding
from cli_launch import find_cli
from commands import shell_script
from conftest import ServerFactory
from engine_probe import find_fault
from turns import Binding, Sampling

CLI = find_cli(None)


@pytest.mark.asyncio
async def test_the_installed_cli_passes(tmp_path: Path) -> None:
    """Seeding, going on, editing, regenerating and recycling show the model what they should."""
    assert await find_fault(CLI, "", tmp_path) is None


def ignore_rewinds(_target: str) -> Control:
    """As if Claude Code acknowledged a rewind that it doesn't know."""
    return "rewind_conversation", {"target_message_uuid": "another"}


def keep_the_prompt(old: Binding | None, new: Binding, environment: Mapping[str, str]) -> Iterator[Control]:
    """As if Claude Code didn't take on another system prompt."""
    return (control for control in rebinding(old, new, environment) if control[0] != "set_model")


def keep_the_sampling(old: Binding | None, new: Binding, environment: Mapping[str, str]) -> Iterator[Control]:
    """As if Claude Code didn't forget a variable that is set to nothing."""
    forgotten = replace(new, sampling=old.sampling if old and new.sampling == Sampling() else new.sampling)
    return rebinding(old, forgotten, environment)


def keep_the_tools(old: Binding | None, new: Binding, environment: Mapping[str, str]) -> Iterator[Control]:
    """As if Claude Code didn't forget the functions of a client that is gone."""
    return rebinding(old, replace(new, tools=new.tools or (old.tools if old else ())), environment)


def keep_thinking(old: Binding | None, new: Binding, environment: Mapping[str, str]) -> Iterator[Control]:
    """As if Claude Code went on thinking."""
    return rebinding(old, replace(new, thinking=new.thinking if old is None else old.thinking), environment)


def keep_the_form(old: Binding | None, new: Binding, environment: Mapping[str, str]) -> Iterator[Control]:
    """As if Claude Code held other answers to a schema, too."""
    form = new.output_format or (old.output_format if old else None)
    return rebinding(old, replace(new, output_format=form), environment)


def ask_by_full_name(old: Binding | None, new: Binding, environment: Mapping[str, str]) -> Iterator[Control]:
    """As if Claude Code tried out each model with a request."""
    for subtype, fields in rebinding(old, new, environment):
        yield subtype, {**fields, "model": new.model} if subtype == "set_model" else fields


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("name", "otherwise", "fault"),
    [
        ("rewind_to", ignore_rewinds, "didn't rewind"),
        ("rebinding", keep_the_prompt, "You are the second"),
        (
            "rebinding",
            keep_the_sampling,
            "Sampling(temperature=0.5, top_p=0.9, stop_sequences=('Stop',), max_tokens=777, service_tier=None)",
        ),
        ("rebinding", ask_by_full_name, "asked the model 8 times"),
        ("rebinding", keep_thinking, "([], None), 2048, None"),
        ("rebinding", keep_the_form, "([], None), 0, {'type': 'object'}"),
        ("rebinding", keep_the_tools, "([{'name': 'two'"),
    ],
)
async def test_a_cli_that_does_otherwise_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, otherwise: object, fault: str
) -> None:
    """What a process keeps from before, and what it asks unasked, is seen."""
    monkeypatch.setattr(claude_process, name, otherwise)
    assert fault in (await find_fault(CLI, "", tmp_path) or "")


@pytest.mark.asyncio
@pytest.mark.parametrize("change", [{"system": "One text."}, {"system": []}, {"messages": [{"content": []}]}])
async def test_a_request_of_another_shape_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """What a future Claude Code may send instead fails the trial, and nothing else."""
    seen = engine_probe._seen
    monkeypatch.setattr(engine_probe, "_seen", lambda body: seen({**body, **change}))
    assert await find_fault(CLI, "", tmp_path)


@pytest.mark.asyncio
async def test_a_program_that_is_no_cli_fails(tmp_path: Path) -> None:
    """A process that ends is a fault, not an error."""
    program = shell_script(tmp_path / "not-claude", "exit 3")
    assert "ClaudeCodeError" in (await find_fault(program, "", tmp_path) or "")


@pytest.mark.parametrize("fault", [None, "it forgets"])
def test_a_server_uses_processes_again_only_after_the_trial(
    serve: ServerFactory, monkeypatch: pytest.MonkeyPatch, fault: str | None
) -> None:
    """With PROCESS_REUSE=auto the trial's outcome decides; where it fails, each process serves one turn."""

    async def trial(_cli: Path, _search_path: str, _directory: Path) -> str | None:
        return fault

    monkeypatch.setattr("composition.find_fault", trial)
    server = serve(process_reuse="auto")
    body = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "Hello"}]}
    url = f"{server.url}/v1/chat/completions"
    origins = [httpx.post(url, json=body, timeout=30).headers["x-claude-process"] for _ in range(3)]
    assert ({"adopted"} <= {*origins}) == (fault is None)
    assert httpx.get(f"{server.url}/v1/pool").json()["reuse"] == (fault is None)
