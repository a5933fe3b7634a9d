"""Let Claude think, and see what it thinks.

    pip install openai
    python examples/reasoning.py high "How many squares are there on a chessboard?"

Which server, and with which key: see connection.py.
"""

import sys
from typing import Any

from connection import connect


def main(effort: Any, question: str) -> None:
    """Ask, and print first the thoughts, then the answer, while they are written, and what they took."""
    client = connect()
    stream = client.chat.completions.create(
        model="sonnet",
        reasoning_effort=effort,
        messages=[{"role": "user", "content": question}],
        stream=True,
        stream_options={"include_usage": True},
    )
    answering = False
    for chunk in stream:
        if chunk.usage and chunk.usage.completion_tokens_details:
            print(
                f"\n{chunk.usage.completion_tokens_details.reasoning_tokens} of {chunk.usage.completion_tokens} tokens"
            )
        for choice in chunk.choices:
            # OpenAI's own types don't know this field; its client passes it on all the same.
            print(getattr(choice.delta, "reasoning_content", None) or "", end="", flush=True)
            if choice.delta.content and not answering:
                answering = True
                print("\n---")
            print(choice.delta.content or "", end="", flush=True)


if __name__ == "__main__":
    effort, *words = sys.argv[1:] or ["medium"]
    main(effort, " ".join(words) or "How many squares are there on a chessboard?")
