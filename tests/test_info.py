"""Models, health, login status, versions, the landing page, and what all answers share."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi.routing import iter_route_contexts

from auth import hash_key
from config import VERSION
from conftest import Server, ServerFactory, clean_environment, make_settings
from demo_upstream import Reply
from main import create_app


def get(server: Server, path: str, **options: Any) -> httpx.Response:
    """Fetch a path."""
    return httpx.get(f"{server.url}{path}", timeout=30, **options)


def test_health(server: Server) -> None:
    """Health says healthy and asks nothing of Claude."""
    response = get(server, "/health")
    assert (response.status_code, response.json()["status"]) == (200, "healthy")
    assert not server.upstream.requests


def test_models_are_what_claude_code_lists(client: openai.OpenAI) -> None:
    """The list has full ids and aliases, dated, owned by Anthropic, and the operator's own names."""
    models = {model.id: model for model in client.models.list()}
    assert {"sonnet", "opus", "haiku", "gpt-4o"} <= models.keys()
    assert any(re.fullmatch(r"claude-sonnet-\d.*", name) for name in models)
    assert all(model.owned_by == "anthropic" and model.created > 0 for model in models.values())


@pytest.mark.parametrize("name", ["sonnet", "gpt-4o", "claude-3-5-haiku-20241022"])
def test_a_model_can_be_retrieved(client: openai.OpenAI, name: str) -> None:
    """Every name that can be asked for can be retrieved."""
    assert client.models.retrieve(name).id == name


def test_an_unknown_model_cant_be_retrieved(client: openai.OpenAI) -> None:
    """Another name is OpenAI's model_not_found."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-2")
    assert caught.value.code == "model_not_found"


def test_models_ask_nothing_of_claudes_api(server: Server, client: openai.OpenAI) -> None:
    """Listing models costs no request upstream."""
    client.models.list()
    assert not server.upstream.messages_requests()


def test_auth_status_names_the_login(server: Server) -> None:
    """The status says which login is in use, in our words and in Claude Code's, and shows no secret."""
    response = get(server, "/v1/auth/status")
    status = response.json()
    assert (status["method"], status["complete"], status["missing"]) == ("anthropic", True, [])
    assert status["account"]["api_key_source"] == "ANTHROPIC_API_KEY"
    assert "dummy-loopback" not in response.text


@pytest.mark.parametrize(
    ("variables", "method", "missing"),
    [
        ({}, None, ["a Claude login"]),
        ({"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-dummy"}, "oauth_token", []),
        ({"CLAUDE_CODE_USE_BEDROCK": "true"}, "bedrock", ["AWS_REGION"]),
        ({"CLAUDE_CODE_USE_VERTEX": "true"}, "vertex", ["ANTHROPIC_VERTEX_PROJECT_ID", "CLOUD_ML_REGION"]),
        ({"CLAUDE_AUTH_METHOD": "anthropic"}, "anthropic", ["ANTHROPIC_API_KEY"]),
    ],
)
def test_auth_status_says_what_is_missing(
    serve: ServerFactory, variables: dict[str, str], method: str | None, missing: list[str]
) -> None:
    """Each method names what it lacks, and how to mend it where it lacks something."""
    status = get(serve(clean_environment(**variables)), "/v1/auth/status").json()
    assert (status["method"], status["missing"], status["complete"]) == (method, missing, not missing)
    assert bool(status["hint"]) == bool(missing)


def test_version(server: Server) -> None:
    """The versions that a bug report needs."""
    answer = get(server, "/version").json()
    assert answer["version"] == VERSION
    assert re.fullmatch(r"\d+\.\d+\.\d+", answer["claude_code_version"])


def test_the_landing_page_links_on(server: Server) -> None:
    """A browser at / learns what runs here and where to go."""
    page = get(server, "/")
    assert page.headers["content-type"].startswith("text/html")
    for link in ("docs", "v1/models", "v1/auth/status", "health"):
        assert f'href="{link}"' in page.text
        assert get(server, f"/{link}").status_code == 200


