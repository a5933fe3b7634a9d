"""Ask with the OpenAI SDK, and see what an answer tells beside its text.

    pip install openai
    python examples/openai_sdk.py "Why is the sky blue?"

Which server, and with which key: see connection.py.
"""

import sys

from connection import connect
from openai import APIStatusError


def main(question: str) -> None:
    """List the models, ask a question, and ask one that goes wrong."""
    client = connect()
    print("Models:", ", ".join(model.id for model in client.models.list()))

    asked = client.chat.completions.with_raw_response.create(
        model="sonnet",
        messages=[
            {"role": "system", "content": "Answer in two sentences at most."},
            {"role": "user", "content": question},
        ],
        extra_headers={"X-Claude-Usage": "full"},
    )
    completion = asked.parse()
    print(completion.choices[0].message.content)
    if usage := completion.usage:
        print(f"{usage.prompt_tokens} tokens in, {usage.completion_tokens} out")
    print("Cost, as Claude Code counts it:", asked.headers.get("x-claude-cost-usd", "not told"))

    try:
        client.chat.completions.create(model="no-such-model", messages=[{"role": "user", "content": question}])
    except APIStatusError as error:
        print(f"{error.code}: {error.message}")


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "Why is the sky blue?")
