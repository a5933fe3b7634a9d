"""The table of clients in COMPATIBILITY.md: a plugin for pytest that makes it of what a run gave.

`make clients` loads it. Which versions were run stands in the environments, what was run in the files of the tests.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_CHECKOUT = _HERE.parent.parent
_DOCUMENT = _CHECKOUT / "COMPATIBILITY.md"
_BEGIN, _END = "<!-- clients -->\n", "<!-- end of clients -->\n"
COUNTS = "counts"
"""The property by which a test tells that it ran others: how many of them passed, failed and were skipped."""


@dataclass(frozen=True)
class Client:
    """Tests, whose files' names begin so, and the packages that they run, which are installed in the folder."""

    tests: str
    packages: tuple[str, ...]
    folder: Path = _HERE

    @property
    def title(self) -> tuple[str, str]:
        """The client, and what is run: both from the first line of the tests' file."""
        text = ast.get_docstring(ast.parse((_HERE / f"{self.tests}.py").read_text(encoding="utf-8"))) or ""
        name, _, what = text.splitlines()[0].removesuffix(".").partition(": ")
        return name, what

    def version(self, package: str) -> str:
        """The version that is installed."""
        if self.folder == NODE:
            described = (NODE / package / "package.json").read_text(encoding="utf-8")
            return str(json.loads(described)["version"])
        (places,) = [[str(path)] for path in (self.folder / ".venv").glob("lib/python*/site-packages")]
        return next(iter(distributions(name=package, path=places))).version


NODE = _HERE / "node_modules"
CLIENTS = (
    Client("test_openai_python", ("openai",), _CHECKOUT),
    Client("test_openai_node", ("openai",), NODE),
    Client("test_langchain", ("langchain-openai", "langchain-tests")),
    Client("test_openai_agents", ("openai-agents",)),
    Client("test_ai_sdk", ("ai", "@ai-sdk/openai-compatible", "@ai-sdk/openai"), NODE),
    Client("test_instructor", ("instructor",), _HERE / "openai2"),
    Client("test_pydantic_ai", ("pydantic-ai-slim",)),
    Client("test_llama_index", ("llama-index-llms-openai-like",), _HERE / "openai2"),
    Client("test_litellm", ("litellm",)),
    Client("test_llm", ("llm",)),
    Client("test_aider", ("aider-chat",), _HERE / "aider"),
)

_outcomes: dict[str, Counter[str]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count, for each file, how its tests ended, and those that a test ran."""
    if report.when == "call" or report.outcome != "passed":
        told = dict(report.user_properties).get(COUNTS)
        outcomes: Counter[str] = Counter(told if isinstance(told, dict) else {})
        if not outcomes or report.outcome != "passed":
            outcomes[report.outcome] += 1
        _outcomes.setdefault(Path(report.location[0]).stem, Counter()).update(outcomes)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write the table, once every client has been run; there are Pythons that not all of them have a release for."""
    missing = [client.title[0] for client in CLIENTS if not _outcomes_of(client).keys() - {"skipped"}]
    if missing:
        terminalreporter.write_line(f"{_DOCUMENT.name} stays as it was, without a run of: {'; '.join(missing)}")
        return
    text = _DOCUMENT.read_text(encoding="utf-8")
    table = "\n".join(_table()) + "\n"
    _DOCUMENT.write_text(
        re.sub(f"{_BEGIN}.*?{_END}", lambda _: _BEGIN + table + _END, text, flags=re.DOTALL), encoding="utf-8"
    )


def _outcomes_of(client: Client) -> Counter[str]:
    return sum((counts for name, counts in _outcomes.items() if name.startswith(client.tests)), Counter())


def _table() -> Iterator[str]:
    yield "| client | version | what was run | passed | failed | skipped |"
    yield "|---|---|---|---:|---:|---:|"
    for client in CLIENTS:
        counts = _outcomes_of(client)
        numbers = " | ".join(str(counts[outcome]) for outcome in ("passed", "failed", "skipped"))
        name, what = client.title
        versions = ", ".join(f"{package} {client.version(package)}" for package in client.packages)
        yield f"| {name} | {versions} | {what} | {numbers} |"
