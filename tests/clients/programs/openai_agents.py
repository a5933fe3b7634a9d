"""Agents of openai-agents: the one that is asked hands over to the one with the functions, which answers.

With `typed`: one that answers with an object.

openai_agents.py MODEL QUESTION run|stream|typed
"""

import asyncio
import json
import sys
from collections import Counter
from typing import Any

from agents import (
    Agent,
    ModelSettings,
    Runner,
    RunResult,
    RunResultStreaming,
    function_tool,
    set_default_openai_api,
    set_tracing_disabled,
)
from functions import City, compare, get_temperature


def reception(model: str) -> Agent:
    """The agent to ask. It has no functions, but may hand over to one that has."""
    settings = ModelSettings(include_usage=True)  # Else it doesn't ask for it in streams, but of OpenAI itself.
    weather = Agent(
        name="Weather",
        handoff_description="Knows temperatures.",
        instructions="You know temperatures.",
        tools=[function_tool(get_temperature), function_tool(compare)],
        model=model,
        model_settings=settings,
    )
    return Agent(
        name="Reception",
        instructions="Hand over to who knows.",
        handoffs=[weather],
        model=model,
        model_settings=settings,
    )


def summary(result: RunResult | RunResultStreaming, events: Counter[str]) -> dict[str, Any]:
    """What came out, as JSON's values."""
    return {
        "answer": result.final_output,
        "agent": result.last_agent.name,
        "items": [item.type for item in result.new_items],
        "requests": result.context_wrapper.usage.requests,
        "total_tokens": result.context_wrapper.usage.total_tokens,
        "events": events,
    }


async def typed(model: str, question: str) -> dict[str, Any]:
    """Have an object for an answer, whole and at the end of a stream."""
    agent = Agent(name="Reception", instructions="Be exact.", output_type=City, model=model)
    whole = await Runner.run(agent, question)
    streaming = Runner.run_streamed(agent, question)
    async for _ in streaming.stream_events():
        pass
    return {
        "whole": whole.final_output_as(City).model_dump(),
        "streamed": streaming.final_output_as(City).model_dump(),
    }


async def main(model: str, question: str, mode: str) -> None:
    """Ask, and print what came out."""
    set_default_openai_api("chat_completions")
    set_tracing_disabled(disabled=True)
    events: Counter[str] = Counter()
    if mode == "typed":
        print(json.dumps(await typed(model, question)))
    elif mode == "stream":
        streaming = Runner.run_streamed(reception(model), question)
        async for event in streaming.stream_events():
            events[event.data.type if event.type == "raw_response_event" else event.type] += 1
        print(json.dumps(summary(streaming, events)))
    else:
        print(json.dumps(summary(await Runner.run(reception(model), question), events)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