def test_every_answer_has_openais_headers(server: Server) -> None:
    """Each response, errors too, carries a request id of its own, the processing time and the API version."""
    first, second = get(server, "/health"), get(server, "/nowhere")
    for response in (first, second):
        assert re.fullmatch(r"req_[0-9a-f]{32}", response.headers["x-request-id"])
        assert response.headers["openai-processing-ms"].isdigit()
        assert response.headers["openai-version"]
        assert "x-claude-backend" not in response.headers
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


def test_a_long_answer_is_compressed_for_those_who_take_it(server: Server) -> None:
    """A whole answer that is long, and none that is short, or streamed, which would be held up."""
    server.upstream.script(Reply(text="A long answer. " * 200), times=None)
    body = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "Hello"}]}
    url = f"{server.url}/v1/chat/completions"
    encodings = []
    for accepted, more in (("gzip", {}), ("identity", {}), ("gzip", {"stream": True})):
        response = httpx.post(url, json={**body, **more}, headers={"Accept-Encoding": accepted}, timeout=30)
        assert response.text.count("answer.") == 200
        encodings.append(response.headers.get("content-encoding"))
    encodings.append(get(server, "/health").headers.get("content-encoding"))
    assert encodings == ["gzip", None, None, None]


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/v1/nothing"])
def test_head_is_get_without_a_body(server: Server, path: str) -> None:
    """What load balancers ask with."""
    whole = get(server, path)
    head = httpx.head(f"{server.url}{path}", timeout=30)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]


def test_an_unknown_path_is_a_404_in_the_envelope(server: Server) -> None:
    """Nothing is served outside the API, and nothing redirects."""
    for path in ("/v1/nothing", "/v1/chat/completions/"):
        response = httpx.post(f"{server.url}{path}", json={})
        assert (response.status_code, response.json()["error"]["type"]) == (404, "invalid_request_error")


def test_allow_names_all_methods_of_an_address(server: Server) -> None:
    """Of several routes that it has, too."""
    assert httpx.put(f"{server.url}/v1/tools/config").headers["allow"] == "GET, HEAD, POST"


def test_a_wrong_method_is_a_405_with_allow(server: Server) -> None:
    """The method that would have worked is named."""
    response = get(server, "/v1/chat/completions")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert response.json()["error"]["code"] == "method_not_allowed"


def test_head_works(server: Server) -> None:
    """Monitors ask with HEAD."""
    assert httpx.head(f"{server.url}/health").status_code == 200


OPEN = {"/", "/health", "/docs", "/openapi.json"}


def test_every_route_but_these_demands_a_key(serve: ServerFactory) -> None:
    """Of all routes that the app has, only the landing page, health and the documentation answer without a key."""
    server = serve(api_key="sesame", spare_processes=0)
    routes = [
        (method, context.path or "")
        for context in iter_route_contexts(create_app(make_settings({}, api_key="sesame")).routes)
        for method in context.methods or ()
    ]
    assert {path for _, path in routes} > {*OPEN, "/v1/chat/completions", "/v1/models/{name:path}", "/version"}
    for method, path in routes:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic c2VzYW1l"}):
            url = f"{server.url}{re.sub(r'{.*?}', 'x', path)}"
            response = httpx.request(method, url, headers=headers, timeout=30)
            expected = (200, None) if path in OPEN else (401, "Bearer")
            assert (response.status_code, response.headers.get("www-authenticate")) == expected, (method, path)


def test_any_of_the_keys_opens(serve: ServerFactory) -> None:
    """With keys set a caller without one gets OpenAI's 401, and any of the keys opens."""
    server = serve(api_key="first-key", api_keys="second-key,third-key")
    assert get(server, "/v1/models").json()["error"]["message"].startswith("You didn't provide an API key")
    for key in ("first-key", "third-key"):
        assert server.client(api_key=key).models.list().data
    with pytest.raises(openai.AuthenticationError) as caught:
        server.client(api_key="fourth-key").models.list()
    assert caught.value.code == "invalid_api_key"


