"""How fast Claude Code answers through our server, as ratios to what it does alone: `make bench`.

Everything is measured in one run on one machine, against a stand-in for the model that answers at once. Absolute times
say little on another machine; the ratios are the verdict, and the exit status.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import httpx
import openai
import psutil

from lanes import MODEL, Lane, RawLane, Sample, ServerLane, SpawningLane, raw_lane
from stage import KEYS, OurServer, Stage, claude_environment, launch_profile, scrub, set_up

PROCESSES = 8
SPARES = 2  # As the server has it by default.
CROWD = 40
TURNS = 20
# Without it TCP's delayed acknowledgement, on loopback, adds 40 ms to what a process asks at once after an answer: (b)
# would suffer, and (c), which has several processes, would look better than it is.
PAUSE = 0.05
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather in a city now.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
MODELS = ("claude-sonnet-4-5", "claude-opus-4-1", "claude-haiku-4-5")


@dataclass(frozen=True)
class Row:
    """One line of the table: seconds, or what `unit` says."""

    name: str
    value: float
    unit: str = "ms"

    def __str__(self) -> str:
        """Format for the table."""
        return f"{self.name:<58} {self.value * 1000 if self.unit == 'ms' else self.value:>9.1f} {self.unit}"


@dataclass(frozen=True)
class Verdict:
    """A ratio, and what it has to be."""

    name: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def reached(self) -> bool:
        """Whether the ratio is as it has to be."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        """Format for the table."""
        sign, mark = "≥" if self.at_least else "≤", "reached" if self.reached else "MISSED"
        return f"{self.name:<58} {self.value:>9.2f} {sign} {self.limit:g}  {mark}"


class Report:
    """What was measured so far, printed as it comes."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.rows: list[Row] = []
        self.verdicts: list[Verdict] = []

    def add(self, *rows: Row | Verdict) -> None:
        """Note and print."""
        for row in rows:
            print(row, flush=True)
            if isinstance(row, Row):
                self.rows.append(row)
            else:
                self.verdicts.append(row)


def prompts() -> Iterator[tuple[str, str]]:
    """Yield system prompts and prompts that nobody has sent before."""
    number = 0
    while True:
        number += 1
        yield f"You are number {number}.", f"Say {number}."


FRESH = prompts()


async def one_by_one(lane: Lane, count: int, pause: float = 0) -> list[Sample]:
    """Ask `count` times, one after the other, `pause` seconds apart."""
    samples: list[Sample] = []
    for _ in range(count):
        samples.append(await lane.ask(*next(FRESH)))
        await anyio.sleep(pause)
    return samples


async def side_by_side(lanes: Sequence[Lane], count: int) -> tuple[list[Sample], float]:
    """Let every lane ask `count` times, all at once; return the requests a second, too."""
    samples: list[Sample] = []

    async def run(lane: Lane) -> None:
        samples.extend(await one_by_one(lane, count))

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for lane in lanes:
            tasks.start_soon(run, lane)
    answered = [sample for sample in samples if sample.status == HTTPStatus.OK]
    return samples, len(answered) / (time.perf_counter() - began)


async def while_all_ask(lanes: Sequence[Lane], warm: int, count: int) -> tuple[list[Sample], float]:
    """Let every lane ask until each has asked `warm` and then `count` times; return `count`, and the answers a second.

    So all that is measured has the same company: where the first comers stop, the others share what they leave.
    """
    answers: list[list[Sample]] = [[] for _ in lanes]

    async def run(lane: Lane, samples: list[Sample]) -> None:
        while min(map(len, answers)) < warm + count:
            samples.append(await lane.ask(*next(FRESH)))

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for lane, samples in zip(lanes, answers, strict=True):
            tasks.start_soon(run, lane, samples)
    answered = [sample for samples in answers for sample in samples if sample.status == HTTPStatus.OK]
    rate = len(answered) / (time.perf_counter() - began)
    return [sample for samples in answers for sample in samples[warm : warm + count]], rate


def first(samples: Sequence[Sample]) -> float:
    """Return the median time to the first text."""
    return statistics.median(sample.first for sample in samples if sample.first is not None)


def total(samples: Sequence[Sample]) -> float:
    """Return the median time to the end."""
    return statistics.median(sample.total for sample in samples)


