"""Let Claude Code look around in the server's working directory, and watch what it does.

    pip install openai
    python examples/agent.py "What files are in the current directory?"
What Claude may do there is the server's to say: docs/agent.md.

Which server, and with which key: see connection.py.
"""

import sys
from typing import Any

from connection import connect


def show(event: dict[str, Any]) -> None:
    """Tell what a tool does."""
    if event["type"] == "tool_input":
        print(f"\n[{event['name']}] {event['input']}")
    elif event["type"] == "tool_result":
        print(f"[{event['name']}] {event['summary'].splitlines()[0] if event['summary'] else 'done'}")
    elif event["type"] == "tool_denied":
        print(f"[{event['name']}] denied: {event['reason']}")


def main(question: str) -> None:
    """Ask, and print the text of every step, and between them the tools."""
    client = connect()
    stream = client.chat.completions.create(
        model="sonnet",
        messages=[{"role": "user", "content": question}],
        stream=True,
        extra_body={"enable_tools": True},
        extra_headers={"X-Claude-Events": "true"},
    )
    for chunk in stream:
        delta = chunk.choices[0].delta
        if event := getattr(delta, "claude_event", None):
            show(event)
        print(delta.content or "", end="", flush=True)
    print()


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "What files are in the current directory?")
