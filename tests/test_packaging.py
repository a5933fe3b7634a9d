"""What is needed to install, build and ship holds together, as far as the files themselves can tell."""

import json
import os
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import VERSION

REPOSITORY = Path(__file__).resolve().parent.parent
REGISTRIES = re.compile(r"pypi\.(?:org|python)|pythonhosted\.|npmjs\.|crates\.io")
MACHINE_PATHS = re.compile(r"(?<![\w.~-])/(?:(?:home|Users|work)/\w|root/(?!\.claude\b)[\w.])")


def text_of(path: str) -> str:
    """The text of a file of the repository."""
    return (REPOSITORY / path).read_text(encoding="utf-8")


def tracked_files() -> list[str]:
    """Every file that is in the repository or would be with the next commit."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=30)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [path for path in listing.stdout.splitlines() if (REPOSITORY / path).is_file()]


def project_value(name: str) -> str:
    """A one-line string of pyproject.toml's first table; Python 3.10 has no reader of TOML."""
    found = re.search(rf'^{name} = "(.+)"$', text_of("pyproject.toml"), re.MULTILINE)
    assert found, name
    return found[1]


def compose_service() -> dict[str, Any]:
    """The service that `docker compose up` starts."""
    services: dict[str, dict[str, Any]] = yaml.safe_load(text_of("docker-compose.yml"))["services"]
    return services["claude-wrapper"]


def dockerfile(instruction: str) -> list[str]:
    """The arguments of each such instruction of the Dockerfile, continued lines joined."""
    joined = text_of("Dockerfile").replace("\\\n", " ")
    return re.findall(rf"^{instruction} +(.+)$", joined, re.MULTILINE)


def reaches_the_builder(path: str) -> bool:
    """Whether .dockerignore, an allow-list, lets a file at the top level through."""
    allowed = re.findall(r"^!(.+)$", text_of(".dockerignore"), re.MULTILINE)
    return any(fnmatch(path, pattern) for pattern in allowed)


@pytest.mark.parametrize("path", ["poetry.lock", "tests/clients/poetry.lock"])
def test_a_lock_names_no_index(path: str) -> None:
    """The lock serves every network: no source sections, no addresses."""
    lock = text_of(path)
    assert "[package.source]" not in lock
    assert "://" not in lock


def test_the_lock_of_node_clients_names_no_index() -> None:
    """npm, which would write an address for every package, is told not to; what comes is held to its hash."""
    packages: dict[str, dict[str, Any]] = json.loads(text_of("tests/clients/package-lock.json"))["packages"]
    installed = [package for path, package in packages.items() if path]
    assert [package for package in installed if "resolved" in package or "integrity" not in package] == []
    assert "omit-lockfile-registry-resolved=true" in text_of("tests/clients/.npmrc").splitlines()


def test_no_file_names_a_registry_or_a_path_of_some_machine() -> None:
    """Nothing in the repository depends on one network or one disk."""
    for path in tracked_files():
        text = (REPOSITORY / path).read_bytes().decode(errors="replace")
        assert REGISTRIES.findall(text) == [], path
        assert MACHINE_PATHS.findall(text) == [], path


@pytest.mark.parametrize("folder", ["home", "Users", "work", "root"])
def test_the_search_for_machine_paths_finds_them(folder: str) -> None:
    """The guard above can fail, and doesn't where it shouldn't."""
    assert MACHINE_PATHS.search(f"see /{folder}/someone")
    assert not MACHINE_PATHS.search(f"https://example.com/{folder}/someone, and ~/.claude:/root/.claude")


def test_version_and_licence_are_the_same_everywhere() -> None:
    """The package, the running server and the licence file tell one story."""
    assert project_value("version") == VERSION
    assert project_value("license") == "MIT"
    assert text_of("LICENSE").startswith("MIT License\n\nCopyright (c) 2026 claude-wrapper contributors\n")


