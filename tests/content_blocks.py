"""Images and files for the tests: as a client sends them, and as the model sees them."""

import struct
import zlib
from base64 import b64encode
from typing import Any

Json = dict[str, Any]


def png(width: int = 2, height: int = 2) -> str:
    """A picture, in Base64."""
    row = b"\0" + b"\xff\x80\0" * width
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(row * height)), (b"IEND", b"")]
    written = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        written += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return b64encode(written).decode()


PNG = png()
PDF = b64encode(b"%PDF-1.4\n%%EOF").decode()
ADDRESS = "https://images.invalid/a.png?size=1&x=%20"


def image(url: str = f"data:image/png;base64,{PNG}", **more: Any) -> Json:
    """A part that is an image."""
    return {"type": "image_url", "image_url": {"url": url, **more}}


def file(data: str, **more: Any) -> Json:
    """A part that is a file."""
    return {"type": "file", "file": {"file_data": data, **more}}


def encoded(content: str) -> str:
    """A text in Base64."""
    return b64encode(content.encode()).decode()


NATIVE_IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
NATIVE_ADDRESS = {"type": "image", "source": {"type": "url", "url": ADDRESS}}
NATIVE_PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}}


def native_text(data: str, **more: Any) -> Json:
    """What the model gets of a file of text."""
    return {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": data}, **more}
