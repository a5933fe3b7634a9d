"""What is kept of one process beside its conversation: what it has spent, and how much its tools have written."""

from collections.abc import Sequence
from pathlib import Path

from agent_task import Grant
from tool_policy import size_of


class Costs:
    """What a process has spent, in dollars. Claude Code tells what it was so far, a turn what it was for it."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._spent = self._told = 0.0

    def of_turn(self, total_usd: float | None) -> float | None:
        """Return what was spent since it was asked last; None where Claude Code doesn't tell."""
        if total_usd is None:
            return None
        before, self._spent = self._spent, total_usd
        return total_usd - before

    def tell(self, cost_usd: float | None) -> None:
        """Note that somebody was told of this."""
        self._told += cost_usd or 0.0

    def take_untold(self) -> float:
        """Return what nobody was told of. Once."""
        untold, self._told = self._spent - self._told, self._spent
        return untold


class DiskWatch:
    """Tells when commands write far more than they may. It waits for the disk.

    A call that would do so is denied, but what a command does is only seen afterwards.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        """Watch these."""
        self._directories = directories
        self._most: int | None = None
        self._before = 0.0

    def begin(self, grant: Grant) -> None:
        """Begin a turn, which may have more in there already than it may make of it."""
        self._most = grant.most_bytes if "Bash" in grant.tools else None
        self._before = 0.0 if self._most is None else self._size()

    def has_outgrown(self) -> bool:
        """Whether it has become too much: as much again is what one call may add that was allowed."""
        return self._most is not None and self._size() > max(self._most, self._before) + self._most

    def _size(self) -> float:
        return sum(map(size_of, self._directories))
