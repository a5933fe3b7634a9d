"""What test_endpoints.py and test_basic.py share: checks of a running server, as a program that prints what it finds.

BASE_URL is the server (http://localhost:8000), TEST_API_KEY one of its keys, where it has any.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import httpx

TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Target:
    """The server to check, and a key of it."""

    url: str
    key: str | None = None

    def request(self, method: str, path: str, *, json: object = None) -> httpx.Response:
        """Send a request, with the key where there is one."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.request(method, f"{self.url}{path}", json=json, headers=headers, timeout=TIMEOUT_SECONDS)


Check = Callable[[Target], str]
"""Checks a server and returns what it found, in a few words; raises where that isn't as it should be."""


def run_checks(kind: str, checks: Sequence[Check], script: str) -> int:
    """Check the server that the environment names. Returns the exit status."""
    target = Target(
        os.environ.get("BASE_URL", "http://localhost:8000").rstrip("/"), os.environ.get("TEST_API_KEY") or None
    )
    obstacle = _obstacle(target, script)
    if obstacle:
        print(obstacle)
        return 1
    passed = sum(_passes(check, target) for check in checks)
    print(f"{passed}/{len(checks)} {kind} tests passed")
    return 0 if passed == len(checks) else 1


def _obstacle(target: Target, script: str) -> str | None:
    """Find out whether the server is there and wants a key, and say what to do where it can't be checked."""
    try:
        target.request("GET", "/health")
        status = target.request("GET", "/v1/auth/status").status_code
    except httpx.HTTPError as error:
        return f"No server answers at {target.url} ({error}). Start it, or set BASE_URL."
    if status == HTTPStatus.UNAUTHORIZED:
        reason = "refuses this TEST_API_KEY" if target.key else "wants an API key"
        return f"The server at {target.url} {reason}. Give it one of its keys: TEST_API_KEY=your-key python {script}"
    print(f"The server at {target.url} {'takes the key' if target.key else 'wants no key'}.")
    return None


def _passes(check: Check, target: Target) -> bool:
    name = check.__name__.removeprefix("check_").replace("_", " ")
    try:
        found = check(target)
    except Exception as error:  # noqa: BLE001 - whatever it is, the check failed, and the others go on
        print(f"FAILED  {name}: {type(error).__name__} {error}")
        return False
    print(f"passed  {name}: {found}")
    return True
