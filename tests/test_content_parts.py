"""Images and files: which reach the model, and which are refused before a process is spent; through the real CLI."""

import socket
from base64 import b64decode, b64encode
from typing import Any

import httpx
import openai
import pytest

from chat import send
from conftest import Server, ServerFactory
from content_blocks import (
    ADDRESS,
    NATIVE_ADDRESS,
    NATIVE_IMAGE,
    NATIVE_PDF,
    PDF,
    PNG,
    encoded,
    file,
    image,
    native_text,
    png,
)
from content_parts import to_block
from demo_upstream import Reply
from function_calls import called, calls_of, needs_reuse, plain, scripted, text, tool
from models import ImagePart, ImageUrl
from turns import ImageBlock, Source

Json = dict[str, Any]

MODEL = "claude-sonnet-4-5"
# What begins as an image does, and isn't a whole one.
BROKEN = (
    b"\x89PNG\r\n\x1a\njunk",
    b64decode(PNG)[:-20],
    b"\xff\xd8\xff",
    b"GIF89a",
    b"RIFF1234WEBPjunk",
    b"RIFF\xff\xff\0\0WEBPVP8 ",
)
WHOLE = {
    "image/jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0\xff\xd9",
    "image/gif": b"GIF89a\1\0\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\1\0\0;",
    "image/webp": b"RIFF\x10\0\0\0WEBPVP8 \4\0\0\0\0\0\0\0",
}


def ask(server: Server, *messages: Json, **parameters: Any) -> httpx.Response:
    """Send a conversation as it is."""
    return send(server, {"model": MODEL, "messages": messages, **parameters})


def user(*content: Json) -> Json:
    """A message of the user's."""
    return {"role": "user", "content": [*content]}


def seen(server: Server) -> list[Json]:
    """The messages that the model saw last, less cache marks."""
    messages = server.upstream.messages_requests()[-1].body["messages"]
    blocks = [[text(each["content"])] if isinstance(each["content"], str) else each["content"] for each in messages]
    return [{"role": each["role"], "content": [*map(plain, own)]} for each, own in zip(messages, blocks, strict=True)]


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (image(), NATIVE_IMAGE),
        (image(f"DATA:image/PNG;name=a.png;BASE64,{PNG}"), NATIVE_IMAGE),
        # Claude Code tells the type by the image itself.
        (image(f"data:image/jpg;base64,{PNG}"), NATIVE_IMAGE),
        (image(f"data:image/png;base64,{PNG[:60]}\r\n{PNG[60:]}\n"), NATIVE_IMAGE),
        (image(f"data:image/png;base64, {PNG[:60]}\r{PNG[60:]}"), NATIVE_IMAGE),
        (image(ADDRESS), NATIVE_ADDRESS),
        (file(f"data:application/pdf;base64,{PDF}"), NATIVE_PDF),
        (file(PDF, filename="a b.pdf"), {**NATIVE_PDF, "title": "a b.pdf"}),
        (file(f"data:text/csv;base64,{encoded('a,ü')}", filename="a.csv"), native_text("a,ü", title="a.csv")),
        (file(f"data:text/plain;charset=utf-8;base64,{encoded('ü')}"), native_text("ü")),
        (file(encoded('{"漢": 1}')), native_text('{"漢": 1}')),
    ],
)
def test_a_part_reaches_the_model_as_it_is(server: Server, part: Json, block: Json) -> None:
    """An image, an address of one, a PDF and a text are native blocks, in their place among the texts."""
    response = ask(server, user(text("Before"), part, text("after")))
    assert response.status_code == 200, response.text
    assert seen(server) == [{"role": "user", "content": [text("Before"), block, text("after")]}]
    assert "x-claude-ignored-params" not in response.headers


@pytest.mark.parametrize("kind", WHOLE)
def test_images_of_every_type_pass(kind: str) -> None:
    """Each is known by how it begins and ends."""
    data = b64encode(WHOLE[kind]).decode()
    part = ImagePart(type="image_url", image_url=ImageUrl(url=f"data:{kind};base64,{data}"))
    assert to_block(part, "messages.[0].content.[0]") == ImageBlock(Source("base64", kind, data))


