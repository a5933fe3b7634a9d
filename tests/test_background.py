"""What is done every so often goes on, whatever happens."""

import anyio
import pytest

from background import periodically


@pytest.mark.asyncio
async def test_a_failure_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the task nor the server around it ends with it."""
    times = 0
    enough = anyio.Event()

    async def act() -> None:
        nonlocal times
        times += 1
        if times == 3:
            enough.set()
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "foreign data")

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(periodically, 0.001, act)
            await enough.wait()
            tasks.cancel_scope.cancel()
    assert "foreign data" in caplog.text
