"""Which spares are kept ready: as recent traffic used them."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import anyio
import pytest

from claude_process import ClaudeProcess
from spare_processes import SpareProcesses
from turns import LaunchProfile

A, B, C = (LaunchProfile(Path(name), (), Path(), bare=True) for name in "abc")


class Stub:
    """A process, as far as the policy looks at it."""

    def __init__(self, profile: LaunchProfile) -> None:
        self.profile = profile
        self.alive = True


async def spares_after(
    uses: Iterable[LaunchProfile], wanted: int
) -> tuple[Counter[LaunchProfile], list[ClaudeProcess]]:
    """Let traffic use profiles; return the spares that wait then, by profile, and those that were ended."""
    ended: list[ClaudeProcess] = []
    waiting: list[LaunchProfile] = []

    async def launch(profile: LaunchProfile) -> ClaudeProcess:
        return cast("ClaudeProcess", Stub(profile))

    async with anyio.create_task_group() as tasks:
        spares = SpareProcesses(wanted, tasks, launch, ended.append)
        for profile in uses:
            spares.take(profile)
            await anyio.wait_all_tasks_blocked()
        waiting.extend(cast("Stub", process).profile for process in spares)
    return Counter(waiting), ended


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("uses", "waiting"),
    [
        ([A], {A: 3}),
        ([A, B], {A: 2, B: 1}),
        ([A, A, A, A, B], {A: 3}),
        ([A, B, C], {A: 1, B: 1, C: 1}),
        ([A, *[B] * 40], {B: 3}),
        ([], {}),
    ],
)
async def test_spares_are_shared_as_recent_traffic_was(
    uses: list[LaunchProfile], waiting: dict[LaunchProfile, int]
) -> None:
    """The spares are divided among the profiles in use, and those of a profile that nobody uses any more are ended."""
    assert (await spares_after(uses, wanted=3))[0] == waiting


@pytest.mark.asyncio
async def test_spares_that_nobody_needs_are_ended() -> None:
    """No more than the wanted number wait, whatever was used before."""
    waiting, ended = await spares_after([A, *[B] * 40], wanted=3)
    assert waiting.total() == 3
    assert len(ended) > 0


@pytest.mark.asyncio
async def test_without_spares_none_are_started() -> None:
    """SPARE_PROCESSES=0 starts nothing ahead."""
    assert (await spares_after([A, B], wanted=0))[0] == {}
