"""The calls of Claude Code's own tools in a turn, as they are written, made and answered: from pieces to events."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from turns import OwnToolEnded, OwnToolInput, OwnToolStarted, ToolUseBlock

_LONGEST_SUMMARY = 500


@dataclass
class OwnTools:
    """What a turn has shown of them so far. `denials` are the reasons of calls that weren't made, by their ids."""

    denials: Mapping[str, str] = field(default_factory=dict)
    tells_steps: bool = True
    """Whether the client gets the text of every step."""
    steps: int = 0
    _names: dict[str, str] = field(default_factory=dict)
    _written: str | None = None
    """The call that is written now."""
    _arguments: str = ""

    @property
    def is_written(self) -> bool:
        """Whether a call is being written."""
        return self._written is not None

    def begin(self, identifier: str, name: str) -> OwnToolStarted:
        """Begin a call."""
        self._names[identifier], self._written, self._arguments = name, identifier, ""
        return OwnToolStarted(identifier, name)

    def add(self, piece: str) -> None:
        """Take the next piece of its arguments."""
        self._arguments += piece

    def end(self) -> OwnToolInput:
        """End a call that is written; of one whose arguments can't be read Claude Code makes what it likes."""
        identifier, self._written = self._written or "", None
        name = self._names[identifier]
        block = ToolUseBlock.of(identifier, name, self._arguments or "{}")
        return OwnToolInput(identifier, name, block.input if block else {})

    def answer(self, identifier: str, content: object, *, is_error: bool) -> OwnToolEnded | None:
        """Take what came of a call; None where it isn't one of these."""
        name = self._names.get(identifier)
        if name is None:
            return None
        if identifier in self.denials:
            return OwnToolEnded(identifier, name, "denied", self.denials[identifier])
        return OwnToolEnded(identifier, name, "error" if is_error else "result", _summary(content))


def _summary(content: object) -> str:
    text = content if isinstance(content, str) else "\n".join(_texts(content))
    return text if len(text) <= _LONGEST_SUMMARY else f"{text[:_LONGEST_SUMMARY]}…"


def _texts(content: object) -> Iterable[str]:
    blocks: list[Any] = content if isinstance(content, list) else []
    return (str(block.get("text", f"[{block.get('type')}]")) for block in blocks if isinstance(block, dict))
