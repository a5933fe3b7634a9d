"""What browsers are told: on every answer whatever it is, and what the two pages may load."""

import re
from html.parser import HTMLParser

import httpx
import pytest

from browser_headers import SAFE_HEADERS
from chat import HELLO, MODEL, chunks, post
from conftest import Server, ServerFactory
from demo_upstream import Reply

NOTHING = SAFE_HEADERS["Content-Security-Policy"]


def test_nothing_is_to_be_run_framed_guessed_or_kept() -> None:
    """The defaults are the strictest that there are."""
    assert {directive.split()[0] for directive in NOTHING.split("; ")} == {
        "default-src",
        "base-uri",
        "form-action",
        "frame-ancestors",
    }
    assert {directive.split()[1] for directive in NOTHING.split("; ")} == {"'none'"}
    others = {name: value for name, value in SAFE_HEADERS.items() if name != "Content-Security-Policy"}
    assert others == {
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }


def answered(response: httpx.Response, status: int) -> None:
    """Whether the answer is the expected one, and has all of the headers."""
    assert response.status_code == status, response.text
    got = {name: response.headers.get(name) for name in SAFE_HEADERS}
    assert got == {**SAFE_HEADERS, "Content-Security-Policy": got["Content-Security-Policy"]}
    assert (got["Content-Security-Policy"] or "").startswith(NOTHING)
    is_page = response.headers.get("content-type", "").startswith("text/html")
    assert (got["Content-Security-Policy"] != NOTHING) == is_page


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/docs", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/health", 200),
        ("HEAD", "/health", 200),
        ("GET", "/v1/models", 200),
        ("GET", "/metrics", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/chat/completions", 400),
    ],
)
def test_every_answer_has_them(server: Server, method: str, path: str, status: int) -> None:
    """Pages, documents, reports and errors alike."""
    answered(httpx.request(method, f"{server.url}{path}", timeout=30), status)


def test_completions_and_streams_have_them(server: Server) -> None:
    """A whole answer, a streamed one, and an error of Claude's API."""
    answered(post(server, model=MODEL, messages=HELLO), 200)
    streamed = post(server, model=MODEL, messages=HELLO, stream=True)
    answered(streamed, 200)
    assert chunks(streamed)
    server.upstream.script(Reply(status=429), times=None)
    answered(post(server, model=MODEL, messages=HELLO), 429)


def test_what_never_reaches_a_route_has_them(server: Server, serve: ServerFactory) -> None:
    """A preflight, a foreign page, a foreign name, and a caller without a key."""
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answered(httpx.options(f"{server.url}/v1/models", headers=preflight), 400)
    answered(httpx.get(f"{server.url}/v1/models", headers={"Origin": "https://evil.example"}), 403)
    answered(httpx.get(f"{server.url}/v1/models", headers={"Host": "evil.example"}), 403)
    answered(httpx.get(f"{serve(api_key='sesame', spare_processes=0).url}/v1/models"), 401)


class Page(HTMLParser):
    """What a page loads from elsewhere, and how many scripts and styles stand in it."""

    def __init__(self, html: str) -> None:
        """Read it."""
        super().__init__()
        self.loaded: set[tuple[str, str]] = set()
        self.inline: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the element loads."""
        attributes = dict(attrs)
        assert not [name for name in attributes if name.startswith("on") or name == "style"], "no hash allows these"
        if tag == "link":
            kind = "style" if attributes["rel"] == "stylesheet" else "img"
            self.loaded.add((kind, attributes["href"] or ""))
        elif tag == "script" and "src" in attributes:
            self.loaded.add((tag, attributes["src"] or ""))
        elif tag in ("script", "style"):
            self.inline.append(tag)


@pytest.mark.parametrize(("path", "elsewhere"), [("/", 0), ("/docs", 2)])
def test_a_page_may_load_what_it_loads_and_nothing_else(server: Server, path: str, elsewhere: int) -> None:
    """Each source that the policy has is one that the page uses, to the letter: no host as a whole, nothing unsafe."""
    response = httpx.get(f"{server.url}{path}")
    page = Page(response.text)
    directives = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    addresses = {(name[:-4], each) for name, value in directives.items() for each in value.split() if "://" in each}
    assert addresses == {(kind, address) for kind, address in page.loaded if not address.startswith("data:")}
    assert len(addresses) == elsewhere
    hashes = [name[:-4] for name, value in directives.items() for _ in re.findall("'sha256-", value)]
    assert sorted(hashes) == sorted(page.inline)
    assert "unsafe" not in response.headers["content-security-policy"]


def test_the_documentation_finds_its_document(server: Server) -> None:
    """The page asks for the OpenAPI document where it is."""
    found = re.search(r"url: '(.+?)'", httpx.get(f"{server.url}/docs").text)
    assert found
    assert httpx.get(f"{server.url}{found[1]}").json()["openapi"]
