"""What becomes of the turns of random clients: what the upstream does, and when a client leaves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from demo_upstream import Reply, ToolCall

Json = dict[str, Any]

_OK = 200


@dataclass(frozen=True)
class Fate:
    """What becomes of a turn. `{}` in the reply's texts stands for the turn's own mark."""

    name: str
    reply: Reply = field(repr=False)
    status: int = field(default=_OK, repr=False)
    finish: str = field(default="stop", repr=False)
    breaks_off: bool = field(default=False, repr=False)
    leaves: Literal["at once", "before", "after"] | None = field(default=None, repr=False)
    offers: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What the request has to have for it: functions that are called."""
    is_raced: bool = field(default=False, repr=False)
    """Claude Code would ask again by itself, and its process has to be killed within some ms (docs/adr/0002)."""


def function(name: str, **properties: Any) -> Json:
    """A function of a client's."""
    schema = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "description": f"{name} 漢", "parameters": schema}}


# One and the same name with two schemas, and the same functions in two orders.
WEATHER, TIME = function("weather", city={"type": "string"}), function("time")
OTHER_WEATHER = function("weather", place={"$ref": "#/$defs/place"})
OFFERS: tuple[Json, ...] = (
    {"tools": [WEATHER, TIME]},
    {"tools": [TIME, WEATHER], "tool_choice": "required"},
    {"tools": [OTHER_WEATHER, function("Read")], "parallel_tool_calls": False},
    {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
    {"tools": [TIME], "tool_choice": "none"},
)


def _error(status: int, seen: int) -> Fate:
    return Fate(f"HTTP {status}", Reply(status=status, error_message="no such luck"), status=seen)


ANSWERS = (
    Fate("answered", Reply(text=["Answer ", "to {}"])),
    Fate("answered", Reply(text=["\n\n Yes, ", "{} \n"])),
    Fate("answered", Reply(text=["<system-reminder>{}</system-reminder>", " 🙂\u2028"])),
    Fate("answered", Reply(text=["Thought", " {}"], thinking="A thought for {}")),
)
CALLS = (
    Fate(
        "called",
        Reply(text=["Look ", "{}"], tool_calls=[ToolCall("weather", {"city": "Zürich {}"})]),
        finish="tool_calls",
        offers=OFFERS[0],
    ),
    Fate(
        "called",
        Reply(tool_calls=[ToolCall("time", {}), ToolCall("weather", {"city": "{}"}), ToolCall("time", {"of": ["{}"]})]),
        finish="tool_calls",
        offers=OFFERS[1],
    ),
    Fate(
        "called",
        Reply(text=["\n\nSee {}"], thinking="A thought for {}", tool_calls=[ToolCall("weather", {"place": None})]),
        finish="tool_calls",
        offers=OFFERS[2],
    ),
)
FATES = (
    *ANSWERS * 5,
    *CALLS * 3,
    Fate(
        "left after",
        Reply(text=["First "], tool_calls=[ToolCall("time", {"of": "{}"})]),
        leaves="after",
        offers=OFFERS[0],
    ),
    Fate("cut", Reply(tool_calls=[ToolCall("time", {"of": "{}"})], cut_after=1), breaks_off=True, offers=OFFERS[1]),
    Fate("broken", Reply(text=["One {}"], more_text=["two"], error_after=1), breaks_off=True, is_raced=True),
    Fate(
        "broken",
        Reply(text=["One {}"], tool_calls=[ToolCall("time", {})], error_after=2),
        breaks_off=True,
        is_raced=True,
        offers=OFFERS[1],
    ),
    Fate("answered", Reply(text=["Stopped ", "{}"], stop_reason="stop_sequence")),
    Fate("empty", Reply(text=[]), is_raced=True),
    Fate("empty", Reply(text=["\n", " "]), is_raced=True),
    Fate("empty", Reply(text=[], stop_reason="stop_sequence"), is_raced=True),
    Fate("max_tokens", Reply(text=["Half an ", "ans{}"], stop_reason="max_tokens"), finish="length", is_raced=True),
    Fate("refused", Reply(text=["No ", "{}"], stop_reason="refusal"), finish="content_filter"),
    Fate(
        "unasked call",
        Reply(text=["Wait ", "{}"], tool_calls=[ToolCall("nothing", {})]),
        finish="tool_calls",
        is_raced=True,
    ),
    *(_error(*statuses) for statuses in ((400, 400), (401, 401), (404, 404), (413, 413), (422, 422))),
    *(_error(*statuses) for statuses in ((429, 429), (500, 500), (529, 503))),
    Fate("cut", Reply(text=["One ", "two {}"], cut_after=0), breaks_off=True),
    Fate("cut", Reply(text=["One ", "two {}"], cut_after=1), breaks_off=True),
    Fate("cut", Reply(text=["One ", "two {}"], error_after=1), breaks_off=True),
    Fate("left at once", Reply(text=["Nobody ", "hears {}"]), leaves="at once"),
    Fate("left before", Reply(hang=True), leaves="before"),
    Fate("left after", Reply(text=["First ", "second {}"]), leaves="after"),
)
