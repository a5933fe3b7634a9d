"""Show Claude images.

    pip install openai
    python examples/vision.py "What is the difference?" before.png after.png
    python examples/vision.py "What is this?" https://example.com/harbour.jpg

Which server, and with which key: see connection.py.
"""

import base64
import mimetypes
import sys
from pathlib import Path
from typing import Any

from connection import connect


def image(place: str) -> dict[str, Any]:
    """Make the part of a message that shows an image: an address, or a file of this disk."""
    url = place
    if not place.startswith("https://"):
        kind = mimetypes.guess_type(place)[0] or "image/png"
        url = f"data:{kind};base64,{base64.b64encode(Path(place).read_bytes()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def main(question: str, *places: str) -> None:
    """Ask about images, and print the answer while it is written."""
    client = connect()
    content: list[Any] = [*map(image, places), {"type": "text", "text": question}]
    stream = client.chat.completions.create(
        model="sonnet", messages=[{"role": "user", "content": content}], stream=True
    )
    for chunk in stream:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()


if __name__ == "__main__":
    if len(sys.argv) < 3:  # noqa: PLR2004 - a question and an image
        sys.exit(__doc__)
    main(*sys.argv[1:])
