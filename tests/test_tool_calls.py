"""The calls of Claude Code's own tools, by themselves: from pieces to events, until it is known what came of them."""

from tool_calls import OwnToolCalls
from turns import OwnToolEnded, OwnToolInput, OwnToolStarted


def test_a_call_begins_is_written_and_ends() -> None:
    """Its pieces make its input; what came of it is told once, and only of calls that were begun."""
    calls = OwnToolCalls()
    assert not calls.has_begun
    assert calls.begin("a", "Read") == OwnToolStarted("a", "Read")
    assert calls.is_writing
    for piece in ('{"file', '_path": "x"}'):
        calls.write(piece)
    assert calls.end() == OwnToolInput("a", "Read", {"file_path": "x"})
    assert not calls.is_writing
    assert calls.has_begun
    assert calls.answer("a", "content", is_error=False) == OwnToolEnded("a", "Read", "result", "content")
    assert calls.answer("a", "again", is_error=False) is None
    assert calls.answer("of a function", "x", is_error=False) is None


def test_arguments_may_be_missing_or_broken() -> None:
    """Then there is no input to tell."""
    calls = OwnToolCalls()
    calls.begin("a", "Bash")
    assert calls.end().input == {}
    calls.begin("b", "Bash")
    calls.write('{"command": ')
    assert calls.end().input == {}


def test_results_are_summed_up() -> None:
    """Their texts, as far as they go; errors as such; and why a call was denied."""
    calls = OwnToolCalls({"d": "it is outside"})
    for name in "abcd":
        calls.begin(name, "Read")
        calls.end()
    blocks = [{"type": "text", "text": "one"}, {"type": "image", "source": {}}, "no block"]
    ended = [
        calls.answer("a", blocks, is_error=False),
        calls.answer("b", "x" * 1000, is_error=True),
        calls.answer("c", None, is_error=False),
        calls.answer("d", "told to the model", is_error=True),
    ]
    assert [(each.outcome, each.summary) for each in ended if each] == [
        ("result", "one\n[image]"),
        ("error", "x" * 500 + "…"),
        ("result", ""),
        ("denied", "it is outside"),
    ]
