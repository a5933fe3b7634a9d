"""A server's log, as objects, for the tests."""

import json
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

from commands import wait_until
from conftest import REPOSITORY, measured_environment
from real_services import Program

Line = dict[str, Any]

MAIN = ("main.py", "0")
UVICORN = ("-m", "uvicorn", "main:app", "--port", "0")


class Logging:
    """A server that logs JSON."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.url = program.wait_for(r"http://[\d.]+:\d+")[0]

    @property
    def output(self) -> str:
        """All that it has written."""
        return self.program.output

    def lines(self) -> list[Line]:
        """All lines; each has to be an object."""
        return [json.loads(line) for line in self.output.split("\n")[:-1]]

    def line_of(self, request_id: str) -> Line:
        """The one line of a request, once it is there."""
        return self.one(lambda line: (line["event"], line.get("request_id")) == ("request", request_id))

    def one(self, matches: Callable[[Line], bool]) -> Line:
        """The one line that matches, once it is there."""
        wait_until(lambda: any(map(matches, self.lines())))
        (line,) = filter(matches, self.lines())
        return line


@contextmanager
def logging_server(
    login: Mapping[str, str], arguments: tuple[str, ...] = MAIN, /, **variables: str
) -> Generator[Logging, None, None]:
    """Start a server as a user does, whose log is JSON; stop it at the end."""
    logged_in = {name: value for name, value in login.items() if name.startswith("ANTHROPIC_")}
    usual = {"LOG_FORMAT": "json", "PROCESS_REUSE": "on", "PYTHONUNBUFFERED": "1", "RATE_LIMIT_ENABLED": "false"}
    environment = measured_environment(**{**usual, **logged_in, **variables})
    program = Program(
        [sys.executable, *arguments],
        ready="startup complete" if arguments == MAIN else "running on",
        environment=environment,
        directory=REPOSITORY,
    )
    program.wait_until_ready()
    try:
        yield Logging(program)
    finally:
        program.stop()
