"""Processes that wait started and bound to nothing, for the launch profiles that recent traffic used.

Starting Claude Code costs half a second of CPU; a spare has it behind it when a request comes.
"""

import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator

import anyio
from anyio.abc import TaskGroup

from claude_process import ClaudeProcess
from errors import ApiError
from server_log import of_no_request
from turns import LaunchProfile

logger = logging.getLogger(__name__)

_REMEMBERED_USES = 32


class SpareProcesses:
    """Keeps a number of spares, and replaces in the background those that are taken."""

    def __init__(
        self,
        wanted: int,
        tasks: TaskGroup,
        launch: Callable[[LaunchProfile], Awaitable[ClaudeProcess]],
        retire: Callable[[ClaudeProcess], None],
    ) -> None:
        """Keep `wanted` spares in all. `launch` starts one, `retire` ends one that nobody needs any more."""
        self._wanted, self._tasks, self._launch, self._retire = wanted, tasks, launch, retire
        self._waiting: dict[LaunchProfile, list[ClaudeProcess]] = {}
        self._recent: deque[LaunchProfile] = deque(maxlen=_REMEMBERED_USES)
        self._refilling = anyio.Lock()

    def __iter__(self) -> Iterator[ClaudeProcess]:
        """Go through all that wait."""
        return (process for waiting in self._waiting.values() for process in waiting)

    def expect(self, profile: LaunchProfile) -> None:
        """Note that a profile is used, if others will want the like, and refill accordingly."""
        if profile.keeps_spares:
            self._recent.append(profile)
            with of_no_request():
                self._tasks.start_soon(self._refill)

    def take(self, profile: LaunchProfile) -> ClaudeProcess | None:
        """Hand out a spare of this profile, if there is a live one."""
        self.expect(profile)
        waiting = self._waiting.get(profile, [])
        while waiting:
            process = waiting.pop(0)
            if process.alive:
                return process
            self._retire(process)
        return None

    def replace_dead(self) -> None:
        """Replace the spares that died while they waited."""
        for waiting in self._waiting.values():
            for dead in [process for process in waiting if not process.alive]:
                waiting.remove(dead)
                self._retire(dead)
                self._tasks.start_soon(self._refill)

    async def _refill(self) -> None:
        try:
            async with self._refilling:
                shares = self._shares()
                for profile in [*self._waiting]:
                    for process in self._waiting[profile][shares[profile] :]:
                        self._waiting[profile].remove(process)
                        self._retire(process)
                for profile, share in shares.items():
                    while len(self._waiting.setdefault(profile, [])) < share:
                        self._waiting[profile].append(await self._launch(profile))
        except ApiError as error:
            logger.warning("No spare process: %s", error)

    def _shares(self) -> Counter[LaunchProfile]:
        """Divide the spares among the profiles as recent traffic did (D'Hondt's method)."""
        uses, shares = Counter(self._recent), Counter[LaunchProfile]()
        for _ in range(self._wanted if uses else 0):
            shares[max(uses, key=lambda profile: uses[profile] / (shares[profile] + 1))] += 1
        return shares
