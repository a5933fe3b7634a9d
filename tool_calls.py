"""The calls of tools as they are written, and those of Claude Code's own until it is known what came of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from turns import OwnToolEnded, OwnToolInput, OwnToolStarted, ToolUseBlock

_LONGEST_SUMMARY = 500


@dataclass
class Call:
    """A call as it is written."""

    id: str
    name: str
    arguments: str = ""

    @property
    def block(self) -> ToolUseBlock | None:
        """The whole call; None where its arguments are no JSON object, or not complete."""
        return ToolUseBlock.of(self.id, self.name, self.arguments)


@dataclass
class OwnToolCalls:
    """The calls of Claude Code's own tools in one process. `denials` are the reasons of those not made, by their ids.

    They outlast a request that ends with a call of the client's function: what came of them is told to the next one.
    """

    denials: Mapping[str, str] = field(default_factory=dict)
    has_begun: bool = False
    """Whether there was any: what one has done can't be undone."""
    _open: dict[str, str] = field(default_factory=dict)
    """The names of those that aren't answered, by their ids."""
    _writing: Call | None = None

    @property
    def is_writing(self) -> bool:
        """Whether a call is being written."""
        return self._writing is not None

    @property
    def are_open(self) -> bool:
        """Whether any is not answered yet."""
        return bool(self._open)

    def begin(self, identifier: str, name: str) -> OwnToolStarted:
        """Begin a call."""
        self.has_begun, self._open[identifier], self._writing = True, name, Call(identifier, name)
        return OwnToolStarted(identifier, name)

    def write(self, piece: str) -> None:
        """Take the next piece of its arguments."""
        assert self._writing is not None  # noqa: S101 - for the type checker: it was begun
        self._writing.arguments += piece

    def end(self) -> OwnToolInput:
        """End a call that is written; of one whose arguments can't be read Claude Code makes what it likes."""
        assert self._writing is not None  # noqa: S101 - for the type checker: it was begun
        call, self._writing = self._writing, None
        call.arguments = call.arguments or "{}"
        return OwnToolInput(call.id, call.name, call.block.input if call.block else {})

    def answer(self, identifier: str, content: object, *, is_error: bool) -> OwnToolEnded | None:
        """Take what came of a call; None where it isn't one of these."""
        name = self._open.pop(identifier, None)
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
