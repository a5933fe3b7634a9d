"""The parts of a message's content: from OpenAI's form to the Messages API's blocks; purely.

Everything that can be seen to be wrong is found here, before a process is spent on it.
Source: https://platform.openai.com/docs/guides/images-vision and https://platform.claude.com/docs/en/build-with-claude/vision
"""

import re
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from errors import InvalidRequestError
from models import Content, ContentPart, FilePart, ImagePart, RefusalPart, TextPart
from turns import DocumentBlock, ImageBlock, Source, TextBlock, UserBlock

_LONGEST_HEAD = 256
_BLANK = re.compile(r"\s")
_IMAGE_TYPES = frozenset({"image/gif", "image/jpeg", "image/jpg", "image/png", "image/webp"})
_PDF = "application/pdf"
_PDF_MARK = b"%PDF-"
_LONGEST_QUOTE = 64


def to_blocks(content: Content, place: str) -> tuple[UserBlock, ...]:
    """Convert the content that stands at `place`. Raises InvalidRequestError for a part that can't be.

    There is no blank text: a blank part joins its neighbour, and what has no other is left out.
    """
    parts: Sequence[str | ContentPart] = [content] if isinstance(content, str) else content
    blocks: list[UserBlock] = []
    blank = ""
    for number, part in enumerate(parts):
        block = TextBlock(part) if isinstance(part, str) else to_block(part, f"{place}.[{number}]")
        if not isinstance(block, TextBlock):
            blocks.append(block)
        elif not block.text.strip():
            blank += block.text
        else:
            blocks.append(TextBlock(blank + block.text))
            blank = ""
    return _with_blank_at_the_end(blocks, blank)


def _with_blank_at_the_end(blocks: list[UserBlock], blank: str) -> tuple[UserBlock, ...]:
    place = next((place for place in reversed(range(len(blocks))) if isinstance(blocks[place], TextBlock)), None)
    if blank and place is not None:
        last = blocks[place]
        assert isinstance(last, TextBlock)  # noqa: S101 - for the type checker: found as one
        blocks[place] = TextBlock(last.text + blank)
    return tuple(blocks)


def to_text(content: Content, place: str) -> tuple[TextBlock, ...]:
    """Convert content of a role that has only text. Raises InvalidRequestError for any other part."""
    for number, part in enumerate(() if isinstance(content, str) else content):
        check_text(part, f"{place}.[{number}]")
    return tuple(block for block in to_blocks(content, place) if isinstance(block, TextBlock))


def check_text(part: ContentPart, place: str) -> None:
    """Let a part pass that is text. Raises InvalidRequestError for any other."""
    if not isinstance(part, TextPart | RefusalPart):
        raise _unsupported(place, part.type, "Messages of this role have only text.")


def to_block(part: ContentPart, place: str) -> UserBlock:
    """Convert one part. Raises InvalidRequestError."""
    convert = _CONVERTERS.get(type(part))
    if convert is None:
        raise _unsupported(place, part.type, "Send text, images (image_url) or files (file).")
    block: UserBlock = convert(part, place)
    return block


def _text(part: TextPart, _place: str) -> UserBlock:
    return TextBlock(part.text)


def _refusal(part: RefusalPart, _place: str) -> UserBlock:
    return TextBlock(part.refusal)


def _image(part: ImagePart, place: str) -> UserBlock:
    url, param = part.image_url.url, f"{place}.image_url.url"
    if url[:8].lower() == "https://":
        return ImageBlock(Source("url", url=url))
    if not url[:5].lower() == "data:":
        raise _invalid(param, "Send an https URL, or a data URI like data:image/png;base64,….")
    media_type, data = _parsed(url, param)
    decoded = _decoded(data, param)
    if media_type not in _IMAGE_TYPES or not _is_image(decoded):
        known = ", ".join(sorted(_IMAGE_TYPES))
        raise _invalid(param, f"It has to be a whole image of one of these types: {known}.")
    return ImageBlock(Source("base64", media_type.replace("/jpg", "/jpeg"), data))


def _is_image(data: bytes) -> bool:
    """Whether data begins and ends as an image does: what doesn't, Claude Code replaces by words of its own."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data[12:16] == b"IHDR" and b"IEND" in data[-64:]
    if data.startswith(b"\xff\xd8\xff"):
        return b"\xff\xd9" in data
    if data.startswith((b"GIF87a", b"GIF89a")):
        return b";" in data[13:][-64:]
    return data[:4] == b"RIFF" and data[8:15] == b"WEBPVP8" and int.from_bytes(data[4:8], "little") <= len(data) - 8


def _file(part: FilePart, place: str) -> UserBlock:
    param = f"{place}.file.file_data"
    if part.file.file_id is not None:
        message = "This server keeps no files: send the file itself as 'file_data'."
        raise InvalidRequestError(message, param=f"{place}.file.file_id", code="unsupported_content")
    if part.file.file_data is None:
        message = f"Missing required parameter: '{param}'."
        raise InvalidRequestError(message, param=param, code="missing_required_parameter")
    return DocumentBlock(_document(part.file.file_data, param), part.file.filename or None)


def _document(written: str, param: str) -> Source:
    is_uri = written[:5].lower() == "data:"
    media_type, data = _parsed(written, param) if is_uri else ("", _on_one_line(written))
    decoded = _decoded(data, param)
    if media_type == _PDF and not decoded.startswith(_PDF_MARK):
        raise _invalid(param, "This is not a PDF.")
    if media_type in (_PDF, "") and decoded.startswith(_PDF_MARK):
        return Source("base64", _PDF, data)
    if media_type and not media_type.startswith("text/") and media_type != "application/json":
        raise _invalid(param, f"Claude reads PDF and text; not '{media_type[:_LONGEST_QUOTE]}'.")
    return Source("text", "text/plain", _as_text(decoded, param))


def _as_text(decoded: bytes, param: str) -> str:
    try:
        text = decoded.decode()
    except UnicodeDecodeError as error:
        raise _invalid(param, "This is neither a PDF nor text in UTF-8.") from error
    if not text.strip():
        raise _invalid(param, "This file is empty.")
    return text


def _parsed(uri: str, param: str) -> tuple[str, str]:
    """Return a data URI's media type, in lower case, and its Base64."""
    head, comma, data = uri.partition(",")
    media_type, *attributes = head[:_LONGEST_HEAD].lower().removeprefix("data:").split(";")
    if not comma or len(head) > _LONGEST_HEAD or attributes[-1:] != ["base64"]:
        raise _invalid(param, "The data URI has to be in Base64, like data:image/png;base64,….")
    return media_type.strip(), _on_one_line(data)


def _on_one_line(data: str) -> str:
    """Take the line breaks and blanks out, which some programs write into Base64."""
    return "".join(data.split()) if _BLANK.search(data) else data


def _decoded(data: str, param: str) -> bytes:
    try:
        decoded = b64decode(data, validate=True)
    except ValueError as error:
        raise _invalid(param, "This is not valid Base64.") from error
    if not decoded:
        raise _invalid(param, "It is empty.")
    return decoded


def _invalid(param: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(f"Invalid '{param}': {message}", param=param, code="invalid_value")


def _unsupported(place: str, kind: str, advice: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"Content parts of type '{kind[:_LONGEST_QUOTE]}' are not supported here. {advice}",
        param=f"{place}.type",
        code="unsupported_content",
    )


_CONVERTERS: Mapping[type, Callable[[Any, str], UserBlock]] = {
    TextPart: _text,
    RefusalPart: _refusal,
    ImagePart: _image,
    FilePart: _file,
}