def test_several_parts_in_any_message_of_the_user(server: Server) -> None:
    """A history may have them anywhere, and a message several, also without a word."""
    conversation = [
        user(image(), image(ADDRESS)),
        {"role": "assistant", "content": "Two."},
        user(file(PDF), text("?"), image()),
        {"role": "assistant", "content": "Three."},
        user(image(ADDRESS)),
    ]
    assert ask(server, *conversation).status_code == 200
    assert [message["content"] for message in seen(server)] == [
        [NATIVE_IMAGE, NATIVE_ADDRESS],
        [text("Two.")],
        [NATIVE_PDF, text("?"), NATIVE_IMAGE],
        [text("Three.")],
        [NATIVE_ADDRESS],
    ]


@needs_reuse
def test_a_conversation_with_images_goes_on_in_its_process(serve: ServerFactory) -> None:
    """It is known by its images as well; another image is another conversation."""
    server = serve()
    scripted(server)
    asked = user(image(), text("What is it?"))
    ask(server, asked)
    history = [asked, {"role": "assistant", "content": "Fine."}, user(text("Sure?"))]
    assert ask(server, *history).headers["x-claude-process"] == "adopted"
    other = [user(image(ADDRESS), text("What is it?")), *history[1:]]
    assert ask(server, *other).headers["x-claude-process"] != "adopted"
    assert seen(server)[0]["content"] == [NATIVE_ADDRESS, text("What is it?")]


def test_a_session_remembers_images(serve: ServerFactory) -> None:
    """The next turn of a session shows them again, whichever process it gets."""
    server = serve(process_reuse="off")
    scripted(server)
    ask(server, user(image(), file(PDF, filename="a.pdf")), session_id="s")
    ask(server, user(text("And?")), session_id="s")
    assert seen(server)[0]["content"] == [NATIVE_IMAGE, {**NATIVE_PDF, "title": "a.pdf"}]


@pytest.mark.parametrize("reuse", ["on", "off"])
def test_a_result_may_have_images(serve: ServerFactory, reuse: str) -> None:
    """What a function answers reaches the model whole, whether or not its turn waits."""
    server = serve(process_reuse=reuse)
    messages = called(server, "camera")
    content = [text("Look:"), image(), image(ADDRESS), file(PDF)]
    messages.append({"role": "tool", "tool_call_id": calls_of(messages)[0], "content": content})
    assert ask(server, *messages, tools=[tool("camera")]).status_code == 200
    (result,) = seen(server)[-1]["content"]
    assert [*map(plain, result["content"])] == [text("Look:"), NATIVE_IMAGE, NATIVE_ADDRESS, NATIVE_PDF]


def test_a_detail_is_ignored_by_name(server: Server) -> None:
    """Claude has no such thing; `auto` asks for nothing."""
    assert "x-claude-ignored-params" not in ask(server, user(image(detail="auto"))).headers
    response = ask(server, user(image(detail="low")))
    assert (response.status_code, response.headers["x-claude-ignored-params"]) == (200, "image_url.detail")


