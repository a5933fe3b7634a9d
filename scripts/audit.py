"""Ask a vulnerability service about every version that the locks name: `audit.py [ADDRESS]`. Called by the Makefile.

A known vulnerability, and a service that fails in the middle, end it with a status other than 0. Where the service
can't be reached it says so, and ends with 0: some networks lead to nothing but packages.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports] - 3.11 and later have none

_CHECKOUT = Path(__file__).resolve().parent.parent
# Less aider's: its authors name every version, so a fault that is known there is nothing that this project could mend.
_LOCKS = {
    "server": _CHECKOUT / "poetry.lock",
    "clients": _CHECKOUT / "tests" / "clients" / "poetry.lock",
    "openai2": _CHECKOUT / "tests" / "clients" / "openai2" / "poetry.lock",
}
# https://google.github.io/osv.dev/post-v1-query/
_SERVICE = "https://api.osv.dev/v1/query"
_SECONDS = 15


def _locked(lock: Path) -> Iterator[tuple[str, str]]:
    for package in tomllib.loads(lock.read_text(encoding="utf-8"))["package"]:
        yield package["name"], package["version"]


def _write_pylock(lock: Path, path: Path) -> None:
    """Write a lock as pip-audit reads it: names and versions, whether or not they are for this Python."""
    packages = (f'[[packages]]\nname = "{name}"\nversion = "{version}"\n' for name, version in _locked(lock))
    path.write_text("\n".join(['lock-version = "1.0"\n', *packages]), encoding="utf-8")


def _fault(service: str) -> str | None:
    """Return why the service can't be asked; None where it can be. pip-audit itself has one status for everything."""
    name, version = next(_locked(_LOCKS["server"]))
    question = {"package": {"name": name, "ecosystem": "PyPI"}, "version": version}
    try:
        answer = httpx.post(service, json=question, timeout=_SECONDS).raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        return str(error) or type(error).__name__
    return None if isinstance(answer, Mapping) else "it answers something else"


def main() -> int:
    """Return pip-audit's exit status, or 0 where there is nobody to ask."""
    service = sys.argv[1] if len(sys.argv) > 1 else _SERVICE
    if fault := _fault(service):
        print(f"NOT AUDITED: the vulnerability service can't be reached from here: {service}: {fault}")
        return 0
    with TemporaryDirectory(prefix="claude-wrapper-audit-") as name:
        for purpose, lock in _LOCKS.items():
            _write_pylock(lock, Path(name, f"pylock.{purpose}.toml"))
        options = ["--strict", "--progress-spinner", "off", "--cache-dir", f"{name}/cache", "--osv-url", service]
        command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", "osv", *options, "--locked", name]
        return subprocess.run(command, check=False).returncode  # noqa: S603 - our own arguments


if __name__ == "__main__":
    sys.exit(main())
