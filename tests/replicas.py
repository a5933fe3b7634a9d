"""Several servers as processes of their own, and nginx in front of them, configured as the repository ships it."""

import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from string import Template
from urllib.parse import urlsplit

import httpx

from config import Settings
from conftest import REPOSITORY
from real_services import Program, free_port, running_nginx

NGINX_TEMPLATE = REPOSITORY / "deploy" / "nginx.conf"
MAX_REQUEST_SIZE = str(Settings.model_fields["max_request_size"].default)


class Replica:
    """One of the servers, started as a user starts it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Start it on a free port; `wait_until_ready` before it is used."""
        self._environment = environment
        self._program = self._start("0")
        self._address = ""

    def _start(self, port: str) -> Program:
        command = [sys.executable, "main.py", port]
        return Program(command, ready="startup complete", environment=self._environment, directory=REPOSITORY)

    @property
    def pid(self) -> int:
        """The process id of the one that runs, or ran last."""
        return self._program.pid

    @property
    def running(self) -> bool:
        """Whether it hasn't been stopped or killed."""
        return self._program.running

    @property
    def url(self) -> str:
        """Where it listens, without nginx."""
        if not self._address:
            self._address = self._program.wait_for(r"listens on (http://\S+:\d+)")[1]
        return self._address

    @property
    def address(self) -> str:
        """The same as host:port."""
        return urlsplit(self.url).netloc

    @property
    def output(self) -> str:
        """What the one that runs, or ran last, has written."""
        return self._program.output

    def turns(self, **headers: str) -> int:
        """How many turns it has served since its start; `headers` has the key, where there is one."""
        pool = httpx.get(f"{self.url}/v1/pool", headers=headers, timeout=30).raise_for_status().json()
        return sum(pool["leases"].values())

    def wait_until_ready(self) -> None:
        """Wait until it serves."""
        self._program.wait_until_ready()

    def start(self) -> None:
        """Start it again, after `stop` or `kill`, on the same port, and wait until it serves."""
        self._program = self._start(str(urlsplit(self.url).port))
        self.wait_until_ready()

    def stop(self) -> None:
        """Shut it down (SIGTERM): requests under way may finish."""
        self._program.stop()

    def kill(self) -> None:
        """Take it away in the middle of whatever it does (SIGKILL)."""
        self._program.kill()


@contextmanager
def running_replicas(number: int, environment: Mapping[str, str]) -> Generator[tuple[Replica, ...], None, None]:
    """Start so many servers in this environment; end all that run at the end."""
    with ExitStack() as stack:
        replicas: list[Replica] = []
        for _ in range(number):
            replicas.append(Replica(environment))
            stack.callback(replicas[-1].kill)
        for replica in replicas:
            replica.wait_until_ready()
        yield tuple(replicas)
        for replica in replicas:
            replica.stop()


def nginx_configuration(addresses: Sequence[str], listen: str, max_request_size: str = MAX_REQUEST_SIZE) -> str:
    """Fill in the shipped template as the image's envsubst does: variables that are set, and no others."""
    environment = {
        "LISTEN": listen,
        "MAX_REQUEST_SIZE": max_request_size,
        "UPSTREAM_SERVERS": " ".join(f"server {address} max_fails=0;" for address in addresses),
    }
    return Template(NGINX_TEMPLATE.read_text(encoding="utf-8")).safe_substitute(environment)


@contextmanager
def running_proxy(addresses: Sequence[str], **options: str) -> Generator[str, None, None]:
    """Start the shipped nginx before these addresses; yield its own."""
    listen = f"127.0.0.1:{free_port()}"
    with running_nginx(nginx_configuration(addresses, listen, **options)):
        yield f"http://{listen}"


@dataclass(frozen=True)
class Cluster:
    """Servers, and the address of the nginx before them."""

    url: str
    replicas: tuple[Replica, ...]


@contextmanager
def running_cluster(number: int, environment: Mapping[str, str]) -> Generator[Cluster, None, None]:
    """Start so many servers in this environment, which has a login and an upstream, and nginx before them."""
    usual = {
        "MAX_PROCESSES": "4",
        "PROCESS_REUSE": "on",
        "PYTHONUNBUFFERED": "1",
        "RATE_LIMIT_ENABLED": "false",
        "SPARE_PROCESSES": "1",
        "TRUSTED_PROXIES": "127.0.0.1",
    }
    with (
        running_replicas(number, {**usual, **environment}) as replicas,
        running_proxy([replica.address for replica in replicas]) as url,
    ):
        yield Cluster(url, replicas)
