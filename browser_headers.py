"""What browsers are told of every answer: not to frame it, guess at it or keep it, nor to run what isn't a page's own.

HSTS is the affair of the proxy that ends TLS.
"""

import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256

from fastapi.responses import HTMLResponse

_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_POLICY = "Content-Security-Policy"

# https://cheatsheetseries.owasp.org/cheatsheets/REST_Security_Cheat_Sheet.html#security-headers
SAFE_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    _POLICY: _NOTHING,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""The headers of every answer that has none of its own by these names."""


def page(html: str, sources: Mapping[str, str] | None = None) -> HTMLResponse:
    """Return a page that may use the scripts and styles that stand in it; `sources` adds to its policy's directives."""
    allowed = {f"{kind}-src": _hashes(html, kind) for kind in ("script", "style")}
    for directive, more in (sources or {}).items():
        allowed[directive] = f"{allowed.get(directive, '')} {more}".strip()
    policy = "; ".join([_NOTHING, *(f"{directive} {those}" for directive, those in allowed.items() if those)])
    return HTMLResponse(html, headers={_POLICY: policy})


def _hashes(html: str, tag: str) -> str:
    """The sources that stand for what a page has in elements of this name."""
    inside = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in inside)
