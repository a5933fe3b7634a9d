"""Write the settings, as config.py has them, into the README's table and .env.example.

Run it from the checkout after a change of a setting: PYTHONPATH=. .venv/bin/python scripts/document_settings.py
"""

import re
from collections.abc import Iterator
from pathlib import Path

from config import Settings

_ENV_HEAD = """\
# Every setting, with its default. Copy to `.env` and uncomment what you change; variables of the process win over it.
# Logins to Claude have more variables of their own (AWS_…, GOOGLE_…): they may stand here, too.
"""


def settings() -> Iterator[tuple[str, str, str]]:
    """Yield name, default and description of every setting; no default is an empty text."""
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        shown = ",".join(default) if isinstance(default, tuple) else shown
        yield name.upper(), "" if default in (None, (), {}) else shown, field.description or ""


def main() -> None:
    """Rewrite both documents."""
    rows = [f"| `{name}` | {f'`{default}`' if default else '–'} | {text} |" for name, default, text in settings()]
    readme = Path("README.md")
    table = re.compile(r"(?<=\|---\|---\|---\|\n)\| `HOST`.*?(?=\n\n)", re.DOTALL)
    text = table.sub(lambda _: "\n".join(rows), readme.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8")
    blocks = [f"# {text}\n# {name}={default}\n" for name, default, text in settings()]
    Path(".env.example").write_text("\n".join([_ENV_HEAD, *blocks]), encoding="utf-8")


if __name__ == "__main__":
    main()
