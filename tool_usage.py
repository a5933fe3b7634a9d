"""How Claude Code's own tools were used since this server began, by caller: in its memory alone."""

from collections import Counter, defaultdict
from collections.abc import Mapping

from turns import OwnToolEnded

_MOST = 1000

Outcomes = Mapping[tuple[str, str], int]
"""How many calls of a tool had an outcome, by both names."""


class ToolUsage:
    """Counts the calls of tools."""

    def __init__(self) -> None:
        """Begin with none."""
        self._counts: defaultdict[str, Counter[tuple[str, str]]] = defaultdict(Counter)

    def note(self, owner: str, event: OwnToolEnded) -> None:
        """Count a call; not under ever more names, which are the model's to make up."""
        counts, key = self._counts[owner], (event.name, event.outcome)
        if key in counts or len(counts) < _MOST:
            counts[key] += 1

    def of(self, owner: str) -> Outcomes:
        """Return a caller's counts."""
        return self._counts.get(owner, {})
