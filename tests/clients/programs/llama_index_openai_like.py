"""LlamaIndex over its class for servers like OpenAI's: a chat, a stream, functions, an object and a picture.

llama_index_openai_like.py MODEL QUESTION chat|stream|functions|object|picture
"""

import asyncio
import json
import os
import sys
from typing import Any

from functions import DOT, City, compare, get_temperature
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.llms.openai_like import OpenAILike


async def chat(model: OpenAILike, question: str) -> dict[str, Any]:
    """Ask with a system prompt."""
    messages = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content=question)]
    return {"answer": (await model.achat(messages)).message.content}


async def stream(model: OpenAILike, question: str) -> dict[str, Any]:
    """Take the answer in pieces."""
    pieces = [
        piece.delta or "" async for piece in await model.astream_chat([ChatMessage(role="user", content=question)])
    ]
    return {"answer": "".join(pieces), "pieces": len(pieces)}


async def functions(model: OpenAILike, question: str) -> dict[str, Any]:
    """Let an agent call functions until the answer; it streams."""
    agent = FunctionAgent(tools=[get_temperature, compare], llm=model)
    return {"answer": str(await agent.run(user_msg=question))}


async def an_object(model: OpenAILike, question: str) -> dict[str, Any]:
    """Have a pydantic model filled."""
    filled: Any = await model.as_structured_llm(City).achat([ChatMessage(role="user", content=question)])
    return {"answer": filled.raw.model_dump()}


async def picture(model: OpenAILike, question: str) -> dict[str, Any]:
    """Show a picture."""
    message = ChatMessage(role="user", blocks=[TextBlock(text=question), ImageBlock(image=DOT)])
    return {"answer": (await model.achat([message])).message.content}


def main(name: str, question: str, mode: str) -> None:
    """Ask, and print what came out."""
    model = OpenAILike(
        api_base=os.environ["OPENAI_BASE_URL"],
        model=name,
        is_chat_model=True,
        is_function_calling_model=True,
        context_window=200_000,
        max_retries=0,
    )
    play = {"chat": chat, "stream": stream, "functions": functions, "object": an_object, "picture": picture}[mode]
    print(json.dumps(asyncio.run(play(model, question))))


if __name__ == "__main__":
    main(*sys.argv[1:])
