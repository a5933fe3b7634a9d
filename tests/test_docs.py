"""What the documents say is true: the settings' tables, the README's commands, and what must never stand anywhere."""

import json
import os
import re
import subprocess
import sys
from itertools import starmap
from pathlib import Path

import pytest

from callers import KeyLimits
from config import Settings, load_settings
from conftest import REPOSITORY, Server
from keys_file import parse_keys
from parameter_validator import PARAMETERS

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
SETTINGS = {name: field for name, field in Settings.model_fields.items() if name != "environment"}


def shown_default(name: str) -> str:
    """A setting's default, as the documents write it."""
    default = SETTINGS[name].get_default(call_default_factory=True)
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ",".join(default)
    return "" if default in (None, (), {}) else str(default)


def code_block(language: str, containing: str) -> str:
    """A block of the README's code, to be run as pasted."""
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return next(block for block in blocks if containing in block)


# What marks a program of the README; answers that it prints, the first program's included; what it asks the model for.
MORE = {
    "import OpenAI": (1, 1),
    "session_id": (1, 3),
    "tool_call_id": (2, 3),
    "enable_tools": (2, 3),
    "response_format": (2, 2),
    "harbour.jpg": (2, 2),
    "reasoning_effort": (2, 2),
}


def test_what_docs_reliability_names_is_there() -> None:
    """Each test that is to hold one of its sentences, and the command that made its table."""
    text = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = set(re.findall(r"test_\w+\.py", text))
    assert named
    assert all((REPOSITORY / "tests" / name).is_file() for name in named)
    assert "\nsoak:" in (REPOSITORY / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SETTINGS)
def test_the_readme_and_env_example_tell_every_setting(name: str) -> None:
    """Name, default and meaning of each setting stand in both documents as the code has them."""
    default, description = shown_default(name), SETTINGS[name].description
    assert f"| `{name.upper()}` | {f'`{default}`' if default else '–'} | {description} |" in README
    env_example = (REPOSITORY / ".env.example").read_text(encoding="utf-8")
    assert f"# {description}\n# {name.upper()}={default}\n" in env_example


def test_env_example_as_it_stands_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line uncommented, the file gives the defaults."""
    example = (REPOSITORY / ".env.example").read_text(encoding="utf-8")
    (tmp_path / ".env").write_text(re.sub(r"^# ([A-Z_]+=)", r"\1", example, flags=re.MULTILINE), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert load_settings() == load_settings(_env_file=None)


def is_part_of(shown: object, whole: object) -> bool:
    """Whether a JSON value has all the names that are shown, with values of these types, whatever they say."""
    if isinstance(shown, dict) and isinstance(whole, dict):
        return all(name in whole and is_part_of(each, whole[name]) for name, each in shown.items())
    if isinstance(shown, list) and isinstance(whole, list):
        return all(starmap(is_part_of, zip(shown, whole, strict=True)))
    return type(shown) is type(whole)


@pytest.mark.parametrize("stream", [False, True])
def test_the_readmes_curl_works_as_pasted(server: Server, stream: bool) -> None:
    """The curl line answers, as it is shown and, with what the README adds, streamed."""
    command = code_block("bash", "v1/chat/completions").replace("http://localhost:8000", server.url)
    if stream:
        command = command.replace('{"model"', '{"stream": true, "model"').replace("curl ", "curl -N ", 1)
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60)
    if stream:
        assert "chat.completion.chunk" in answer.stdout
        assert "[DONE]" in answer.stdout
    else:
        assert is_part_of(json.loads(code_block("json", "chat.completion")), json.loads(answer.stdout))


def test_tables_of_parameters_are_the_servers(tmp_path: Path) -> None:
    """Both documents have what `scripts/document_parameters.py` makes of the table that the server goes by."""
    documents = {name: (REPOSITORY / name).read_text(encoding="utf-8") for name in ("README.md", "COMPATIBILITY.md")}
    for name, text in documents.items():
        (tmp_path / name).write_text(text.replace("| `seed` |", "| `deed` |"), encoding="utf-8")
    program = [sys.executable, str(REPOSITORY / "scripts" / "document_parameters.py")]
    subprocess.run(program, cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)}, check=True, timeout=60)
    for name, text in documents.items():
        assert (tmp_path / name).read_text(encoding="utf-8") == text
        assert all(f"`{parameter}`" in text for parameter in PARAMETERS)


@pytest.mark.parametrize("more", MORE)
def test_the_readmes_python_works_as_pasted(server: Server, more: str) -> None:
    """The first program prints what the model wrote, and what the README adds to it later does what it says."""
    first = code_block("python", "import OpenAI").replace("http://localhost:8000", server.url)
    program = first + (code_block("python", more) if more not in first else "")
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert answer.stdout.count("demo upstream") + answer.stdout.count('{"name": "string"') == MORE[more][0]
    assert len(server.upstream.messages_requests()) == MORE[more][1]


def test_the_readmes_file_of_keys_is_right() -> None:
    """The example has every limit that there is, and each as the text tells it."""
    (caller,) = parse_keys(code_block("toml", "[keys.anna]").encode())
    assert (caller.name, caller.limits) == ("anna", KeyLimits(60, 4, 5.0, ("sonnet", "claude-haiku-*"), tools=False))


def figures(row: str) -> tuple[float, float]:
    """What the README's table has for a process for every request, and for this server."""
    (cells,) = re.findall(rf"^\| {row} \|([^|]+)\|([^|]+)\|", README, re.MULTILINE)
    slow, fast = (float(cell.removesuffix(" ms ").strip()) for cell in cells)
    return slow, fast


def test_the_readmes_first_screen_has_the_figures_of_its_table() -> None:
    """And the ratios are those of the figures, rounded down."""
    slow, fast = figures("first text, a new conversation")
    few, many = figures("requests a second, 8 clients")
    assert f"takes {fast:g} ms instead of the {slow:g} ms" in README
    assert f"{many:g} requests a second instead of {few:g}" in README
    assert f"{int(slow / fast)} times sooner, {int(many / few)} times as many" in README


def anchors(document: Path) -> set[str]:
    """What a link can lead to in a document: its headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


DOCUMENTS = [
    path.relative_to(REPOSITORY).as_posix() for path in (*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"))
]


@pytest.mark.parametrize("document", sorted(DOCUMENTS))
def test_every_link_leads_somewhere(document: str) -> None:
    """Relative links name files of the repository, and headings in them."""
    source = REPOSITORY / document
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", source.read_text(encoding="utf-8")):
        path = source.parent / target if target else source
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


def test_every_example_is_told_of() -> None:
    """By the README; the helper of all isn't one."""
    for example in (REPOSITORY / "examples").iterdir():
        if example.suffix in {".py", ".sh", ".mjs"} and example.stem != "connection":
            assert f"(examples/{example.name})" in README, example.name
