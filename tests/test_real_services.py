"""The real programs that tests run beside the server start, stop, and keep what they acknowledged."""

from collections.abc import Callable
from pathlib import Path

import pytest
import redis

import real_services
from real_services import RedisServer, running_redis


@pytest.mark.parametrize("end", [RedisServer.stop, RedisServer.kill])
def test_a_redis_that_was_ended_has_all_that_it_acknowledged(
    redis_server: RedisServer, redis_url: str, end: Callable[[RedisServer], None]
) -> None:
    """Stopped or killed and started again, it has the same address and the same data."""
    with redis.Redis.from_url(redis_url) as client:
        client.set("told", "kept")
    end(redis_server)
    with redis.Redis.from_url(redis_url) as client, pytest.raises(redis.ConnectionError):
        client.ping()
    redis_server.start()
    with redis.Redis.from_url(redis_url) as client:
        assert client.get("told") == b"kept"


def test_each_test_gets_an_empty_redis(redis_server: RedisServer, redis_url: str) -> None:
    """What the test before has written is gone, and so is the state in which it left the server."""
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


@pytest.mark.real_services
def test_a_redis_leaves_nothing_behind() -> None:
    """After its context neither the process nor its data is there."""
    with running_redis() as server:
        directory = Path(f"/proc/{server.pid}/cwd").resolve()
        assert directory.is_dir()
    assert not directory.exists()
    assert not Path(f"/proc/{server.pid}").exists()


def test_who_cant_install_learns_how(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the program, and without the right to install it, the error has the command."""
    monkeypatch.setattr(real_services, "_PATH", "/nowhere")
    with pytest.raises(real_services.MissingProgramError, match=r"apt-get install -y .*nginx openssl redis-server"):
        real_services.install(real_services.PROGRAMS)
