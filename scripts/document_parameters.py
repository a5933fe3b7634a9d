"""Write the tables of parameters, as parameter_validator.py has them, into COMPATIBILITY.md and the README.

Run it from the checkout after a change of a parameter: PYTHONPATH=. .venv/bin/python scripts/document_parameters.py
"""

import re
from collections.abc import Iterator
from pathlib import Path

from parameter_validator import PARAMETERS, Fate

_BEGIN, _END = "<!-- parameters -->\n", "<!-- end of parameters -->\n"
_FATES: dict[Fate, str] = {"supported": "yes", "mapped": "yes", "ignored": "ignored", "refused": "refused"}
_MEANINGS = {
    "yes": "take effect",
    "ignored": "are ignored, and named in `X-Claude-Ignored-Params`",
    "refused": "are refused, with a 400 that names them",
}


def with_table(document: str) -> str:
    """Return a document, which is given by its name, with the table as it should be now."""
    table = "\n".join(_TABLES[document]()) + "\n"
    text = Path(document).read_text(encoding="utf-8")
    return re.sub(f"{_BEGIN}.*?{_END}", lambda _: _BEGIN + table + _END, text, flags=re.DOTALL)


def _every_parameter() -> Iterator[str]:
    yield "| parameter | | accepts | becomes, or why not | login |"
    yield "|---|---|---|---|---|"
    for name, row in PARAMETERS.items():
        becomes, login = row.becomes or row.reason or "the same", f"{row.login}; else ignored" if row.login else "any"
        yield f"| `{name}` | {_FATES[row.fate]} | {row.values} | {becomes} | {login} |"


def _names_only() -> Iterator[str]:
    yield "| parameters | |"
    yield "|---|---|"
    for fate, meaning in _MEANINGS.items():
        names = [f"`{name}`" for name, row in PARAMETERS.items() if _FATES[row.fate] == fate]
        yield f"| {', '.join(names)} | {meaning} |"


_TABLES = {"COMPATIBILITY.md": _every_parameter, "README.md": _names_only}

if __name__ == "__main__":
    for each in _TABLES:
        Path(each).write_text(with_table(each), encoding="utf-8")
