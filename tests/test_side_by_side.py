"""Several streams as one: what comes, in which order, and that all are closed, however it ends."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from side_by_side import side_by_side


async def counted(name: str, steps: int, log: list[str]) -> AsyncGenerator[str, None]:
    """Yield so many steps, and note the end, however it comes."""
    try:
        for step in range(steps):
            await asyncio.sleep(0)
            yield f"{name}{step}"
    finally:
        log.append(name)


@pytest.mark.asyncio
async def test_streams_come_as_one() -> None:
    """Everything of each comes, in its order, and all are closed."""
    log: list[str] = []
    items = [item async for item in side_by_side([counted("a", 3, log), counted("b", 1, log), counted("c", 0, log)])]
    assert [item for index, item in items if index == 0] == ["a0", "a1", "a2"]
    assert [item for index, item in items if index == 1] == ["b0"]
    assert sorted(log) == ["a", "b", "c"]


@pytest.mark.asyncio
@pytest.mark.parametrize("count", [1, 3])
async def test_who_stops_closes_all_streams(count: int) -> None:
    """Closed in the middle, each stream runs its own end."""
    log: list[str] = []
    merged = side_by_side([counted(str(number), 5, log) for number in range(count)])
    await anext(merged)
    await merged.aclose()
    assert sorted(log) == [str(number) for number in range(count)]


async def failing() -> AsyncGenerator[str, None]:
    """Fail after the first step."""
    yield "begun"
    raise LookupError


@pytest.mark.asyncio
async def test_one_failure_ends_all_streams() -> None:
    """What one raises comes out, after all others have ended."""
    log: list[str] = []
    with pytest.raises(LookupError):
        async for _ in side_by_side([counted("a", 100, log), failing(), failing()]):
            pass
    assert log == ["a"]
