"""An agent of pydantic-ai: with functions, streamed, with either form of output, and shown a picture.

pydantic_ai_agent.py MODEL QUESTION run|stream|native|prompted|tool|picture
"""

import asyncio
import json
import sys
from dataclasses import asdict
from typing import Any

from functions import DOT, City, compare, get_temperature
from pydantic_ai import (
    Agent,
    AgentRunResultEvent,
    BinaryContent,
    NativeOutput,
    PartDeltaEvent,
    PromptedOutput,
    TextPartDelta,
    ToolOutput,
)
from pydantic_ai.models.openai import OpenAIChatModel

OUTPUTS: dict[str, Any] = {"native": NativeOutput(City), "prompted": PromptedOutput(City), "tool": ToolOutput(City)}


async def whole(model: OpenAIChatModel, question: str) -> dict[str, Any]:
    """Run an agent with functions until the answer."""
    result = await Agent(model, tools=[get_temperature, compare]).run(question)
    return {"answer": result.output, "usage": asdict(result.usage)}


async def streamed(model: OpenAIChatModel, question: str) -> dict[str, Any]:
    """The same, with all texts in pieces."""
    pieces = 0
    async with Agent(model, tools=[get_temperature, compare]).run_stream_events(question) as events:
        async for event in events:
            pieces += isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta)
            if isinstance(event, AgentRunResultEvent):
                return {"answer": event.result.output, "pieces": pieces, "usage": asdict(event.result.usage)}
    return {}


async def typed(model: OpenAIChatModel, question: str, mode: str) -> dict[str, Any]:
    """Have an object for an answer, whole and streamed."""
    agent: Agent[None, City] = Agent(model, output_type=OUTPUTS[mode])
    whole = await agent.run(question)
    async with agent.run_stream(question) as result:
        async for _ in result.stream_output(debounce_by=None):
            pass
        last = await result.get_output()
    return {"whole": whole.output.model_dump(), "streamed": last.model_dump()}


async def shown(model: OpenAIChatModel, question: str) -> dict[str, Any]:
    """Ask about a picture and a document."""
    document = BinaryContent(b"A note.", media_type="text/plain")
    result = await Agent(model).run([question, BinaryContent(DOT, media_type="image/png"), document])
    return {"answer": result.output}


async def main(name: str, question: str, mode: str) -> None:
    """Ask, and print what came out."""
    model = OpenAIChatModel(name)
    if mode in OUTPUTS:
        print(json.dumps(await typed(model, question, mode)))
    else:
        print(json.dumps(await {"run": whole, "stream": streamed, "picture": shown}[mode](model, question)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
