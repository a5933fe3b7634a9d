"""How the examples reach the server.

OPENAI_BASE_URL is its address (http://localhost:8000/v1), OPENAI_API_KEY one of its keys, where it has any.
"""

import os
import sys
from typing import Any

from openai import APIConnectionError, APIStatusError, AuthenticationError, OpenAI

BASE_URL = os.environ.get("OPENAI_BASE_URL") or "http://localhost:8000/v1"
API_KEY = os.environ.get("OPENAI_API_KEY") or "not-needed"


def connect() -> OpenAI:
    """Make a client, once the server is checked."""
    check_server()
    return OpenAI(base_url=BASE_URL, api_key=API_KEY)


def check_server() -> None:
    """End the program, in words, where the server can't be reached or wouldn't answer."""
    try:
        with OpenAI(base_url=BASE_URL, api_key=API_KEY) as client:
            status: Any = client.get("/auth/status", cast_to=object)
    except AuthenticationError:
        sys.exit(f"{BASE_URL} wants a key that it knows: put one into OPENAI_API_KEY.")
    except APIConnectionError:
        sys.exit(f"Nobody answers at {BASE_URL}. Start the server (make run), or name another in OPENAI_BASE_URL.")
    except APIStatusError as error:
        sys.exit(
            f"{BASE_URL} isn't such a server's address, which ends with /v1, or can't be asked now: {error.message}"
        )
    if not status["complete"]:
        sys.exit(f"{BASE_URL} has no login to Claude. {status['hint']}")
