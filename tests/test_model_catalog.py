"""What a model's name stands for, and how often Claude Code is asked for it."""

import re
from collections.abc import Mapping
from contextlib import nullcontext

import anyio
import pytest

from callers import KeyLimits
from errors import ClaudeCodeError, ModelNotFoundError
from inspections import Account, ClaudeModel, Inspection
from model_catalog import ModelCatalog

SONNET = ClaudeModel("sonnet", "claude-sonnet-4-5")
OTHER = ClaudeModel("default", "eu.anthropic.other-v1:0")
SEEN = Inspection(Account(None, "ANTHROPIC_API_KEY", "firstParty"), (SONNET, OTHER))


class Inspector:
    """Counts how often Claude Code is asked; `failures` answers go wrong first."""

    def __init__(self, failures: int = 0) -> None:
        self.asked = 0
        self._failures = failures

    async def __call__(self) -> Inspection:
        """Answer, after others had their chance to ask as well."""
        self.asked += 1
        await anyio.lowlevel.checkpoint()
        if self.asked <= self._failures:
            raise ClaudeCodeError("no luck")
        return SEEN


def catalog(inspector: Inspector, aliases: Mapping[str, str] | None = None) -> ModelCatalog:
    """A catalog with these foreign names."""
    return ModelCatalog(inspector, aliases or {}, created=7)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "name",
    [
        "claude-sonnet-4-5",
        "claude-3-5-haiku-20241022",
        "claude-sonnet-4-5@20250929",
        "claude-sonnet-4-5[1m]",
        "Claude-Opus-4",
        "claude-unheard-of-9",
    ],
)
async def test_a_claude_id_is_itself_and_nobody_is_asked(name: str) -> None:
    """Any id of Claude's form passes as it is, without a process."""
    inspector = Inspector()
    assert await catalog(inspector).resolve(name) == name
    assert inspector.asked == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["sonnet", "default", "eu.anthropic.other-v1:0"])
async def test_what_claude_code_lists_can_be_asked_for(name: str) -> None:
    """Claude Code's aliases and ids of other forms are known by its list."""
    inspector = Inspector()
    assert await catalog(inspector).resolve(name) == name
    assert inspector.asked == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "name", ["", "gpt-4o", "Sonnet 4", "claude-", "claude--x", "claude-x\n", "claude-x[2m]", "my-claude-x", "-claude"]
)
async def test_a_name_that_stands_for_nothing_is_not_found(name: str) -> None:
    """Foreign and malformed names are refused, by the name that was asked for."""
    with pytest.raises(ModelNotFoundError) as caught:
        await catalog(Inspector()).resolve(name)
    assert f"`{name}`" in caught.value.message


@pytest.mark.asyncio
@pytest.mark.parametrize("alias", ["gpt-4o", "sonnet", "claude-sonnet-4-5"])
@pytest.mark.parametrize("target", ["claude-opus-4-1", "arn:aws:bedrock:x"])
async def test_the_operators_names_win(alias: str, target: str) -> None:
    """An alias is what its operator says, also where the name would mean something by itself, and is no chain."""
    inspector = Inspector()
    assert await catalog(inspector, {alias: target, target: "haiku"}).resolve(alias) == target
    assert inspector.asked == 0


@pytest.mark.asyncio
async def test_names_are_told_once_each() -> None:
    """Ids, Claude's aliases and the operator's stand in the list in this order, without doubles."""
    named = await catalog(Inspector(), {"gpt-4o": "sonnet", "sonnet": "opus"}).names(KeyLimits())
    assert named == ("claude-sonnet-4-5", "sonnet", "eu.anthropic.other-v1:0", "default", "gpt-4o")


@pytest.mark.parametrize(
    ("models", "name", "allowed"),
    [
        (None, "whatever", True),
        (["sonnet"], "sonnet", True),
        (["sonnet"], "Sonnet", False),
        (["sonnet"], "claude-sonnet-4-5", False),
        (["opus", "claude-sonnet-*"], "claude-sonnet-4-5[1m]", True),
        (["claude-sonnet-4-5[1m]"], "claude-sonnet-4-5[1m]", True),
        (["claude-sonnet-4-5[1m]"], "claude-sonnet-4-51", False),
        (["gpt-4o"], "gpt-4o", True),
        (["claude-sonnet-4-5"], "gpt-4o", True),
        (["claude-haiku-*"], "gpt-4o", False),
        (["*"], "claude-unheard-of-9", True),
    ],
)
def test_a_key_may_ask_for_the_models_that_its_limits_name(models: list[str] | None, name: str, allowed: bool) -> None:
    """A name is allowed by itself or by what the operator has it stand for, and nobody is asked for that."""
    inspector = Inspector()
    limits = KeyLimits(models=None if models is None else tuple(models))
    with nullcontext() if allowed else pytest.raises(ModelNotFoundError, match=f"`{re.escape(name)}`"):
        catalog(inspector, {"gpt-4o": "claude-sonnet-4-5"}).check(name, limits)
    assert inspector.asked == 0


@pytest.mark.asyncio
async def test_only_what_is_allowed_is_listed() -> None:
    """The list leaves out what the key may not ask for, and has the operator's names for what it may."""
    asked = catalog(Inspector(), {"gpt-4o": "claude-sonnet-4-5", "gpt-5": "default"})
    assert await asked.names(KeyLimits(models=("claude-sonnet-*",))) == ("claude-sonnet-4-5", "gpt-4o")


@pytest.mark.asyncio
async def test_claude_code_is_asked_once_by_all_together() -> None:
    """Askers that come at the same time wait for one answer, and later ones get it, too."""
    inspector = Inspector()
    asked = catalog(inspector)
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(asked.names, KeyLimits())
    assert await asked.inspection() is SEEN
    assert inspector.asked == 1


@pytest.mark.asyncio
async def test_a_failure_is_not_remembered() -> None:
    """Who asks after a failure asks again, and gets an answer."""
    inspector = Inspector(failures=1)
    asked = catalog(inspector)
    with pytest.raises(ClaudeCodeError):
        await asked.inspection()
    assert await asked.resolve("sonnet") == "sonnet"
    assert inspector.asked == 2
