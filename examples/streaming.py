"""Read an answer while it is written, with many others at the same time.

    pip install openai
    python examples/streaming.py "Name a river." "Name a lake."

Which server, and with which key: see connection.py.
"""

import asyncio
import sys

from connection import API_KEY, BASE_URL, check_server
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk


async def read(stream: AsyncStream[ChatCompletionChunk]) -> tuple[str, int]:
    """Put a stream together. Its last chunk, which has no choices, tells the tokens."""
    text, tokens = "", 0
    async for chunk in stream:
        if chunk.usage:
            tokens = chunk.usage.total_tokens
        for choice in chunk.choices:
            print(".", end="", flush=True)
            text += choice.delta.content or ""
    return text, tokens


async def main(questions: list[str]) -> None:
    """Ask all questions at once; a dot is a chunk."""
    async with AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY) as client:

        async def ask(question: str) -> tuple[str, int]:
            stream = await client.chat.completions.create(
                model="sonnet",
                messages=[{"role": "user", "content": question}],
                stream=True,
                stream_options={"include_usage": True},
            )
            return await read(stream)

        answers = await asyncio.gather(*map(ask, questions))
    print()
    for question, (text, tokens) in zip(questions, answers, strict=True):
        print(f"{question} {text} ({tokens} tokens)")


if __name__ == "__main__":
    check_server()
    asyncio.run(main(sys.argv[1:] or ["Name a river.", "Name a lake."]))
