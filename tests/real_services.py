"""Real servers that tests need, on free loopback ports."""

import signal
import socket
import subprocess
import time
from pathlib import Path

import redis


class RedisServer:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                "redis-server",
                "--port",
                str(self.port),
                "--bind",
                "127.0.0.1",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--save",
                "",
                "--dir",
                str(self._directory),
            ],
            stdout=subprocess.DEVNULL,
        )
        with redis.Redis.from_url(self.url) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError:
                    time.sleep(0.02)

    def stop(self, sig: int = signal.SIGTERM) -> None:
        self._process.send_signal(sig)
        self._process.wait(20)

    def flush(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.flushall()
