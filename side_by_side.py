"""Several streams at once, as one: for a completion of several choices, whose turns run side by side."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

import anyio

_Item = TypeVar("_Item")


async def side_by_side(streams: Sequence[AsyncGenerator[_Item, None]]) -> AsyncGenerator[tuple[int, _Item], None]:
    """Yield what the streams yield, as it comes, each item with its stream's number. Closes them, all together.

    What one of them raises ends all. A stream is asked for its next item in another task each time, so it must hold no
    cancel scope open while it yields.
    """
    if len(streams) == 1:  # The usual case, in which tasks would only take time.
        async with aclosing(streams[0]) as only:
            async for item in only:
                yield 0, item
        return
    due = {_next(stream): number for number, stream in enumerate(streams)}
    try:
        while due:
            done, _ = await asyncio.wait(due, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda each: due[each]):
                number = due.pop(task)
                try:
                    item = task.result()
                except StopAsyncIteration:
                    continue
                due[_next(streams[number])] = number
                yield number, item
    finally:
        with anyio.CancelScope(shield=True):
            for task in due:
                task.cancel()
            await asyncio.gather(*due, return_exceptions=True)
            for stream in streams:
                await stream.aclose()


def _next(stream: AsyncGenerator[_Item, None]) -> "asyncio.Task[_Item]":
    async def step() -> _Item:
        return await anext(stream)

    return asyncio.create_task(step())
