"""Instructor in one of its modes for chat completions: an object whole, in parts, and several of them.

instructor_modes.py MODEL QUESTION MODE
"""

import json
import sys
from collections.abc import Iterable
from typing import Any

import instructor
from functions import City
from openai import OpenAI
from pydantic import BaseModel


class River(BaseModel):
    """A river."""

    name: str
    kilometres: int


def main(model: str, question: str, mode: str) -> None:
    """Ask, and print what came out."""
    client = instructor.from_openai(OpenAI(max_retries=0), mode=instructor.Mode[mode])
    asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": question}], "max_retries": 0}
    if mode == "PARALLEL_TOOLS":
        several: Any = Iterable[City | River]
        found = client.create(response_model=several, **asked)
        print(json.dumps({"several": [[type(each).__name__, each.model_dump()] for each in found]}))
        return
    whole = client.create(response_model=City, **asked)
    parts = [part.model_dump() for part in client.create_partial(response_model=City, **asked)]
    several = list(client.create_iterable(response_model=City, **asked))
    print(json.dumps({"whole": whole.model_dump(), "parts": parts, "several": [each.model_dump() for each in several]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