def _parameters(number: int) -> dict[str, Any]:
    """Parameters of every kind, other ones for each number."""
    schema = {"type": "object", "properties": {f"answer_{number}": {"type": "string"}}, "additionalProperties": False}
    return {
        "temperature": 0.1 + number / 100,
        "stop": [f"END {number}"],
        "max_tokens": 20_000 + number,
        "reasoning_effort": ("low", "medium", "high", "none")[number % 4],
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
    }


def most(values: Sequence[float]) -> float:
    """Return the value below which 95 % of them are."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


class Bench:
    """The parts of a run, in their order."""

    def __init__(self, stage: Stage, client: httpx.AsyncClient, keys: Sequence[str], report: Report) -> None:
        """Measure what `client` talks to against what runs on the stage."""
        self._stage, self._client, self._keys, self._report = stage, client, keys, report

    def _lanes(self, count: int, **options: Any) -> list[ServerLane]:
        return [ServerLane(self._client, self._keys[0], **options) for _ in range(count)]

    async def alone(self) -> None:
        """(a), (b) and (c) for one client: the time to the first text of a new conversation."""
        spawning = SpawningLane(claude_environment(self._stage.upstream))
        async with raw_lane(launch_profile(self._stage.upstream)) as raw:
            streaming, whole = self._lanes(1)[0], self._lanes(1, stream=False)[0]
            await side_by_side(self._lanes(PROCESSES), 4)  # warm
            await one_by_one(raw, 10)
            spawned, floor, ours, wholes = list[Sample](), list[Sample](), list[Sample](), list[Sample]()
            for _ in range(5):  # in turns, so that a noisy moment hits all of them
                spawned += await one_by_one(spawning, 1)
                floor += await one_by_one(raw, 15, PAUSE)
                ours += await one_by_one(streaming, 15, PAUSE)
                wholes += await one_by_one(whole, 5, PAUSE)
        self._report.add(
            Row("(a) a process for every request: first text", first(spawned)),
            Row("(b) one recycled process, no server: first text", first(floor)),
            Row("(c) server, 1 client, new conversations: first text", first(ours)),
            Row("(c) server, 1 client, not streamed: whole answer", total(wholes)),
            Verdict("(c) / (b), first text", first(ours) / first(floor), 1.5),
            Verdict("(a) / (c), first text", first(spawned) / first(ours), 10, at_least=True),
        )

    async def together(self) -> None:
        """(a), (b) and (c) for 8 clients: requests a second."""
        spawning = [SpawningLane(claude_environment(self._stage.upstream)) for _ in range(PROCESSES)]
        _, spawned = await side_by_side(spawning, 2)
        async with AsyncExitStack() as stack:
            profile = launch_profile(self._stage.upstream)
            raw: list[RawLane] = [await stack.enter_async_context(raw_lane(profile)) for _ in range(PROCESSES)]
            await side_by_side(raw, 4)
            await side_by_side(self._lanes(PROCESSES), 4)
            floor, ours, samples = list[float](), list[float](), list[Sample]()
            for _ in range(3):
                floor.append((await side_by_side(raw, 12))[1])
                more, rate = await side_by_side(self._lanes(PROCESSES), 12)
                samples += more
                ours.append(rate)
        _, wholes = await side_by_side(self._lanes(PROCESSES, stream=False), 12)
        ours_rate, floor_rate = statistics.median(ours), statistics.median(floor)
        self._report.add(
            Row("(a) 8 clients", spawned, "requests/s"),
            Row("(b) 8 processes, no server", floor_rate, "requests/s"),
            Row("(c) server, 8 clients", ours_rate, "requests/s"),
            Row("(c) server, 8 clients, not streamed", wholes, "requests/s"),
            Row("(c) server, 8 clients: first text", first(samples)),
            Verdict("(c) / (a), requests a second, 8 clients", ours_rate / spawned, 10, at_least=True),
            Verdict("(c) / (b), requests a second, 8 clients", ours_rate / floor_rate, 0.7, at_least=True),
        )

    async def crowd(self) -> None:
        """(c) for 40 clients of several keys: nothing fails, and nobody is favoured."""
        lanes = [ServerLane(self._client, self._keys[number % len(self._keys)]) for number in range(CROWD)]
        samples, rate = await while_all_ask(lanes, warm=3, count=6)
        failed = Counter(
            sample.status for sample in samples if sample.status not in (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE)
        )
        waits = {key: most([each.waited or each.total for each in samples if each.key == key]) for key in {*self._keys}}
        self._report.add(
            Row("(c) server, 40 clients", rate, "requests/s"),
            Row("(c) server, 40 clients: first text", first(samples)),
            Row("(c) server, 40 clients: 95 % have their answer within", most([s.total for s in samples])),
            Row(
                "(c) server, 40 clients: refused with a 503",
                sum(s.status == HTTPStatus.SERVICE_UNAVAILABLE for s in samples),
                "requests",
            ),
            Verdict("(c) 40 clients: failures other than a 503", failed.total(), 0),
            Verdict(
                "(c) 40 clients: longest / shortest wait of a key, 95 %", max(waits.values()) / min(waits.values()), 1.5
            ),
        )

    async def conversation(self) -> None:
        """(d) A plain openai client resends a conversation of 20 turns, turn by turn."""
        runs = [await anyio.to_thread.run_sync(self._converse) for _ in range(3)]
        by_turn = [statistics.median(turn) for turn in zip(*runs, strict=True)]
        self._report.add(
            Row("(d) turn 2: first text", by_turn[1]),
            Row(f"(d) turn {TURNS}: first text", by_turn[-1]),
            # Neighbours together: one turn alone is one throw of the dice.
            Verdict(
                f"(d) turn {TURNS} / turn 2", statistics.median(by_turn[-3:]) / statistics.median(by_turn[1:4]), 1.5
            ),
        )

    def _converse(self) -> list[float]:
        times: list[float] = []
        system, prompt = next(FRESH)
        messages: list[Any] = [{"role": "system", "content": system}]
        with openai.OpenAI(base_url=str(self._client.base_url), api_key=self._keys[0], max_retries=0) as client:
            for number in range(TURNS):
                messages.append({"role": "user", "content": f"{prompt} And {number}."})
                began, text = time.perf_counter(), ""
                for chunk in client.chat.completions.create(model=MODEL, messages=messages, stream=True):
                    if piece := chunk.choices[0].delta.content:
                        if not text:
                            times.append(time.perf_counter() - began)
                        text += piece
                messages.append({"role": "assistant", "content": text})
                time.sleep(PAUSE)
        return times

    async def day(self) -> None:
        """(e) A day of mixed traffic in small: keys, models, system prompts, conversations, edits."""
        samples: list[Sample] = []
        async with anyio.create_task_group() as tasks:
            for number in range(PROCESSES):
                tasks.start_soon(self._user, random.Random(number), self._keys[number % len(self._keys)], samples)
        origins = Counter(sample.origin for sample in samples)
        self._report.add(
            Row("(e) mixed traffic: first text", first(samples)),
            Row("(e) mixed traffic: 95 % have it within", most([s.first or s.total for s in samples])),
            *(
                Row(f"(e) mixed traffic: {origin}", 100 * count / len(samples), "%")
                for origin, count in origins.items()
                if origin
            ),
            Verdict("(e) mixed traffic: failures", sum(sample.status != HTTPStatus.OK for sample in samples), 0),
        )

    async def _user(self, dice: random.Random, key: str, samples: list[Sample]) -> None:
        for _ in range(5):
            lane = ServerLane(self._client, key, model=dice.choice(MODELS))
            messages: list[dict[str, str]] = [{"role": "system", "content": f"You are helper {dice.randrange(3)}."}]
            for turn in range(dice.randrange(1, 7)):
                messages.append({"role": "user", "content": f"{dice.random()}"})
                sample, text = await lane.converse(messages)
                samples.append(sample)
                messages.append({"role": "assistant", "content": text})
                if turn and dice.random() < 0.2:  # noqa: PLR2004 - one turn in five is followed by an edit
                    del messages[-4:]

    async def functions(self) -> None:
        """(g) A function's round trip: from its result to the first text, beside the next turn of a conversation."""
        lane, warm, trips = self._lanes(1)[0], list[Sample](), list[Sample]()
        for _ in range(40):
            warm.append(await self._next_turn(lane))
            trips.append(await self._round_trip(lane))
        self._report.add(
            Row("(c) server, next turn of a conversation: first text", first(warm)),
            Row("(g) result of a function: first text", first(trips)),
            Verdict("(g) / (c), first text", first(trips) / first(warm), 1.5),
        )
        if any(sample.origin for sample in trips):  # Another server doesn't tell.
            elsewhere = sum(sample.origin != "adopted" for sample in trips)
            self._report.add(Verdict("(g) results that found no waiting turn", elsewhere, 0))

    async def _next_turn(self, lane: ServerLane) -> Sample:
        system, prompt = next(FRESH)
        messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        _, text = await lane.converse(messages)
        await anyio.sleep(PAUSE)
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "And now?"}]
        return (await lane.converse(messages))[0]

    async def _round_trip(self, lane: ServerLane) -> Sample:
        system, prompt = next(FRESH)
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        message = await lane.call(messages, TOOLS)
        await anyio.sleep(PAUSE)
        results = [
            {"role": "tool", "tool_call_id": call["id"], "content": "21 °C, sunny"} for call in message["tool_calls"]
        ]
        return (await lane.converse([*messages, message, *results], tools=TOOLS))[0]

    async def parameters(self) -> None:
        """(h) New conversations with parameters, the same ones each time and others, beside such without."""
        lane, plain, same, others = self._lanes(1)[0], list[Sample](), list[Sample](), list[Sample]()
        for number in range(45):  # in turns, so that a noisy moment hits all of them
            plain.append(await self._new_conversation(lane, {}))
            same.append(await self._new_conversation(lane, _parameters(0)))
            same.append(await self._new_conversation(lane, _parameters(0)))
            others.append(await self._new_conversation(lane, _parameters(number)))
        floor = first(plain)
        self._report.add(
            Row("(h) without parameters: first text", floor),
            Row("(h) the same parameters as before: first text", first(same[1::2])),
            Row("(h) other parameters than before: first text", first(others)),
            Verdict("(h) the same parameters, more than without, ms", (first(same[1::2]) - floor) * 1000, 10),
            Verdict("(h) other parameters, more than without, ms", (first(others) - floor) * 1000, 10),
        )

    async def _new_conversation(self, lane: ServerLane, parameters: dict[str, Any]) -> Sample:
        system, prompt = next(FRESH)
        messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        sample, _ = await lane.converse(messages, **parameters)
        await anyio.sleep(PAUSE)
        return sample

    async def memory(self, server: OurServer) -> None:
        """(f) The memory of the server and of its processes, before and after 1,000 requests."""
        before, _ = server.memory()
        await side_by_side(self._lanes(PROCESSES), 1000 // PROCESSES)
        after, largest = server.memory()
        self._report.add(
            Row("(f) server, before", before, "MB"),
            Row("(f) server, after 1,000 requests", after, "MB"),
            Row("(f) its largest process then", largest, "MB"),
            Verdict("(f) the server's memory, MB", after, 130),
            Verdict("(f) after / before", after / before, 1.1),
            Verdict("(f) its largest process, MB", largest, 600),
            Verdict("(f) its processes", len(server.processes()), PROCESSES + SPARES),
        )


async def measure(stage: Stage, base_url: str | None, keys: Sequence[str], report: Report) -> None:
    """Run all parts."""
    url = base_url or (f"{stage.server.url}/v1" if stage.server else "")
    limits = httpx.Limits(max_connections=CROWD)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits, trust_env=False) as client:
        bench = Bench(stage, client, keys, report)
        early: list[Callable[[], Any]] = [bench.alone, bench.together, bench.crowd]
        for part in [*early, bench.conversation, bench.day, bench.functions, bench.parameters]:
            await part()
        if stage.server:
            await bench.memory(stage.server)


def main() -> int:
    """Run the benchmark; return 1 where a ratio isn't reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url", help="another OpenAI-compatible server, with its /v1; it should use the upstream")
    parser.add_argument("--api-key", default=None, help="a key of that server")
    parser.add_argument("--json", type=Path, default=Path("bench/results.json"), help="where to write the figures")
    options = parser.parse_args()
    report = Report()
    keys = [options.api_key or "none"] if options.base_url else KEYS
    with ExitStack() as stack:
        scrub(stack.enter_context(TemporaryDirectory(prefix="claude-wrapper-bench-", ignore_cleanup_errors=True)))
        stage = stack.enter_context(set_up(with_server=not options.base_url, processes=PROCESSES))
        anyio.run(measure, stage, options.base_url, keys, report)
        children = stage.server.processes() if stage.server else []
    report.add(Verdict("processes left behind", len([child for child in children if _lives(child)]), 0))
    figures = {"rows": [asdict(row) for row in report.rows], "verdicts": [asdict(each) for each in report.verdicts]}
    options.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0 if all(verdict.reached for verdict in report.verdicts) else 1


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


if __name__ == "__main__":
    sys.exit(main())