def test_nothing_is_fetched_by_the_server(server: Server) -> None:
    """An address goes to Claude's API as it is; nobody connects to it, neither the server nor Claude Code."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        assert ask(server, user(image(f"https://127.0.0.1:{listener.getsockname()[1]}/a.png"))).status_code == 200
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert seen(server)[0]["content"][0]["source"]["type"] == "url"


@pytest.mark.parametrize(
    ("part", "place", "code"),
    [
        (image("http://images.invalid/a.png"), "image_url.url", "invalid_value"),
        (image("file:///etc/passwd"), "image_url.url", "invalid_value"),
        (image(""), "image_url.url", "invalid_value"),
        (image(PNG), "image_url.url", "invalid_value"),
        (image("data:image/png;base64,"), "image_url.url", "invalid_value"),
        (image("data:image/png;base64,@@@@"), "image_url.url", "invalid_value"),
        (image("data:image/png;base64,AAAA"), "image_url.url", "invalid_value"),
        (image(f"data:image/png;base64,{encoded('<html>')}"), "image_url.url", "invalid_value"),
        *(
            (image(f"data:image/png;base64,{b64encode(data).decode()}"), "image_url.url", "invalid_value")
            for data in BROKEN
        ),
        (image("data:" + ";" * 1_000_000), "image_url.url", "invalid_value"),
        (image("data:" + ";" * 1_000_000 + f";base64,{PNG}"), "image_url.url", "invalid_value"),
        (image(f"data:image/png;base64,{PNG[:-1]}"), "image_url.url", "invalid_value"),
        (image(f"data:image/png,{PNG}"), "image_url.url", "invalid_value"),
        (image(f"data:image/tiff;base64,{PNG}"), "image_url.url", "invalid_value"),
        (image(f"data:image/svg+xml;base64,{PNG}"), "image_url.url", "invalid_value"),
        (file("data:application/pdf;base64,AAAA"), "file.file_data", "invalid_value"),
        (file("data:application/zip;base64,AAAA"), "file.file_data", "invalid_value"),
        (file(b64encode(b"\xff\xfe\0").decode()), "file.file_data", "invalid_value"),
        (file(encoded(" \n")), "file.file_data", "invalid_value"),
        (file("no Base64!"), "file.file_data", "invalid_value"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "file.file_id", "unsupported_content"),
        ({"type": "file", "file": {"filename": "a.pdf"}}, "file.file_data", "missing_required_parameter"),
        ({"type": "file"}, "file", "missing_required_parameter"),
        ({"type": "image_url", "image_url": ADDRESS}, "image_url", "invalid_type"),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, "type", "unsupported_content"),
        ({"type": "video"}, "type", "unsupported_content"),
    ],
)
def test_what_claude_cant_see_is_refused_at_its_place(server: Server, part: Json, place: str, code: str) -> None:
    """A part that can't be is a 400 that says where it stands, and no process is spent on it."""
    leases = httpx.get(f"{server.url}/v1/pool", timeout=30).json()["leases"]
    response = ask(server, user(text("Look"), part))
    error = response.json()["error"]
    assert httpx.get(f"{server.url}/v1/pool", timeout=30).json()["leases"] == leases
    assert (response.status_code, error["code"]) == (400, code), error
    assert error["param"] == f"messages.[0].content.[1].{place}"
    assert not server.upstream.messages_requests()


@pytest.mark.parametrize("role", ["system", "developer", "assistant"])
def test_others_have_only_text(server: Server, role: str) -> None:
    """An image in a message of another role is refused there."""
    response = ask(server, {"role": role, "content": [image()]}, user(text("Hi")))
    assert (response.status_code, response.json()["error"]["param"]) == (400, "messages.[0].content.[0].type")


def test_an_image_that_is_too_large_is_a_413(serve: ServerFactory) -> None:
    """MAX_REQUEST_SIZE holds for images as for all else."""
    server = serve(max_request_size=10_000)
    response = ask(server, user(image(f"data:image/png;base64,{'A' * 20_000}")))
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")


def test_the_published_client_sends_five_megabytes(server: Server) -> None:
    """A large file passes unchanged."""
    data = b64encode(b"%PDF-1.4\n" + b"x" * 5_000_000).decode()
    content: Any = [file(data, filename="large.pdf"), text("How long is it?")]
    server.client().chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
    assert seen(server)[0]["content"][0]["source"]["data"] == data


def test_a_large_image_is_scaled_down_by_claude_code(server: Server) -> None:
    """Of more than 2000 pixels a side it makes fewer, and tells the model: COMPATIBILITY.md says so."""
    assert ask(server, user(image(f"data:image/png;base64,{png(2400, 2)}"))).status_code == 200
    scaled, note = seen(server)[0]["content"]
    assert scaled["source"]["data"] != png(2400, 2)
    assert "original 2400x2" in note["text"]


def test_claudes_own_word_on_an_image_is_passed_on(server: Server) -> None:
    """What its API makes of an address that it can't fetch is the client's to know."""
    server.upstream.script(Reply(status=400, error_message="Unable to download the file."), times=None)
    content: Any = [image(ADDRESS)]
    with pytest.raises(openai.BadRequestError, match="Unable to download"):
        server.client().chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
