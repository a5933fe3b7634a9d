"""LiteLLM as a client, by its provider for OpenAI's: functions, a stream, an object, and errors.

litellm_completion.py MODEL QUESTION functions|stream|object|errors
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # Else it looks for prices in the net first.

import litellm
from functions import City, compare, get_temperature
from openai import OpenAIError

TEXT = {"type": "string"}


FUNCTIONS: dict[str, Callable[..., str]] = {"get_temperature": get_temperature, "compare": compare}


def tool(name: str, *parameters: str) -> dict[str, Any]:
    """A function that takes texts."""
    schema = {"type": "object", "properties": dict.fromkeys(parameters, TEXT), "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


TOOLS = [tool("get_temperature", "city"), tool("compare", "first", "second")]


def complete(model: str, messages: list[Any], **options: Any) -> Any:
    """Ask a server of OpenAI's kind."""
    return litellm.completion(model=f"openai/{model}", messages=messages, max_retries=0, **options)


def functions(model: str, messages: list[Any]) -> dict[str, Any]:
    """Call what the model asks for, until it answers."""
    while True:
        message = complete(model, messages, tools=TOOLS).choices[0].message
        if not message.tool_calls:
            return {"answer": message.content}
        messages.append(message)
        for call in message.tool_calls:
            content = FUNCTIONS[call.function.name](**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": content})


def stream(model: str, messages: list[Any]) -> dict[str, Any]:
    """Take the answer in pieces, and put them together as LiteLLM does."""
    chunks = list(complete(model, messages, stream=True, stream_options={"include_usage": True}))
    built: Any = litellm.stream_chunk_builder(chunks)
    return {
        "answer": built.choices[0].message.content,
        "pieces": len([chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]),
        "total_tokens": built.usage.total_tokens,
    }


def an_object(model: str, messages: list[Any]) -> dict[str, Any]:
    """Have a pydantic model filled."""
    content = complete(model, messages, response_format=City).choices[0].message.content
    return {"answer": City.model_validate_json(content).model_dump()}


def error(model: str, messages: list[Any], temperature: float) -> str | None:
    """Ask, and tell which of LiteLLM's exceptions comes of it."""
    try:
        complete(model, messages, temperature=temperature)
    except OpenAIError as problem:  # As all of LiteLLM's are.
        return type(problem).__name__
    return None


def errors(model: str, messages: list[Any]) -> dict[str, Any]:
    """Ask in vain, first for what no server has."""
    return {"errors": [error(model, messages, temperature) for temperature in (9, 1, 1, 1, 1)]}


def main(model: str, question: str, mode: str) -> None:
    """Ask, and print what came out."""
    messages: list[Any] = [{"role": "user", "content": question}]
    print(
        json.dumps(
            {"functions": functions, "stream": stream, "object": an_object, "errors": errors}[mode](model, messages)
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