def keys_file(directory: Path, *entries: tuple[str, str, str]) -> Path:
    """Write a file of keys: names, keys, and what else stands in their entries."""
    path = directory / "keys.toml"
    text = "\n".join(f'[keys.{name}]\nhash = "sha256:{hash_key(key)}"\n{more}' for name, key, more in entries)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_running_server_follows_its_file_of_keys(
    serve: ServerFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A key that is added opens, one that is taken away doesn't, and a mistake in the file shuts nobody out."""
    path = keys_file(tmp_path)
    server = serve(api_keys_file=path, spare_processes=0)

    def status(key: str) -> int:
        return get(server, "/version", headers={"Authorization": f"Bearer {key}"}).status_code

    assert get(server, "/version").status_code == status("of-anna") == 401
    keys_file(tmp_path, ("anna", "of-anna", ""))
    assert (status("of-anna"), status("of-berta")) == (200, 401)
    keys_file(tmp_path, ("anna", "of-anna", "tools = 'yes'"), ("berta", "of-berta", ""))
    assert (status("of-anna"), status("of-berta")) == (200, 401)
    keys_file(tmp_path, ("berta", "of-berta", ""))
    assert (status("of-anna"), status("of-berta")) == (401, 200)
    (said,) = [record.message for record in caplog.records if "keys.anna.tools" in record.message]
    assert said.startswith(f"API_KEYS_FILE {path} can't be used: keys.anna.tools: Value error, it is true, false")


def test_no_key_is_asked_for_where_there_is_none(server: Server) -> None:
    """The status tells a client that it may do without."""
    assert get(server, "/v1/auth/status").json()["api_key_required"] is False


@pytest.mark.parametrize("from_file", [False, True])
def test_a_key_is_asked_for_wherever_it_stands(serve: ServerFactory, from_file: bool, tmp_path: Path) -> None:
    """A key of the settings or a file of keys: the status says so, and foreign pages may ask with the key."""
    where = {"api_keys_file": keys_file(tmp_path, ("anna", "sesame", ""))} if from_file else {"api_key": "sesame"}
    headers = {"Authorization": "Bearer sesame", "Origin": "https://evil.example"}
    response = get(serve(**where, spare_processes=0), "/v1/auth/status", headers=headers)
    assert (response.status_code, response.json()["api_key_required"]) == (200, True)


def test_a_key_sees_and_gets_only_its_models(serve: ServerFactory, tmp_path: Path) -> None:
    """Other models are unknown to it, listed, retrieved or asked for, and no process is spent on them."""
    limited = ("anna", "of-anna", 'models = ["haiku", "claude-sonnet-*"]')
    aliases = {"gpt-4o": "claude-sonnet-4-5", "gpt-5": "opus"}
    server = serve(
        api_keys_file=keys_file(tmp_path, limited, ("all", "of-all", "")), model_aliases=aliases, spare_processes=0
    )
    anna, everything = server.client(api_key="of-anna"), server.client(api_key="of-all")
    message: Any = {"role": "user", "content": "Hello"}
    for name in ("opus", "sonnet", "gpt-5", "claude-opus-4-1"):
        for ask in (anna.models.retrieve, partial(anna.chat.completions.create, messages=[message])):
            with pytest.raises(
                openai.NotFoundError, match=f"The model `{name}` does not exist or you do not"
            ) as caught:
                ask(model=name)
            assert caught.value.code == "model_not_found"
        assert everything.models.retrieve(name).id == name
    assert not server.upstream.messages_requests()
    for name in ("haiku", "gpt-4o", "claude-sonnet-4-5"):
        assert anna.models.retrieve(name).id == name
        assert anna.chat.completions.create(model=name, messages=[message]).choices
    listed = {model.id for model in anna.models.list()}
    assert {"haiku", "gpt-4o"} <= listed
    assert listed == {name for name in listed if name in ("haiku", "gpt-4o") or name.startswith("claude-sonnet-")}
    assert {"opus", "gpt-5"} <= {model.id for model in everything.models.list()}


def test_a_foreign_web_page_may_not_even_ask(server: Server, serve: ServerFactory) -> None:
    """A page can send a simple request unasked: without keys it is refused, and the model never sees it."""
    body = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "Spend"}]}

    def status(at: Server, origin: str) -> int:
        headers = {"Origin": origin, "Content-Type": "text/plain", "Authorization": "Bearer sesame"}
        return httpx.post(f"{at.url}/v1/chat/completions", json=body, headers=headers, timeout=30).status_code

    assert status(server, "https://evil.example") == 403
    assert not server.upstream.messages_requests()
    assert status(server, "http://localhost:3000") == 200
    assert status(serve(api_key="sesame"), "https://evil.example") == 200


