"""Which models there are: what Claude Code lists for this account, and the foreign names that an operator maps."""

import re
from collections.abc import Awaitable, Callable, Mapping
from fnmatch import fnmatchcase

import anyio

from callers import KeyLimits
from errors import ModelNotFoundError
from inspections import ClaudeModel, Inspection
from turns import ThinksWhen

# Ids as Anthropic writes them, with the suffixes of Vertex (@20250929) and of the long context window ([1m]).
_CLAUDE_ID = re.compile(r"claude-[a-z0-9][a-z0-9.@:_-]*(\[1m\])?", re.IGNORECASE)
_LONG_CONTEXT = "[1m]"
_FAMILY = re.compile(r"claude-[a-z]+-\d+", re.IGNORECASE)
# Claude Code lets these answer at once, whatever it is told.
_NEVER_THINKS = re.compile(r"claude-3-")


class ModelCatalog:
    """Answers what a model's name stands for. Claude Code is asked once, when somebody first needs to know."""

    def __init__(self, inspect: Callable[[], Awaitable[Inspection]], aliases: Mapping[str, str], created: int) -> None:
        """`inspect` asks a Claude Code process; `aliases` maps foreign names to ours.

        `created` (seconds since the epoch) dates every model: Claude Code doesn't tell, and clients want a number.
        """
        self.created = created
        self._inspect = inspect
        self._aliases = dict(aliases)
        self._inspection: Inspection | None = None
        self._lock = anyio.Lock()
        self._without_output_format: set[str] = set()

    async def inspection(self) -> Inspection:
        """What Claude Code told of itself, cached. Raises ClaudeCodeError where it can't be asked."""
        async with self._lock:
            if self._inspection is None:
                self._inspection = await self._inspect()
            return self._inspection

    async def names(self, limits: KeyLimits) -> tuple[str, ...]:
        """Every name that such a key may ask for and that can be listed: ids, Claude's aliases and the operator's."""
        listed = (await self.inspection()).models
        names = dict.fromkeys([name for model in listed for name in (model.id, model.alias)] + [*self._aliases])
        return tuple(name for name in names if self._allows(name, limits))

    def check(self, name: str, limits: KeyLimits) -> None:
        """Let pass what such a key may ask for, by its own name or by what that stands for; no process is spent.

        Raises ModelNotFoundError.
        """
        if not self._allows(name, limits):
            raise ModelNotFoundError(name)

    def _allows(self, name: str, limits: KeyLimits) -> bool:
        both = (name, self._aliases.get(name, name))
        return limits.models is None or any(_fits(each, pattern) for each in both for pattern in limits.models)

    async def resolve(self, name: str) -> str:
        """Return what to ask Claude Code for. Raises ModelNotFoundError, and no process is spent on it."""
        target = self._aliases.get(name, name)
        if name in self._aliases or _CLAUDE_ID.fullmatch(target):
            return target
        if any(_stands_for(model, target) for model in (await self.inspection()).models):
            return target
        raise ModelNotFoundError(name)

    async def thinks(self, model: str) -> ThinksWhen:
        """Whether a model, by the name that Claude Code knows, thinks when it's told to, as far as is known."""
        name = model.lower().removesuffix(_LONG_CONTEXT)
        if _NEVER_THINKS.match(name):
            return "never"
        listed = [each for each in (await self.inspection()).models if not each.can_stop_thinking]
        names = {each.alias.removesuffix(_LONG_CONTEXT) for each in listed} | {_family(each.id) for each in listed}
        return "always" if {name, _family(name)} & names else "if told"

    def holds_output(self, model: str) -> bool:
        """Whether Claude's API holds answers of a model to a schema, as far as it's known."""
        return model not in self._without_output_format

    def note_without_output_format(self, model: str) -> None:
        """Remember that it doesn't."""
        self._without_output_format.add(model)


def _family(name: str) -> str:
    """Return what a model has in common with its relatives, like `claude-sonnet-5`; the name, where it doesn't tell."""
    found = _FAMILY.match(name.lower())
    return found[0] if found else name


def _fits(name: str, pattern: str) -> bool:
    # Brackets mean themselves: an id may end in [1m].
    return fnmatchcase(name, pattern.replace("[", "[[]"))


def _stands_for(model: ClaudeModel, name: str) -> bool:
    return name in (model.alias, model.id)
