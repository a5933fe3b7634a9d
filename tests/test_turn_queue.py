"""Who gets a place, and when."""

from collections.abc import Iterable

import anyio
import pytest

from errors import QueueTimeoutError
from turn_queue import TurnQueue


async def served(places: int, waiting: Iterable[str]) -> list[str]:
    """Let `waiting` wait, in this order, while all places are taken; return the order in which they are served."""
    queue, order = TurnQueue(places, timeout=10), list[str]()

    async def wait(owner: str) -> None:
        await queue.take(owner)
        order.append(owner)

    for _ in range(places):
        await queue.take("first")
    async with anyio.create_task_group() as tasks:
        for owner in waiting:
            tasks.start_soon(wait, owner)
            await anyio.wait_all_tasks_blocked()
        for _ in range(places):
            queue.give_back("first")
            await anyio.wait_all_tasks_blocked()
        while len(queue):
            queue.give_back(order[-1])
            await anyio.wait_all_tasks_blocked()
    return order


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("places", "waiting", "order"),
    [
        (1, ["a", "b", "c"], "abc"),
        (1, ["a", "a", "a", "b"], "abaa"),
        (2, ["a", "a", "a", "b", "c"], "abca" + "a"),
        (1, ["a", "a", "b", "b", "c", "c"], "abcabc"),
    ],
)
async def test_places_go_round(places: int, waiting: list[str], order: str) -> None:
    """Those of one owner are served in order; between owners the one with the fewest places is next, in turn."""
    assert "".join(await served(places, waiting)) == order


@pytest.mark.asyncio
async def test_a_free_place_is_taken_at_once() -> None:
    """Nobody waits while there is room."""
    queue = TurnQueue(2, timeout=10)
    await queue.take("a")
    await queue.take("a")
    assert (queue.taken, len(queue)) == (2, 0)


@pytest.mark.asyncio
async def test_who_waits_too_long_leaves_the_queue() -> None:
    """After the timeout the place that becomes free isn't given to one who is gone."""
    queue = TurnQueue(1, timeout=0)
    await queue.take("a")
    with pytest.raises(QueueTimeoutError):
        await queue.take("b")
    assert len(queue) == 0
    queue.give_back("a")
    assert queue.taken == 0


@pytest.mark.asyncio
async def test_a_place_given_to_one_who_leaves_goes_on() -> None:
    """A waiting request that is cancelled in the moment in which it is called gives the place back."""
    queue = TurnQueue(1, timeout=10)

    async def work() -> None:
        await queue.take("b")
        try:
            await anyio.sleep_forever()
        finally:
            queue.give_back("b")

    await queue.take("a")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await anyio.wait_all_tasks_blocked()
        queue.give_back("a")
        tasks.cancel_scope.cancel()
    assert queue.taken == 0
