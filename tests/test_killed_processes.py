"""A Claude Code process is killed, whatever it does just then: an answer or an honest error, and others are served."""

import os
import signal
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from chat import HELLO, MODEL, post
from cli_launch import find_cli
from commands import claude_processes, gone, linux, shell_script, wait_until
from conftest import Server, ServerFactory
from demo_upstream import Gate, Reply, ToolCall

pytestmark = linux
STREAMED_OR_NOT = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
WEATHER: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


@pytest.fixture
def killed(caplog: pytest.LogCaptureFixture) -> Generator[Callable[[], None], None, None]:
    """Kill the processes of this test's servers; at its end none is left, and each has its line in the log."""
    others, victims = claude_processes(), set[psutil.Process]()

    def kill() -> None:
        wait_until(lambda: bool(claude_processes() - others - victims))
        for process in claude_processes() - others - victims:
            process.send_signal(signal.SIGKILL)
            victims.add(process)

    yield kill
    assert victims
    wait_until(lambda: gone(victims))
    lines = "\n".join(record.getMessage() for record in caplog.get_records("call"))
    assert all(f"Claude Code process {process.pid} " in lines for process in victims)


@contextmanager
def asking(server: Server, *, stream: bool) -> Generator[Future[httpx.Response], None, None]:
    """A request that is under way."""
    with ThreadPoolExecutor(1) as client:
        yield client.submit(post, server, model=MODEL, messages=HELLO, stream=stream)


def is_answered(answer: httpx.Response) -> bool:
    """Whether it is a whole answer."""
    return answer.status_code == 200 and "Fine." in answer.text and "error" not in answer.text


def served(serve: ServerFactory, **options: Any) -> Server:
    """A server of few processes in front of a model that says "Fine."."""
    return serve(**{"spare_processes": 0, "max_processes": 2, **options})


def test_a_spare(serve: ServerFactory, killed: Callable[[], None]) -> None:
    """It is replaced before anybody needs it, or by whoever does."""
    server = served(serve, spare_processes=1)
    wait_until(lambda: httpx.get(f"{server.url}/v1/pool").json()["processes"]["spare"] == 1)
    killed()
    server.upstream.script(Reply(text="Fine."), times=None)
    assert is_answered(post(server, model=MODEL, messages=HELLO))


DEAF = '''case "$*" in *stream-json*)
    [ -e {begun} ] || {{ : >{begun}; exec {claude} "$@" 3<&0 <>{silence}; }}
esac
exec {claude} "$@"'''


@STREAMED_OR_NOT
def test_one_that_is_initialised(
    serve: ServerFactory, killed: Callable[[], None], stream: bool, tmp_path: Path
) -> None:
    """Nothing was asked yet: another one does it. The first one never hears that it is to begin, so it is in time."""
    begun, silence = tmp_path / "begun", tmp_path / "silence"
    os.mkfifo(silence)
    deaf = shell_script(tmp_path / "claude", DEAF.format(claude=find_cli(None), begun=begun, silence=silence))
    server = served(serve, claude_cli_path=str(deaf))
    server.upstream.script(Reply(text="Fine."), times=None)
    with asking(server, stream=stream) as answer:
        wait_until(begun.exists)
        killed()
        assert is_answered(answer.result())
    assert len(server.upstream.messages_requests()) == 1


@STREAMED_OR_NOT
def test_one_whose_model_has_not_begun(serve: ServerFactory, killed: Callable[[], None], stream: bool) -> None:
    """The client has got nothing: another one asks again."""
    server = served(serve)
    server.upstream.script(Reply(hang=True))
    server.upstream.script(Reply(text="Fine."), times=None)
    with asking(server, stream=stream) as answer:
        server.upstream.wait_for(lambda upstream: bool(upstream.messages_requests()))
        killed()
        assert is_answered(answer.result())


def test_one_in_the_middle_of_a_whole_answer(serve: ServerFactory, killed: Callable[[], None]) -> None:
    """The client has got nothing yet, and gets another one's answer."""
    server, gate = served(serve), Gate(after=1)
    server.upstream.script(Reply(text=["One ", "two"], gate=gate))
    server.upstream.script(Reply(text="Fine."), times=None)
    with asking(server, stream=False) as answer:
        gate.reached()
        killed()
        assert is_answered(answer.result())
    assert is_answered(post(server, model=MODEL, messages=HELLO))


def test_one_in_the_middle_of_a_stream(serve: ServerFactory, killed: Callable[[], None]) -> None:
    """The client has got a part, and is told of the error."""
    server = served(serve)
    server.upstream.script(Reply(text=["One ", "two"], gate=Gate(after=1)))
    server.upstream.script(Reply(text="Fine."), times=None)
    stream = server.client().chat.completions.create(model=MODEL, messages=HELLO, stream=True)
    next(chunk for chunk in stream if chunk.choices[0].delta.content)
    killed()
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == "claude_code_error"
    assert is_answered(post(server, model=MODEL, messages=HELLO, stream=True))


@STREAMED_OR_NOT
def test_one_that_waits_for_results(serve: ServerFactory, killed: Callable[[], None], stream: bool) -> None:
    """Its conversation goes on in another one."""
    server = served(serve, process_reuse="on")
    server.upstream.script(Reply(tool_calls=[ToolCall("weather", {}, "toolu_1")]))
    server.upstream.script(Reply(text="Fine."), times=None)
    call = post(server, model=MODEL, messages=HELLO, tools=WEATHER).json()["choices"][0]["message"]
    assert call["tool_calls"][0]["id"] == "toolu_1"
    killed()
    result = {"role": "tool", "tool_call_id": "toolu_1", "content": "21 °C"}
    assert is_answered(post(server, model=MODEL, messages=[*HELLO, call, result], tools=WEATHER, stream=stream))


@STREAMED_OR_NOT
def test_one_that_is_parked(serve: ServerFactory, killed: Callable[[], None], stream: bool) -> None:
    """The next message of its conversation is answered by another one, which knows all of it."""
    server = served(serve, process_reuse="on")
    server.upstream.script(Reply(text="Fine."), times=None)
    first = post(server, model=MODEL, messages=HELLO).json()["choices"][0]["message"]
    killed()
    more: Any = [*HELLO, first, {"role": "user", "content": "And now?"}]
    assert is_answered(post(server, model=MODEL, messages=more, stream=stream))
    assert len(server.upstream.messages_requests()[-1].body["messages"]) == 3
