"""Let the server remember a conversation: send only what is new.

    pip install openai
    python examples/session_continuity.py

Which server, and with which key: see connection.py.
"""

import uuid
from typing import Any

from connection import connect


def main() -> None:
    """Tell something in one request, ask for it in the next, look at the session, and have it forgotten."""
    client, session_id = connect(), f"example-{uuid.uuid4()}"
    for text in ("My name is Ada, and I like ferries.", "What is my name?", "And what do I like?"):
        answer = client.chat.completions.create(
            model="sonnet", messages=[{"role": "user", "content": text}], extra_body={"session_id": session_id}
        )
        print(f"> {text}\n{answer.choices[0].message.content}")

    session: Any = client.get(f"/sessions/{session_id}", cast_to=object)
    print(f"{session['turn_count']} turns, {session['message_count']} messages, {session['cost_usd']:.5f} USD")
    client.delete(f"/sessions/{session_id}", cast_to=object)
    print("Forgotten.")


if __name__ == "__main__":
    main()
