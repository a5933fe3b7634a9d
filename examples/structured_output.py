"""Get answers in a form of yours.

    pip install openai
    python examples/structured_output.py "The ferry to Naxos leaves at 7:30, for 42 euros."

Which server, and with which key: see connection.py.
"""

import sys

from connection import connect
from pydantic import BaseModel


class Departure(BaseModel):
    """A ship, and when it leaves; what a text doesn't tell is null."""

    destination: str
    time: str | None
    price: float | None


def main(text: str) -> None:
    """Have a text read, and print the JSON while it is written, then what it says."""
    client = connect()
    with client.chat.completions.stream(
        model="sonnet",
        messages=[{"role": "system", "content": "What departs?"}, {"role": "user", "content": text}],
        response_format=Departure,
    ) as stream:
        for event in stream:
            if event.type == "content.delta":
                print(event.delta, end="", flush=True)
        answer = stream.get_final_completion().choices[0].message
    print()
    if answer.parsed is None:
        print(f"Refused: {answer.refusal}")
    else:
        print(f"To {answer.parsed.destination} at {answer.parsed.time} for {answer.parsed.price}")


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "The ferry to Naxos leaves at 7:30, for 42 euros.")