def test_the_changelog_has_a_place_for_what_comes() -> None:
    """Changes have a section to go to."""
    assert re.search(r"^## \[Unreleased\]$", text_of("CHANGELOG.md"), re.MULTILINE)


def test_make_lists_every_target() -> None:
    """`make` alone prints each target with its line of help."""
    environment = {"PATH": os.environ["PATH"]}
    listing = subprocess.run(
        ["make", "--no-print-directory"],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    phony = re.findall(r"^\.PHONY: (.+)$", text_of("Makefile"), re.MULTILINE)[0].split()
    assert re.findall(r"^  ([a-z]+) +\w.+$", listing.stdout, re.MULTILINE) == phony


def test_the_oldest_python_is_the_same_everywhere() -> None:
    """What the Makefile turns away is what the package, the linter and the type checkers don't expect."""
    oldest = project_value("requires-python").removeprefix(">=").split(",")[0]
    compact = oldest.replace(".", "")
    assert f"sys.version_info < ({oldest.replace('.', ', ')})" in text_of("Makefile")
    assert project_value("target-version") == f"py{compact}"
    assert project_value("pythonVersion") == oldest
    assert f'python_version = "{oldest}"' in text_of("pyproject.toml")


def test_ci_is_a_program() -> None:
    """CI's script can be started, and bash can read it."""
    script = REPOSITORY / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True, timeout=30)


def test_the_image_gets_the_files_it_needs() -> None:
    """Each source that is copied from the checkout exists and passes .dockerignore; every module is among them."""
    patterns = [source for copy in dockerfile("COPY") if "--from" not in copy for source in copy.split()[:-1]]
    sources = [path.name for pattern in patterns for path in REPOSITORY.glob(pattern)]
    assert len(patterns) == len([pattern for pattern in patterns if list(REPOSITORY.glob(pattern))])
    assert [source for source in sources if not reaches_the_builder(source)] == []
    assert {path.name for path in REPOSITORY.glob("*.py")} | {"pyproject.toml", "poetry.lock"} == set(sources)


@pytest.mark.parametrize("private", [".env", ".git", ".venv", "tests", "examples", "README.md"])
def test_the_image_gets_nothing_else(private: str) -> None:
    """Secrets, history and tests stay outside."""
    assert text_of(".dockerignore").splitlines().count("*") == 1
    assert not reaches_the_builder(private)


def test_the_image_runs_the_server_without_root() -> None:
    """The server is the container's process itself, as an ordinary user, and is told to stop as it expects."""
    assert dockerfile("USER") == ["1000:1000"]
    assert dockerfile("CMD") == ['["python", "main.py"]']
    assert dockerfile("STOPSIGNAL") == ["SIGTERM"]
    assert dockerfile("EXPOSE") == ["8000"]


def test_the_home_of_the_image_suits_any_user() -> None:
    """`-v ~/.claude:/root/.claude` and `--user` work: the home is set by name and open as /tmp is."""
    assert "HOME=/root " in dockerfile("ENV")[-1]
    assert "install --directory --owner 1000 --group 1000 --mode 1777 /root /root/.claude" in dockerfile("RUN")[-1]


def test_compose_is_the_documented_container() -> None:
    """The compose file says what the README's `docker run` says, restarts, and needs no `.env`."""
    service = compose_service()
    assert service["build"] == "."
    assert service["volumes"] == ["~/.claude:/root/.claude"]
    assert service["env_file"] == [{"path": ".env", "required": False}]
    assert {"HOST", "PORT", "MAX_TIMEOUT"} == set(service["environment"])
    assert service["restart"] == "unless-stopped"
    assert service["init"] is True


def test_compose_opens_the_port_to_this_machine_only() -> None:
    """Who starts it without a key doesn't share a Claude login with the network."""
    assert compose_service()["ports"] == ["127.0.0.1:${PORT:-8000}:${PORT:-8000}"]
