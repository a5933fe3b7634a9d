"""Instructor: objects in all its modes for chat completions, whole, in parts, and several."""

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import ServerFactory
from demo_upstream import Reply, ToolCall
from published_clients import CITY, MODEL, OPENAI2, PROPERTIES, QUESTION, demanded, printed, run_python

Json = dict[str, Any]

PARIS: Json = {"name": "Paris", "people": 2_100_000}
TIBER: Json = {"name": "Tiber", "kilometres": 405}


BY_TOOLS = [("City", PROPERTIES), ("PartialCity", PROPERTIES), ("IterableCity", ["tasks"])]
BY_FORMAT = [("format", PROPERTIES), ("format", PROPERTIES), ("format", ["tasks"])]
FORMS: dict[str, list[tuple[str, list[str]]]] = {
    "TOOLS": BY_TOOLS,
    "TOOLS_STRICT": BY_TOOLS,
    "FUNCTIONS": BY_TOOLS,
    "JSON": [("auto", [])] * 3,
    "JSON_SCHEMA": BY_FORMAT,
    "JSON_O1": BY_FORMAT,
    "MD_JSON": [("nothing", [])] * 3,
}


def reply_in(mode: str, form: str, value: Json) -> Reply:
    """How the model answers: as a function's input, as JSON that the API holds to, or as JSON in its text."""
    if FORMS[mode] is BY_TOOLS:
        return Reply(tool_calls=[ToolCall(form, value)])
    if mode == "JSON":
        return Reply(tool_calls=[ToolCall("StructuredOutput", value)])
    text = json.dumps(value)
    return Reply(text=f"```json\n{text}\n```" if mode == "MD_JSON" else text)


@pytest.mark.parametrize("mode", FORMS)
def test_objects_whole_in_parts_and_several(serve: ServerFactory, tmp_path: Path, mode: str) -> None:
    """Each mode has its own way to ask, and to read what comes."""
    server = serve()
    for (form, _), value in zip(FORMS[mode], [CITY, CITY, {"tasks": [CITY, PARIS]}], strict=True):
        server.upstream.script(reply_in(mode, form, value))
    arguments = ["instructor_modes.py", MODEL, QUESTION, mode]
    result = printed(run_python(arguments, server, tmp_path, OPENAI2))
    assert (result["whole"], result["several"]) == (CITY, [CITY, PARIS])
    assert result["parts"][-1] == CITY
    assert {"name": "Rome", "people": None} in result["parts"]
    assert demanded(server.upstream) == FORMS[mode]


def test_calls_side_by_side(serve: ServerFactory, tmp_path: Path) -> None:
    """Objects of two kinds, each by a call of its own."""
    server = serve()
    server.upstream.script(Reply(tool_calls=[ToolCall("City", CITY), ToolCall("River", TIBER)]))
    arguments = ["instructor_modes.py", MODEL, QUESTION, "PARALLEL_TOOLS"]
    result = printed(run_python(arguments, server, tmp_path, OPENAI2))
    assert result == {"several": [["City", CITY], ["River", TIBER]]}