def test_a_foreign_web_page_may_not_call(server: Server, serve: ServerFactory) -> None:
    """By default only pages from this machine pass the browser's preflight; CORS_ORIGINS names others."""

    def allowed(at: Server, origin: str) -> str | None:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        response = httpx.options(f"{at.url}/v1/chat/completions", headers=headers)
        return dict(response.headers).get("access-control-allow-origin")

    assert allowed(server, "http://localhost:3000") == "http://localhost:3000"
    assert allowed(server, "https://evil.example") is None
    assert allowed(serve(cors_origins=["https://good.example"]), "https://good.example") == "https://good.example"


@pytest.mark.parametrize("origins", [(), ("https://good.example",), ("*",)])
@pytest.mark.parametrize("keys", [{}, {"api_key": "sesame"}])
def test_no_page_calls_with_credentials(serve: ServerFactory, origins: tuple[str, ...], keys: dict[str, str]) -> None:
    """A key is shown by who has it, never by a browser of itself: no origin is told otherwise, whoever may call."""
    server = serve(cors_origins=origins, spare_processes=0, **keys)
    allowed = {"https://evil.example": origins == ("*",), "https://good.example": bool(origins), "null": "*" in origins}
    allowed["http://localhost:3000"] = not origins or "*" in origins
    for origin, is_allowed in allowed.items():
        headers = {"Origin": origin, "Authorization": "Bearer sesame", "Cookie": "a=b"}
        preflight = httpx.options(
            f"{server.url}/v1/models", headers={**headers, "Access-Control-Request-Method": "GET"}
        )
        answers = (preflight, get(server, "/health", headers=headers), get(server, "/nowhere", headers=headers))
        for answer in answers:
            assert "access-control-allow-credentials" not in answer.headers
            told = answer.headers.get("access-control-allow-origin")
            assert told == (("*" if "*" in origins else origin) if is_allowed else None), (origin, answer)
            assert "*" in origins or "Origin" in answer.headers["vary"]
        refused = not is_allowed and not keys
        assert [answer.status_code for answer in answers[1:]] == ([403, 403] if refused else [200, 404])
        assert preflight.status_code == (200 if is_allowed else 400)


def test_the_openapi_document_is_whole(server: Server) -> None:
    """Every reference in it leads somewhere, the completion's body is described, and so is the bearer key."""
    document = httpx.get(f"{server.url}/openapi.json").json()
    assert "422" not in {
        status for path in document["paths"].values() for each in path.values() for status in each["responses"]
    }
    references = set(re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document)))
    assert references <= document["components"]["schemas"].keys()
    body = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/ChatCompletionRequest"}
    assert document["components"]["schemas"]["ChatCompletionRequest"]["required"] == ["model", "messages"]
    shapes = document["components"]["schemas"]
    assert {"role", "content", "refusal"} <= shapes["AnswerMessage"]["properties"].keys()
    assert {"prompt_tokens", "completion_tokens"} <= shapes["CompletionUsage"]["properties"].keys()
    assert {"type": "string"} in shapes["ChatCompletionRequest"]["properties"]["stop"]["anyOf"]
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
